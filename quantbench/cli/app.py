"""The group of all commands, and `main`, where every error becomes one sentence and an exit status."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from click.shell_completion import shell_complete

from quantbench.cli.compare import compare
from quantbench.cli.completion import completion
from quantbench.cli.convert import convert
from quantbench.cli.evaluate import evaluate
from quantbench.cli.fetch import fetch
from quantbench.cli.formats import formats
from quantbench.cli.gate import gate
from quantbench.cli.models import models
from quantbench.cli.options import debug_option
from quantbench.cli.report import report
from quantbench.cli.run import run
from quantbench.cli.study import study
from quantbench.errors import QuantbenchError

__all__ = ["cli", "main"]

USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE; 1 would read as a gate that says no


class OrderedGroup(click.Group):
    """Lists the commands in the order of the work instead of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=OrderedGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: quantbench gate ppocr-cls --dtype int8 fp11",
)
@click.version_option(package_name="quantbench", message="%(prog)s %(version)s")
@debug_option
@click.pass_context
def cli(context: click.Context) -> None:
    """Convert FP32 models to small number formats, prove their quality, run what passes through MLPerf LoadGen.

    REFERENCE is the name of a built-in model (see `quantbench models`) or a path to a reference file (.toml);
    without one, a command takes every embedded reference.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (models, formats, fetch, convert, evaluate, gate, run, compare, study, report, completion):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit status.

    0 done; 1 the gate says no; 2 bad input or usage; 3 something needed is missing; 130 interrupted.
    """
    atexit.register(gc.freeze)  # else the interpreter ends with walks through all modules, for a quarter of a second
    words = list(sys.argv[1:] if arguments is None else arguments)
    if instruction := os.environ.get("_QUANTBENCH_COMPLETE"):
        return shell_complete(cli, {}, "quantbench", "_QUANTBENCH_COMPLETE", instruction)
    try:
        with _notes_on_stderr():
            status = _status(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`): let the interpreter's last flush go nowhere instead of failing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _status(words: list[str]) -> int:
    meta: dict[str, object] = {}
    try:
        with cli.make_context("quantbench", words) as context:
            meta = context.meta
            cli.invoke(context)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "quantbench"
        return _say(f"{error.format_message().rstrip('.')} (see {command} --help)", USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except QuantbenchError as error:
        _trace(meta)
        return _say(str(error), error.status)
    except Exception as error:  # a defect of ours or of a library: still one sentence
        _trace(meta)
        hint = "" if meta.get("debug") else "; --debug shows where"
        return _say(f"unexpected {type(error).__name__}: {error}{hint}", USAGE)
    return 0


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Show what the operations log, such as a variant converted on the way."""
    logger = logging.getLogger("quantbench")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _say(sentence: str, status: int) -> int:
    click.echo(f"quantbench: {' '.join(sentence.split())}", err=True)
    return status


def _trace(meta: dict[str, object]) -> None:
    if meta.get("debug"):
        traceback.print_exc()
