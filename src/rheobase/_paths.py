"""Where rheobase keeps what can be made or fetched again."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["cache_root", "kernel_cache"]


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
