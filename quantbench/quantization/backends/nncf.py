"""NNCF's post-training quantization (`nncf.quantize`), with its fast bias correction."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import onnx

from quantbench.quantization.backends.backend import Backend, PeerRecipe
from quantbench.quantization.backends.feeds import CalibrationFeeds

__all__ = ["BACKEND"]

_PRESET = {"int8": "performance"}
"""Symmetric weights and activations: NNCF's default."""
_CALIBRATORS = {None: "mean_minmax", "minmax": "minmax"}
_PER_CHANNEL = {None: True, "channel": True, "tensor": False}


def _settings(recipe: PeerRecipe) -> dict[str, Any]:
    preset = recipe.choose("weights", recipe.weight_format, _PRESET)
    recipe.choose("activations", recipe.activation_format, _PRESET)
    return {
        "preset": preset,
        "per_channel": recipe.choose("granularity", recipe.granularity, _PER_CHANNEL),
        "activations_range_estimator": recipe.choose("calibrator", recipe.calibrator, _CALIBRATORS),
        "fast_bias_correction": True,
    }


def _quantize(model: onnx.ModelProto, feeds: CalibrationFeeds, settings: Mapping[str, Any]) -> onnx.ModelProto:
    nncf = import_module("nncf")
    parameters = import_module("nncf.quantization.advanced_parameters")
    advanced = nncf.AdvancedQuantizationParameters()
    if settings["activations_range_estimator"] == "minmax":
        estimators = import_module("nncf.quantization.range_estimator")
        advanced.activations_range_estimator_params = estimators.RangeEstimatorParametersSet.MINMAX
    if not settings["per_channel"]:
        advanced.weights_quantization_params = parameters.QuantizationParameters(per_channel=False)
    quantized: onnx.ModelProto = nncf.quantize(
        model,
        nncf.Dataset(feeds),
        preset=nncf.QuantizationPreset(settings["preset"]),
        subset_size=len(feeds),
        fast_bias_correction=settings["fast_bias_correction"],
        advanced_parameters=advanced,
    )
    return quantized


BACKEND = Backend(
    name="nncf",
    distribution="nncf",
    module="nncf",
    install="pip install nncf",
    settings=_settings,
    quantize=_quantize,
    calibrator="mean-minmax",
)
