"""Read single members out of package archives (npm `.tgz`, Python `.whl`, Debian `.deb`).

Members are read into memory: nothing is unpacked on disk, so no path in an archive can lead astray.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["read_members"]

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


def read_members(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the named regular files of a package archive.

    Names are paths inside the package, without a leading ``./``
    (npm: ``package/data/x``; Debian: ``usr/share/x``).

    Raises:
        ValueError: the file is no such archive, is cut short, or lacks a named member.
    """
    try:
        found = dict(_walk(archive, frozenset(names)))
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise ValueError(f"{archive} cannot be read as a package archive: {error}") from error
    missing = sorted(set(names) - set(found))
    if missing:
        raise ValueError(f"{archive} does not hold {', '.join(missing)}")
    return found


def _walk(archive: Path, names: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as bundle:
            for name in names.intersection(bundle.namelist()):
                yield name, bundle.read(name)
    elif archive.suffix == ".deb":
        yield from _walk_tar(io.BytesIO(_deb_data(archive)), names)
    else:
        with archive.open("rb") as file:
            yield from _walk_tar(file, names)


def _walk_tar(file: io.BufferedIOBase, names: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r:*") as bundle:
        for member in bundle:
            name = member.name.removeprefix("./")
            content = bundle.extractfile(member) if member.isreg() and name in names else None
            if content is not None:
                yield name, content.read()


def _deb_data(archive: Path) -> bytes:
    """Return the `data.tar.*` of a Debian package, which is an `ar` archive of three members."""
    raw = archive.read_bytes()
    if not raw.startswith(_AR_MAGIC):
        raise ValueError(f"{archive} is not a Debian package: it does not start with {_AR_MAGIC!r}")
    start = len(_AR_MAGIC)
    while start + _AR_HEADER <= len(raw):
        header = raw[start : start + _AR_HEADER]
        name, size = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
        start += _AR_HEADER
        if name.startswith("data.tar"):
            return raw[start : start + size]
        start += size + size % 2  # members begin at even offsets
    raise ValueError(f"{archive} holds no data.tar member")
