"""Small things every room uses: hashes, atomic writes, progress, the cache folder."""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import rich.console
import rich.progress

from quantbench.errors import InputError

__all__ = [
    "atomic_file",
    "atomic_folder",
    "cache_folder",
    "progress",
    "return_memory",
    "settled",
    "sha256_file",
    "sha256_lines",
    "to_json",
]

T = TypeVar("T")

_bar = threading.Lock()
"""Held while a bar is shown: a terminal has room for one."""


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """sha256 of the lines, each ended by a newline, in hex."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def to_json(document: Any) -> str:
    """The one JSON layout of the project: two spaces, keys in the order given, a newline at the end."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def return_memory() -> None:
    """Give memory that is free already back to the system, after something large.

    glibc keeps what its threads have freed for the next allocation of the same thread, and one step of a conversion
    has other threads than the next: their leftovers add up. Where the C library is another one, nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@contextmanager
def settled() -> Iterator[None]:
    """Let the garbage collector pass over what is there already, which is mostly modules, classes and functions.

    A graph is many small objects, and as they come and go the collector walks through all that Python holds again and
    again, hundreds of thousands of objects since the imports. What the block leaves in cycles, as graphs are, goes at
    its end.
    """
    if gc.get_freeze_count():  # the caller has settled it; or we are inside of another such block
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        return_memory()
        gc.unfreeze()


def cache_folder() -> Path:
    """Where fetched and rendered files are kept: $QUANTBENCH_CACHE, or `quantbench` in the user's cache directory."""
    override = os.environ.get("QUANTBENCH_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("quantbench"))


@contextmanager
def atomic_file(path: Path, option: str = "--out") -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` when the block ends well, else it goes.

    Args:
        option: what chooses the place, outside of the cache.

    Raises:
        InputError: the folder cannot be written to.
    """
    with _reported(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _reported(path, option):
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes the place of `path` when the block ends well, else it goes.

    What stood at `path` stays until the new folder is complete. Of two writers at once, both end well and one
    complete folder stays. Leftovers of killed writers are removed by the next one that finds them an hour old.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    with _reported(path, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary.chmod(0o755)
    try:
        with _reported(path, "--out"):
            yield temporary
            _swap_in(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def progress(items: Iterable[T], total: int | None = None, what: str = "") -> Iterator[T]:
    """Pass `items` through, showing a bar with the time left on stderr when it is a terminal that shows none yet."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal or not _bar.acquire(blocking=False):
        yield from items
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    try:
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(items, total=total, description=what)
    finally:
        _bar.release()


@contextmanager
def _reported(path: Path, option: str) -> Iterator[None]:
    """Turn an operating system error about writing `path` into an InputError that names what chooses the place."""
    try:
        yield
    except OSError as error:
        chosen_by = "QUANTBENCH_CACHE" if path.is_relative_to(cache_folder()) else option
        why = error.strerror or error
        raise InputError(f"cannot write {path}: {why}; choose another place with {chosen_by}") from error


def _swap_in(new: Path, path: Path) -> None:
    """Put `new` at `path` in one step; what stood there ends up at `new` and is removed by the caller."""
    for _ in range(100):
        try:
            new.rename(path)  # nothing there, or an empty folder
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        with suppress(FileNotFoundError):  # another writer moved it away meanwhile: try again
            _exchange(new, path)
            return
    raise InputError(f"cannot write {path}: other processes keep replacing it")


def _exchange(one: Path, other: Path) -> None:
    """Exchange two paths atomically where the system can (Linux renameat2), else by two renames."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is not None:
        at_cwd, exchange = -100, 2
        if renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(other))
    aside = Path(tempfile.mkdtemp(prefix=f"{one.name}.", dir=one.parent))
    other.replace(aside)
    one.replace(other)
    aside.replace(one)


def _sweep(path: Path) -> None:
    """Remove what killed writers of `path` left behind an hour ago or earlier."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 3600:
                shutil.rmtree(leftover, ignore_errors=True)
