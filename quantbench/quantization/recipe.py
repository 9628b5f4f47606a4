"""What the user asks for, from options or from a TOML file."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from quantbench.calibration.calibrators import get_calibrator
from quantbench.errors import InputError
from quantbench.numerics import Format, check_accumulator, get_format
from quantbench.quantization.rounding import get_method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["LayerRule", "Recipe", "load_recipe"]

_STRICT = ConfigDict(extra="forbid")
_WEIGHT_RANGES = ("max", "mse")
_PLACEMENTS = ("fast", "everywhere")
_ACTIVATION_BITS = (8, 16)
_RECIPES = Path(__file__).parent / "recipes"


@checked_dataclass(frozen=True, config=_STRICT)
class LayerRule:
    """An exception: nodes or weights whose name matches `match` (shell pattern) use these formats instead."""

    match: str
    weights: str | None = None
    activations: str | None = None
    accumulator: str | None = None
    accumulator_chunk: int | None = None


@checked_dataclass(frozen=True, config=_STRICT)
class Recipe:
    """How to make a variant. Every choice is here; the same recipe and inputs give the same bytes.

    Attributes:
        dtype: name of the variant and default of the two formats.
        weights, activations: formats; None takes what `dtype` implies (8-bit integers go with uint8 activations).
        granularity: tensor, channel, or block:N along the reduction axis (weights).
        calibrator: how ranges of integer activations are chosen.
        calibration_samples: how many of the reference's calibration samples to use; None takes them all.
        tables: multiply tables of lookups by the matrix behind them where that leaves fewer weights.
        equalization: scale channels against each other so that one range suits all of a tensor's; None does where
            weights have a scale per tensor, which gains by it, and not where channels have scales of their own.
        weight_range: what the largest code of a weight stands for: the largest weight ("max"), or less where it lowers
            the squared error ("mse"); None takes "mse" for blocks, else "max".
        rounding: how weights get their codes: nearest, gptq, or adaround; None takes gptq where weights have fewer than
            8 bits, else nearest.
        bias_correction: shift biases so that rounding to integers moves no channel's mean.
        output_error: integer activations that move a graph's outputs on the calibration samples by more than this
            share of the outputs' variance are taken back, the most harmful nodes first; 0 takes none back, None
            takes half of what the target leaves: (1 − target_ratio)/2.
        target_ratio: the share of FP32's quality to hold; None takes the reference's quality rule.
        accumulator: format of the running sum of Conv, Gemm and MatMul where activations are floats; None keeps it in
            float32. Slow: an accumulator that no processor has is emulated sum by sum (`graphs.accumulators`).
        accumulator_chunk: products that are added in float32 before the running sum takes them and is rounded.
        narrow_share: where the weights' format has fewer than 8 bits, the share of their elements that gets it, those
            that harm the outputs least; the others get 8 bits. 0 takes as many as are expected to hold the target.
        placement: "fast" leaves operations in float where 8-bit integers, with the conversions to and from them, take
            longer on a CPU (`costs`); "everywhere" computes in integers whatever has an integer kernel.
        seed: of every random choice.
        layers: exceptions, the last match counts.
    """

    dtype: str
    weights: str | None = None
    activations: str | None = None
    granularity: str = "channel"
    calibrator: str = "mse"
    calibration_samples: int | None = None
    tables: bool = False
    equalization: bool | None = None
    weight_range: str | None = None
    rounding: str | None = None
    bias_correction: bool = True
    output_error: float | None = None
    target_ratio: float | None = None
    accumulator: str | None = None
    accumulator_chunk: int = 16
    narrow_share: float = 0.8
    placement: str = "fast"
    seed: int = 0
    layers: tuple[LayerRule, ...] = ()

    def __post_init__(self) -> None:
        for name in (self.weight_format, self.activation_format, *_formats_of(self.layers)):
            get_format(name)
        for name in (self.activation_format, *(rule.activations for rule in self.layers if rule.activations)):
            if get_format(name).kind == "int" and get_format(name).bits not in _ACTIVATION_BITS:
                raise InputError(
                    f"ONNX Runtime does not compute with {name} activations; integer ones have 8 or 16 bits"
                )
        get_calibrator(self.calibrator)
        get_method(self.weight_rounding)
        _ = self.block_size
        if self.weight_range not in (None, *_WEIGHT_RANGES):
            raise InputError(f"unknown weight_range {self.weight_range!r}; use {' or '.join(_WEIGHT_RANGES)}")
        if self.placement not in _PLACEMENTS:
            raise InputError(f"unknown placement {self.placement!r}; use {' or '.join(_PLACEMENTS)}")
        if self.target_ratio is not None and not 0 < self.target_ratio <= 1:
            raise InputError(f"the target ratio must be above 0 and at most 1, not {self.target_ratio}")
        if not 0 <= self.narrow_share <= 1:
            raise InputError(f"narrow_share must be between 0 and 1, not {self.narrow_share}")
        if self.output_error is not None and not self.output_error >= 0:
            raise InputError(f"output_error must be at least 0, not {self.output_error}")
        if self.calibration_samples is not None and self.calibration_samples < 1:
            raise InputError(f"calibration samples must be at least 1, not {self.calibration_samples}")
        for accumulator, chunk in ((self.accumulator, self.accumulator_chunk), *_accumulators_of(self.layers)):
            if accumulator is not None:
                check_accumulator(accumulator)
            if chunk is not None and chunk < 1:
                raise InputError(f"accumulator_chunk must be at least 1, not {chunk}")
        if self.accumulator is not None and get_format(self.activation_format).kind == "int":
            raise InputError(
                f"products with {self.activation_format} are added up in INT32, exactly; an accumulator of "
                f"{self.accumulator} is for float activations, such as --dtype fp16"
            )
        if get_format(self.dtype).name == "fp32" and self._rounds:
            raise InputError(
                "a variant named fp32 would stand for the reference itself; name it by another --dtype, and give "
                "--weights fp32 or --activations fp32 beside it for what stays in float32"
            )

    @property
    def _rounds(self) -> bool:
        """Whether anything is in another format than FP32."""
        formats = (self.weight_format, self.activation_format, *_formats_of(self.layers))
        accumulators = (self.accumulator, *(accumulator for accumulator, _ in _accumulators_of(self.layers)))
        return any(get_format(name).name != "fp32" for name in (*formats, *accumulators) if name is not None)

    @property
    def weight_format(self) -> str:
        """Canonical name of the weights' format."""
        return get_format(self.weights or self.dtype).name

    @property
    def activation_format(self) -> str:
        """Canonical name of the activations' format."""
        if self.activations is not None:
            return get_format(self.activations).name
        dtype = get_format(self.dtype)
        if dtype.kind != "int":
            return dtype.name
        return "uint8" if dtype.bits <= 8 else "uint16"

    @property
    def has_integers(self) -> bool:
        """Whether any layer's weights or activations become integers."""
        names = (self.weight_format, self.activation_format, *_formats_of(self.layers))
        return any(get_format(name).kind == "int" for name in names)

    @property
    def equalizes(self) -> bool:
        """Whether channels are scaled against each other."""
        return self.has_integers and (self.granularity == "tensor" if self.equalization is None else self.equalization)

    @property
    def weight_amplitude(self) -> str:
        """What the largest code of an integer weight stands for: "max" or "mse"."""
        return self.weight_range or ("mse" if self.block_size else "max")

    @property
    def weight_rounding(self) -> str:
        """How integer weights get their codes."""
        return self.rounding or ("gptq" if self.has_narrow_weights else "nearest")

    @property
    def has_narrow_weights(self) -> bool:
        """Whether any layer's weights become integers of fewer than 8 bits."""
        formats = (self.weight_format, *(rule.weights for rule in self.layers if rule.weights is not None))
        return any(get_format(name).kind == "int" and get_format(name).bits < 8 for name in formats)

    @property
    def block_size(self) -> int:
        """Elements a block, 0 without blocks.

        Raises:
            InputError: the granularity is not one.
        """
        if self.granularity in ("tensor", "channel"):
            return 0
        kind, _, size = self.granularity.partition(":")
        if kind == "block" and size.isdigit() and int(size) >= 1:
            return int(size)
        raise InputError(f"unknown granularity {self.granularity!r}; use tensor, channel or block:N, such as block:32")

    def formats_for(self, *names: str) -> tuple[Format, Format]:
        """(weight format, activation format) of the layer known by `names` (its node, its weight)."""
        weights, activations = self.weight_format, self.activation_format
        for rule in self.layers:
            if any(fnmatchcase(name, rule.match) for name in names):
                weights = rule.weights or weights
                activations = rule.activations or activations
        return get_format(weights), get_format(activations)

    def accumulator_for(self, *names: str) -> tuple[Format, int]:
        """(format, chunk) of the running sum of the layer known by `names`."""
        accumulator, chunk = self.accumulator or "fp32", self.accumulator_chunk
        for rule in self.layers:
            if any(fnmatchcase(name, rule.match) for name in names):
                accumulator = rule.accumulator or accumulator
                chunk = rule.accumulator_chunk or chunk
        return get_format(accumulator), chunk

    def document(self) -> dict[str, Any]:
        """What was asked for, without what was left at its default."""
        defaults = {field.name: field.default for field in fields(self)}
        document = {key: value for key, value in asdict(self).items() if value != defaults[key]}
        if "layers" in document:
            document["layers"] = [
                {key: value for key, value in rule.items() if value is not None} for rule in document["layers"]
            ]
        return {"dtype": self.dtype, **document}


def load_recipe(name_or_path: str | Path, **options: Any) -> Recipe:
    """Read a built-in recipe by its name, or a file; `options` that are not None win over what it says.

    Raises:
        InputError: the file is missing, not TOML, or has an unknown key or a wrong type.
    """
    builtin = _RECIPES / f"{name_or_path}.toml"
    path = builtin if isinstance(name_or_path, str) and builtin.is_file() else Path(name_or_path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read recipe {path}: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {path} is not TOML: {error}") from error
    document |= {key: value for key, value in options.items() if value is not None}
    try:
        return TypeAdapter(Recipe).validate_python(document)
    except ValidationError as error:
        raise InputError(f"recipe {path}: {_sentence(error)}") from error


def _formats_of(layers: tuple[LayerRule, ...]) -> list[str]:
    return [name for rule in layers for name in (rule.weights, rule.activations) if name is not None]


def _accumulators_of(layers: tuple[LayerRule, ...]) -> list[tuple[str | None, int | None]]:
    return [(rule.accumulator, rule.accumulator_chunk) for rule in layers]


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        last = str(first["loc"][-1])
        known = [field.name for field in fields(LayerRule if len(first["loc"]) > 1 else Recipe)]
        near = get_close_matches(last, known, n=1)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
    return f"{key}: {first['msg']}"
