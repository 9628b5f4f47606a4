"""One file out of a Python package: downloaded by the user's own pip, extracted, never imported or executed."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from quantbench.errors import InputError, MissingError
from quantbench.support import atomic_file, cache_folder, progress, sha256_file

__all__ = ["member_path", "package_member"]


def package_member(package: str, member: str, sha256: str) -> Path:
    """The local file of one member of a package, from the cache when its sha256 is right, else fetched.

    Args:
        package: `NAME==VERSION`.
        member: the path of the file inside the wheel.
        sha256: of the member, in lower-case hex.

    Raises:
        MissingError: pip is absent or could not download the package.
        InputError: the wheel has no such member, or the member has another sha256.
    """
    file = member_path(member, sha256)
    if file.is_file() and sha256_file(file) == sha256:
        return file
    # A wheel kept from an earlier download serves its other members too, unless it turns out to be damaged.
    kept = _kept_wheel(package)
    data = _read(kept, member) if kept is not None else None
    if data is None or hashlib.sha256(data).hexdigest() != sha256:
        wheel = _download(package)
        data = _read(wheel, member)
        if data is None:
            raise InputError(f"the package {package} has no file {member} in {wheel.name}")
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise InputError(f"{member} of the package {package} has the sha256 {found}, but {sha256} is expected")
    with atomic_file(file) as temporary:
        temporary.write_bytes(data)
    return file


def member_path(member: str, sha256: str | None) -> Path:
    """Where the cache keeps a member; its sha256 is part of the name, so that versions never mix."""
    return cache_folder() / "members" / f"{(sha256 or '')[:16]}-{Path(member).name}"


def _wheel_folder(package: str) -> Path:
    return cache_folder() / "packages" / package


def _kept_wheel(package: str) -> Path | None:
    return next(iter(sorted(_wheel_folder(package).glob("*.whl"))), None)


def _read(wheel: Path, member: str) -> bytes | None:
    """The bytes of one member, or None when the wheel is damaged or has no such member."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError):
        return None


def _download(package: str) -> Path:
    """Download the wheel into the cache.

    Source distributions are left aside, because pip would execute their build; the Python versions that a wheel
    asks for do not matter, because nothing of it is executed.
    """
    folder = _wheel_folder(package)
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", *options, "--dest"]
        result = subprocess.CompletedProcess[str]([], 1, "", "")
        for _ in progress([package], 1, f"fetching {package}"):
            result = subprocess.run([*command, temporary, package], capture_output=True, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if result.returncode != 0 or not wheels:
            reason = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise MissingError(
                f"pip could not download the package {package} ({reason}); "
                f"run: {shlex.join(['python', *command[1:], str(folder), package])}"
            )
        with atomic_file(folder / wheels[0].name) as placed:
            placed.write_bytes(wheels[0].read_bytes())
    return folder / wheels[0].name
