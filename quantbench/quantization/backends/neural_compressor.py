"""ONNX Neural Compressor's static quantization, the ONNX path that Intel Neural Compressor once had.

Version 1.0 asks for numpy below 2 in its metadata but runs with numpy 2, so it is installed without its dependencies
and with those it imports. It writes QDQ here: in its default, QOperator, ppocr-cls is right on half of the images, as
one is by chance, and on 99% in QDQ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from quantbench.quantization.backends.backend import Backend, PeerRecipe
from quantbench.quantization.backends.feeds import CalibrationFeeds

__all__ = ["BACKEND"]

_WEIGHTS = {"int8": "QInt8"}
_ACTIVATIONS = {None: "QUInt8", "uint8": "QUInt8", "int8": "QInt8"}
_CALIBRATORS = {None: "MinMax", "minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_PER_CHANNEL = {None: False, "tensor": False, "channel": True}


def _settings(recipe: PeerRecipe) -> dict[str, Any]:
    return {
        "quant_format": "QDQ",
        "weight_type": recipe.choose("weights", recipe.weight_format, _WEIGHTS),
        "activation_type": recipe.choose("activations", recipe.activations, _ACTIVATIONS),
        "per_channel": recipe.choose("granularity", recipe.granularity, _PER_CHANNEL),
        "calibrate_method": recipe.choose("calibrator", recipe.calibrator, _CALIBRATORS),
    }


def _quantize(model: onnx.ModelProto, feeds: CalibrationFeeds, settings: Mapping[str, Any]) -> onnx.ModelProto:
    quantization = import_module("onnx_neural_compressor.quantization")
    config = import_module("onnx_neural_compressor.quantization.config")
    asked = config.StaticQuantConfig(
        calibration_data_reader=_Reader(feeds),
        calibrate_method=quantization.CalibrationMethod[settings["calibrate_method"]],
        quant_format=quantization.QuantFormat[settings["quant_format"]],
        activation_type=quantization.QuantType[settings["activation_type"]],
        weight_type=quantization.QuantType[settings["weight_type"]],
        per_channel=settings["per_channel"],
        calibration_sampling_size=len(feeds),
    )
    with tempfile.TemporaryDirectory() as folder:  # a new one: an output whose .onnx_data exists already is an error
        source, quantized = Path(folder) / "model.onnx", Path(folder) / "quantized.onnx"
        onnx.save(model, source)
        quantization.quantize(str(source), str(quantized), asked)
        return onnx.load(quantized)


class _Reader:
    """What the quantizer asks for samples; it goes through them more than once."""

    def __init__(self, feeds: CalibrationFeeds) -> None:
        self._feeds = feeds
        self._pass: Iterator[dict[str, NDArray[Any]]] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._pass, None)

    def rewind(self) -> None:
        self._pass = iter(self._feeds)


BACKEND = Backend(
    name="neural-compressor",
    distribution="onnx-neural-compressor",
    module="onnx_neural_compressor",
    install=(
        "pip install --no-deps onnx-neural-compressor==1.0 && pip install py-cpuinfo psutil prettytable transformers"
    ),
    settings=_settings,
    quantize=_quantize,
    calibrator="minmax",
)
