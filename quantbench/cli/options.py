"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from quantbench.errors import InputError

if TYPE_CHECKING:
    from quantbench.references import Reference

__all__ = [
    "DtypeCommand",
    "batch_option",
    "confidence_option",
    "debug_option",
    "dtype_option",
    "json_option",
    "out_option",
    "references_argument",
    "samples_option",
    "split_formats",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)

COMMON_DTYPES = ("int8", "uint8", "int4", "int16", "uint16", "fp16", "bfloat16", "fp11", "fp32")


class DtypeCommand(click.Command):
    """A command that also takes `--dtype int8 fp16 fp11`: a format name after a dtype is one more dtype."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _repeat_dtype(args))


def _complete_reference(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from quantbench.references import builtin_references

    names = [reference.name for reference in builtin_references() if reference.name.startswith(incomplete)]
    return [*(CompletionItem(name) for name in names), CompletionItem(incomplete, type="file")]


def _complete_dtype(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in COMMON_DTYPES if name.startswith(incomplete)]


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["debug"] = True


def _keep_dataset(ctx: click.Context, param: click.Parameter, folder: Path | None) -> None:
    ctx.meta["dataset"] = folder


def _with_dataset(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str | Reference, ...]:
    """The references, over the data set that `--dataset` names."""
    folder: Path | None = ctx.meta.get("dataset")
    if folder is None:
        return names
    if not names:
        raise click.UsageError("--dataset needs a REFERENCE whose data it is")
    from quantbench.operations import catalogue

    return tuple(catalogue.over_dataset(name, folder) for name in names)


def split_formats(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The canonical names of the formats that were asked for, each once, in the order given.

    What follows an @, the backend that made a variant, stays as it is.
    """
    from quantbench.numerics import get_format

    words = [word.strip().partition("@") for value in values for word in value.split(",") if word.strip()]
    return tuple(dict.fromkeys(f"{get_format(name).name}{at}{backend}" for name, at, backend in words))


def references_argument(command: Decorated) -> Decorated:
    """REFERENCE..., and `--dataset` for those whose data nobody may hand on."""
    named = click.argument(
        "references",
        metavar="[REFERENCE]...",
        nargs=-1,
        callback=_with_dataset,
        shell_complete=_complete_reference,
    )
    data = click.option(
        "--dataset",
        type=click.Path(exists=True, path_type=Path, resolve_path=True),
        expose_value=False,
        is_eager=True,  # known when the references are read
        callback=_keep_dataset,
        metavar="DIR",
        help="Where the data set is, in place of what the reference says.",
    )
    return data(named(command))


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_debug,
    help="Show the traceback of errors.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON array to stdout.")
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("variants"),
    show_default=True,
    help="Folder where variants are written and looked for.",
)
samples_option = click.option(
    "--samples", type=click.IntRange(min=1), help="Score only the first N samples. Default: all."
)
batch_option = click.option(
    "--batch", type=click.IntRange(min=1), help="Samples in one inference. Default: what suits the model."
)
confidence_option = click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Pass only when the lower end of the ratio's interval at this confidence clears the target.",
)


def dtype_option(*, required: bool) -> Callable[[Decorated], Decorated]:
    """`--dtype`, which may be repeated or list several formats."""
    return click.option(
        "--dtype",
        "dtypes",
        multiple=True,
        required=required,
        callback=split_formats,
        shell_complete=_complete_dtype,
        metavar="D...",
        help="int8, uint8, int4, int16, uint16, fp16, bfloat16, fp11, fp32, any name of `quantbench formats`, or eXmY.",
    )


def _repeat_dtype(args: Iterable[str]) -> list[str]:
    """Put `--dtype` before each bare format name that follows a dtype.

    >>> _repeat_dtype(["--dtype", "int8", "fp16", "ppocr-cls"])
    ['--dtype', 'int8', '--dtype', 'fp16', 'ppocr-cls']
    """
    words: list[str] = []
    awaits_value = after_dtype = False
    for word in args:
        if after_dtype and not word.startswith("-") and _is_format(word):
            words.append("--dtype")
        elif awaits_value:
            after_dtype = True
        else:
            after_dtype = word.startswith("--dtype=")
        awaits_value = word == "--dtype"
        words.append(word)
    return words


def _is_format(word: str) -> bool:
    from quantbench.numerics import get_format

    try:
        for name in word.split(","):
            get_format(name.partition("@")[0])
    except InputError:
        return False
    return True
