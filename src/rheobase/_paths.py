"""Where rheobase keeps what can be made or fetched again, and how its files are written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["cache_root", "kernel_cache", "replacing", "write_text"]


def cache_root() -> Path:
    """The cache folder: ``RHEOBASE_CACHE``, else ``rheobase`` in the user's cache folder."""
    named = os.environ.get("RHEOBASE_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rheobase"


@cache
def kernel_cache() -> Path:
    """A writable folder for compiled kernels; a temporary one where the cache cannot be written.

    Private to the user (mode 700), since what lies there is executed.
    """
    folder = cache_root() / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="rheobase-kernels-"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to be written, which then takes its place: whole, or not at all.

    Who reads ``path`` meanwhile finds the old file, and so do all if writing fails or is stopped.
    Its folder is made if there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text whole, or leave the old one."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
