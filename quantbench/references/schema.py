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
    "CalibrationRule",
    "DataSource",
    "Latency",
    "ModelSource",
    "Preprocess",
    "Quality",
    "Reference",
    "builtin_references",
    "load_reference",
    "nearest",
]

CATALOGUE = Path(__file__).parent / "catalogue"

_config = ConfigDict(extra="forbid", allow_inf_nan=False)

# Strict: a number in quotes, or true for 1, is a mistake to report.
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[Integer, Field(gt=0)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
PerChannel = tuple[Number, Number, Number]


@dataclass(frozen=True, config=_config)
class ModelSource:
    """[model]: exactly one of path, url and package says where the model comes from."""

    path: str | None = None
    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    package: Package | None = None
    member: str | None = None
    sha256: Sha256 | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    output: str | None = None
    builder: str | None = None
    """Names the file in `references/builders/` that makes graphs of bare weights."""

    def __post_init__(self) -> None:
        given = [key for key in ("path", "url", "package") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of path, url and package, but has {' and '.join(given) or 'none'}")
        if given != ["path"] and self.sha256 is None:
            raise ValueError(f"needs sha256, because the model comes from a {given[0]}")
        _member_belongs_to_package(self.package, self.member)


@dataclass(frozen=True, config=_config)
class DataSource:
    """[dataset]: which kind of data set, and the keys that its kind reads (`quantbench/datasets/kinds/`)."""

    kind: str
    path: str | None = None
    list: str | None = None
    label_offset: Integer = 0
    package: Package | None = None
    member: str | None = None
    sha256: Sha256 | None = None
    content: str | None = None
    seed: Annotated[Integer, Field(ge=0)] = 0
    samples: Positive | None = None
    height: Positive | None = None
    width: Positive | None = None

    def __post_init__(self) -> None:
        if self.package is not None and self.sha256 is None:
            raise ValueError("needs sha256, because the data comes from a package")
        _member_belongs_to_package(self.package, self.member)


@dataclass(frozen=True, config=_config)
class CalibrationRule:
    """[calibration]: the first `samples` of the data set, or a list file of its own (cut to `samples` if given)."""

    samples: Positive | None = None
    list: str | None = None


@dataclass(frozen=True, config=_config)
class Preprocess:
    """[preprocess]: from a decoded image to the model's input; without mean and std the image stays uint8."""

    resize: Positive | None = None
    crop: Positive | None = None
    interpolation: Literal["area", "linear", "cubic"] = "linear"
    channels: Literal["RGB", "BGR"] = "RGB"
    mean: PerChannel | None = None
    std: PerChannel | None = None

    @field_validator("std")
    @classmethod
    def _divisible(cls, std: PerChannel | None) -> PerChannel | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be above 0, because the image is divided by it")
        return std


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
    latency: Latency | None = None
    suite: str = "own"
    """"embedded" for those that need no manual download, "own" for a user's."""

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
    "sha256": "64 lower-case hexadecimal digits",
    "url": "an http or https address",
    "package": "of the form NAME==VERSION",
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
