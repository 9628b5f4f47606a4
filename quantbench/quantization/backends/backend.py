"""What a backend is, and what it can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import onnx
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from quantbench.errors import InputError, MissingError
from quantbench.numerics import get_format
from quantbench.quantization.backends.feeds import CalibrationFeeds

__all__ = ["Backend", "PeerRecipe"]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PeerRecipe:
    """What a backend is asked for. None leaves a choice to the backend's own default.

    Attributes:
        backend: its name.
        dtype: of the variant; weights and activations take it where nothing else is said and the backend can.
        calibration_samples: how many of the reference's calibration samples to use; None takes them all.
    """

    backend: str
    dtype: str
    weights: str | None = None
    activations: str | None = None
    granularity: str | None = None
    calibrator: str | None = None
    calibration_samples: int | None = None

    def document(self) -> dict[str, Any]:
        """What was asked for, without what was left to the backend."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def weight_format(self) -> str:
        """Canonical name of the weights' format."""
        return get_format(self.weights or self.dtype).name

    @property
    def activation_format(self) -> str | None:
        """Canonical name of the activations' format; None where only the weights' is said."""
        if self.activations is not None:
            return get_format(self.activations).name
        dtype = get_format(self.dtype)
        return dtype.name if dtype.kind != "int" or dtype.bits >= 8 else None

    def choose(self, option: str, value: str | None, offered: Mapping[Any, Any]) -> Any:
        """What the backend calls the value of an option.

        Args:
            option: the field that the value comes from; `dtype` where it is not given itself.
            offered: from our names, and None where the backend has a default, to the backend's.

        Raises:
            InputError: the backend does not offer it.
        """
        if value not in offered:
            given = option if getattr(self, option) is not None else "dtype"
            raise InputError(
                f"--backend {self.backend} does not offer --{given} {value}; it offers "
                f"{', '.join(str(name) for name in offered if name is not None) or 'only its own default'}"
            )
        return offered[value]


@dataclass(frozen=True)
class Backend:
    """One other project's quantizer.

    Attributes:
        distribution: the package whose version is recorded.
        module: what it is imported as.
        install: the command that installs it.
        settings: from a recipe to what the quantizer is told, as plain JSON values; InputError for what it does not
            offer. Imports nothing.
        quantize: from an FP32 graph as its authors publish it, its calibration feeds and the settings to a quantized
            graph. May raise anything.
        calibrator: what the backend's own default calibrator is called here.
    """

    name: str
    distribution: str
    module: str
    install: str
    settings: Callable[[PeerRecipe], dict[str, Any]]
    quantize: Callable[[onnx.ModelProto, CalibrationFeeds, Mapping[str, Any]], onnx.ModelProto]
    calibrator: str

    @property
    def is_installed(self) -> bool:
        return find_spec(self.module) is not None

    def require(self) -> None:
        """
        Raises:
            MissingError: the backend is not installed.
        """
        if not self.is_installed:
            raise MissingError(f"--backend {self.name} needs {self.distribution}; get it with: {self.install}")
