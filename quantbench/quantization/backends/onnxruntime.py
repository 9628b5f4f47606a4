"""ONNX Runtime's own quantizer: `quantize_static` after its `quant_pre_process`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from quantbench.quantization.backends.backend import Backend, PeerRecipe
from quantbench.quantization.backends.feeds import CalibrationFeeds

__all__ = ["BACKEND"]

_TYPES = {
    "int8": "QInt8",
    "uint8": "QUInt8",
    "int16": "QInt16",
    "uint16": "QUInt16",
    "int4": "QInt4",
    "uint4": "QUInt4",
}
_ACTIVATION_TYPES = {None: "QInt8"} | {name: _TYPES[name] for name in ("int8", "uint8", "int16", "uint16")}
_CALIBRATORS = {None: "MinMax", "minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_PER_CHANNEL = {None: False, "tensor": False, "channel": True}


def _settings(recipe: PeerRecipe) -> dict[str, Any]:
    return {
        "weight_type": recipe.choose("weights", recipe.weight_format, _TYPES),
        "activation_type": recipe.choose("activations", recipe.activation_format, _ACTIVATION_TYPES),
        "per_channel": recipe.choose("granularity", recipe.granularity, _PER_CHANNEL),
        "calibrate_method": recipe.choose("calibrator", recipe.calibrator, _CALIBRATORS),
    }


def _quantize(model: onnx.ModelProto, feeds: CalibrationFeeds, settings: Mapping[str, Any]) -> onnx.ModelProto:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "quantized"))
        onnx.save(model, source)  # handed over in memory, version 1.32 would not optimise it
        # Symbolic shape inference knows fewer operators than the runtime and stops at what it does not know.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            _Reader(iter(feeds)),
            per_channel=settings["per_channel"],
            weight_type=quantization.QuantType[settings["weight_type"]],
            activation_type=quantization.QuantType[settings["activation_type"]],
            calibrate_method=quantization.CalibrationMethod[settings["calibrate_method"]],
        )
        return onnx.load(quantized)


class _Reader:
    """What `quantize_static` asks for samples."""

    def __init__(self, feeds: Iterator[dict[str, NDArray[Any]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


BACKEND = Backend(
    name="onnxruntime",
    distribution="onnxruntime",
    module="onnxruntime.quantization",
    install="pip install onnxruntime",
    settings=_settings,
    quantize=_quantize,
    calibrator="minmax",
)
