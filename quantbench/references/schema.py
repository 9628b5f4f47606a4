"""A reference: the FP32 model, its data, preprocessing and quality rule, as one TOML file says them.

Attributes carry the names of the TOML keys. `docs/bring-your-own-model.md` explains each with an example.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from quantbench.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "FIRST_USE",
    "CalibrationRule",
    "DataSource",
    "DetectionOutputs",
    "Latency",
    "ModelSource",
    "Preprocess",
    "Published",
    "Quality",
    "Reference",
    "Rules",
    "builtin_references",
    "load_reference",
    "nearest",
]

CATALOGUE = Path(__file__).parent / "catalogue"

FIRST_USE = "first-use"
"""Instead of a sha256 that nobody has published: that of the first download is kept, and binding from then on."""

_config = ConfigDict(extra="forbid", allow_inf_nan=False)

# Strict: a number in quotes, or true for 1, is a mistake to report.
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[Integer, Field(gt=0)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, Field(pattern=r"^https?://")]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
PerChannel = tuple[Number, Number, Number]


@dataclass(frozen=True, config=_config)
class ModelSource:
    """[model]: exactly one of path, url, package and generator says where the model file comes from."""

    path: str | None = None
    url: Url | None = None
    package: Package | None = None
    member: str | None = None
    generator: str | None = None
    """Names the file in `references/generators/` that makes the model file, with weights drawn from `seed`."""
    seed: Annotated[Integer, Field(ge=0)] | None = None
    sha256: Annotated[str, Field(pattern=rf"^([0-9a-f]{{64}}|{FIRST_USE})$")] | None = None
    """In hex, or `FIRST_USE` for a url whose sha256 nobody has published."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    output: str | None = None
    builder: str | None = None
    """Names the file in `references/builders/` that makes graphs of bare weights."""

    def __post_init__(self) -> None:
        given = [key for key in ("path", "url", "package", "generator") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of path, url, package and generator, but has {' and '.join(given) or 'none'}"
            )
        if given[0] in ("url", "package") and self.sha256 is None:
            raise ValueError(f"needs sha256, because the model comes from a {given[0]}")
        if given[0] != "url" and self.sha256 == FIRST_USE:
            raise ValueError(f'has sha256 = "{FIRST_USE}", which goes with url only')
        if given[0] == "generator" and self.sha256 is not None:
            raise ValueError("has a sha256, but a generated model has none that holds on every machine; remove it")
        if given[0] != "generator" and self.seed is not None:
            raise ValueError("has a seed but no generator to draw weights from it")
        _member_belongs_to_package(self.package, self.member)


@dataclass(frozen=True, config=_config)
class DataSource:
    """[dataset]: which kind of data set, and the keys that its kind reads (`quantbench/datasets/kinds/`)."""

    kind: str
    path: str | None = None
    variable: Variable | None = None
    """The environment variable that names the data set's folder, for data that nobody may hand on."""
    list: str | None = None
    label_offset: Integer = 0
    annotations: str | None = None
    images: str | None = None
    categories: Literal["ids", "positions"] = "ids"
    package: Package | None = None
    member: str | None = None
    sha256: Sha256 | None = None
    content: str | None = None
    seed: Annotated[Integer, Field(ge=0)] = 0
    samples: Positive | None = None
    height: Positive | None = None
    width: Positive | None = None
    motifs: Positive | None = None
    source: str | None = None
    target: str | None = None
    source_vocabulary: str | None = None
    target_vocabulary: str | None = None
    words: Positive | None = None
    longest: Positive | None = None

    def __post_init__(self) -> None:
        if self.path is not None and self.variable is not None:
            raise ValueError("has path and variable, which both say where the data is; remove one")
        if self.package is not None and self.sha256 is None:
            raise ValueError("needs sha256, because the data comes from a package")
        _member_belongs_to_package(self.package, self.member)


@dataclass(frozen=True, config=_config)
class CalibrationRule:
    """[calibration]: the first `samples` of the data set, or a list file of its own (cut to `samples` if given)."""

    samples: Positive | None = None
    list: str | None = None
    url: Url | None = None
    sha256: Sha256 | None = None
    images: str | None = None
    """The folder of the images in `list`, where it is not that of the scored ones."""
    scored: bool = False
    """Whether the samples of `list` are scored too, as the rules of ImageNet's official lists have it."""

    def __post_init__(self) -> None:
        for key in ("url", "sha256", "images"):
            if getattr(self, key) is not None and self.list is None:
                raise ValueError(f"has {key} but no list that it belongs to")
        if self.scored and self.list is None:
            raise ValueError("has scored = true but no list; the first samples of the data set are never scored")
        if self.url is not None and self.sha256 is None:
            raise ValueError("needs sha256, because the list comes from a url")


@dataclass(frozen=True, config=_config)
class Preprocess:
    """[preprocess]: from a decoded image to the model's input; without mean, std or divisor the image stays uint8."""

    resize: Positive | None = None
    resize_to: tuple[Positive, Positive] | None = None
    """(height, width), whatever the proportions."""
    crop: Positive | None = None
    interpolation: Literal["area", "linear", "cubic"] = "linear"
    channels: Literal["RGB", "BGR"] = "RGB"
    divisor: PositiveNumber | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None

    @field_validator("std")
    @classmethod
    def _divisible(cls, std: PerChannel | None) -> PerChannel | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be above 0, because the image is divided by it")
        return std

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize_to is not None:
            raise ValueError("has resize (the shorter side) and resize_to (height and width); remove one")


@dataclass(frozen=True, config=_config)
class DetectionOutputs:
    """[detection]: what the outputs of a graph that ends in boxes mean; boxes are fractions of the image."""

    boxes: str
    scores: str
    classes: str
    count: str | None = None
    """The output that says how many of an image's rows are detections; all of them without one."""
    order: Literal["y1x1y2x2", "x1y1x2y2"] = "y1x1y2x2"
    min_score: Annotated[Number, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True, config=_config)
class Quality:
    """[quality]: the metric, and how much of the FP32 score a variant must keep."""

    metric: str
    target_ratio: Annotated[Number, Field(gt=0, le=1)] = 0.99


@dataclass(frozen=True, config=_config)
class Latency:
    """[latency]: bounds in milliseconds for the scenarios that have one."""

    server_ms: PositiveNumber | None = None
    multi_stream_ms: PositiveNumber | None = None


@dataclass(frozen=True, config=_config)
class Rules:
    """[rules]: what the benchmark's rules ask of a variant of this model."""

    granularity: Literal["tensor"] | None = None
    """`tensor`: integer weights share one scale a tensor."""


@dataclass(frozen=True, config=_config)
class Published:
    """[[published]]: one row of the benchmark's published table of models."""

    model: str
    framework: str
    accuracy: str
    dataset: str
    link: Url
    precision: str
    granularity: Literal["tensor"] | None = None
    """What shares a scale, in a quantized row."""


@dataclass(frozen=True, config=_config)
class Reference:
    """A named FP32 model with all that is needed to convert, score and run it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # becomes a folder's name
    task: str
    model: ModelSource
    dataset: DataSource
    quality: Quality
    file: Annotated[Path, Field(exclude=True)]
    """The TOML file itself. Not a key."""
    calibration: CalibrationRule = CalibrationRule()
    preprocess: Preprocess = Preprocess()
    detection: DetectionOutputs | None = None
    latency: Latency | None = None
    rules: Rules = Rules()
    published: tuple[Published, ...] = ()
    performance_samples: Positive = 1024
    """How many samples LoadGen draws performance queries from; all of them are in memory at once."""
    suite: str = "own"
    """"embedded" for those that need no manual download, "mlperf-v0.5", "twin", or "own" for a user's."""

    @property
    def folder(self) -> Path:
        """The folder of the TOML file: what its relative paths start from."""
        return self.file.parent

    @property
    def command_name(self) -> str:
        """What the user writes on a command line to mean this reference."""
        return self.name if self.file.parent == CATALOGUE else str(self.file)


def load_reference(name_or_path: str | Path) -> Reference:
    """A built-in reference by its name, or a user's own by the path of its `.toml`.

    Raises:
        InputError: no such name or file, not TOML, or a key that is unknown, missing or of a wrong type.
    """
    if isinstance(name_or_path, str) and not name_or_path.endswith(".toml"):
        file = CATALOGUE / f"{name_or_path}.toml"
        names = _catalogue_names()
        if name_or_path not in names:
            raise InputError(
                f"there is no reference {name_or_path!r}{nearest(name_or_path, names)} "
                f"(give a built-in name, {', '.join(names)}, or the path of a .toml file)"
            )
        return _load(file)
    return _load(Path(name_or_path))


def builtin_references() -> list[Reference]:
    """Every reference of the catalogue, by name."""
    return [_load(CATALOGUE / f"{name}.toml") for name in _catalogue_names()]


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or nothing when none is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _catalogue_names() -> list[str]:
    return sorted(file.stem for file in CATALOGUE.glob("*.toml"))


def _load(file: Path) -> Reference:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the reference file {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the reference file {file} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the reference file {file} is not TOML: {error}") from error
    if "file" in document:
        raise InputError(_unknown_key(file, ("file",)))
    try:
        return TypeAdapter(Reference).validate_python({**document, "file": file.absolute()})
    except ValidationError as error:
        raise InputError(_sentence(file, error)) from error


def _sentence(file: Path, error: ValidationError) -> str:
    """One sentence for the first thing wrong; a misspelt key comes before the key that is missing through it."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "unexpected_keyword_argument")
    return _say(file, details[0])


def _say(file: Path, detail: ErrorDetails) -> str:
    where = tuple(part for part in detail["loc"] if isinstance(part, str) and not _is_type_name(part))
    key = ".".join(where)
    if where[-1] in ("mean", "std") and detail["type"] in ("missing", "too_long", "tuple_type"):
        return f"{file}: the key {key} must be three numbers, one a channel"
    match detail["type"]:
        case "unexpected_keyword_argument":
            return _unknown_key(file, where)
        case "missing":
            return f"{file}: the key {key} is missing"
        case "dataclass_type":
            return f"{file}: {key} must be a table, written [{key}], not {detail['input']!r}"
        case "value_error":
            return (
                f"{file}: [{key}] {detail['ctx']['error']}"
                if len(where) == 1
                else (f"{file}: the key {key} {detail['ctx']['error']}")
            )
        case "string_pattern_mismatch":
            return f"{file}: the key {key} has the value {detail['input']!r}, which is not {_MEANT[where[-1]]}"
    message = re.sub("^Input s", "s", detail["msg"])
    return f"{file}: the key {key} {message}, not {detail['input']!r}"


_MEANT = {
    "name": "letters, digits, '.', '_' and '-' beginning with a letter or digit",
    "sha256": f'64 lower-case hexadecimal digits (or "{FIRST_USE}", for the url of a model)',
    "url": "an http or https address",
    "package": "of the form NAME==VERSION",
    "link": "an http or https address",
    "variable": "the name of an environment variable, in capital letters",
}


def _unknown_key(file: Path, where: tuple[str, ...]) -> str:
    known = [name for name in _keys(where[:-1]) if name != "file"]
    table = f"[{'.'.join(where[:-1])}]" if where[:-1] else "the top level"
    return (
        f"{file}: unknown key {where[-1]!r} in {table}{nearest(where[-1], known)}"
        f"{'' if nearest(where[-1], known) else '; known keys are ' + ', '.join(known)}"
    )


def _keys(where: tuple[str, ...]) -> list[str]:
    """The known keys of the table at `where`."""
    table: Any = Reference
    for name in where:
        hint = typing.get_type_hints(table)[name]
        table = next(kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind))
    return [field.name for field in dataclasses.fields(table)]


def _is_type_name(part: str) -> bool:
    """Pydantic puts a union's member into the location, e.g. `constrained-str` or `function-after[…]`."""
    return "[" in part or part in ("str", "int", "float", "constrained-str", "tuple", "none")


def _member_belongs_to_package(package: str | None, member: str | None) -> None:
    if package is not None and member is None:
        raise ValueError("needs member, the path of the file inside the package")
    if package is None and member is not None:
        raise ValueError("has member but no package to take it from")
