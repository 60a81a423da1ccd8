"""Checkpoints that are either wholly there or not there at all.

A checkpoint is a folder, such as `epoch-00003-step-000000123`. It is written under another name,
flushed to disk, renamed, and only then named by the file `latest`; a crash at any moment leaves
the previous checkpoint current and intact. `manifest.json` holds the SHA-256 of every file.
Nothing in a checkpoint can run code: tensors are safetensors, the rest is read with
`weights_only=True`.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rheobase._weights import CheckpointError, sha256

__all__ = [
    "Checkpoints",
    "verify",
    "write_state",
    "write_tensors",
]

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best.

    A checkpoint's name says what it holds; names sort by age, and none is written twice.
    Only one process may call `begin`, `commit` and `save`.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, or None if there is none yet."""
        return self._named("latest")

    def best(self) -> Path | None:
        """Return the checkpoint with the best score, or None if none was marked."""
        return self._named("best")

    def save(self, name: str, write: Callable[[Path], None], best: bool = False) -> Path:
        """Make the checkpoint `name`; `write` fills the folder that it is given.

        Raises:
            OSError: The disk is full or unwritable; the previous checkpoint is still current.
        """
        previous = self.latest()
        try:
            write(self.begin(name))
            return self.commit(name, best)
        except OSError as error:
            shutil.rmtree(self.unfinished(name), ignore_errors=True)
            kept = f"the previous checkpoint {previous} is intact" if previous else "none is lost"
            reason = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
            raise OSError(
                error.errno, f"checkpoint {name} not saved: {reason}; {kept}", str(self.folder)
            ) from error

    def begin(self, name: str) -> Path:
        """Return a new, empty folder to write the checkpoint `name` into."""
        folder = self.unfinished(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit(self, name: str, best: bool = False) -> Path:
        """Seal what was written since `begin` and make it the current checkpoint."""
        temporary, final = self.unfinished(name), self.folder / name
        _seal(temporary)
        if final.exists():  # left by a crash between renaming and pointing at it
            shutil.rmtree(final)
        os.rename(temporary, final)
        _flush_folder(self.folder)
        self._point("latest", final)
        if best:
            self._point("best", final)
        self._prune()
        return final

    def unfinished(self, name: str) -> Path:
        """Return the folder that `name` is written in before `commit`."""
        return self.folder / f"unfinished-{name}"

    def _named(self, pointer: str) -> Path | None:
        file = self.folder / pointer
        if not file.exists():
            return None
        target = self.folder / file.read_text().strip()
        if not target.is_dir():
            raise CheckpointError(f"{file} names {target.name}, which does not exist")
        return target

    def _point(self, pointer: str, target: Path) -> None:
        temporary = self.folder / f"{pointer}.new"
        _write(temporary, (target.name + "\n").encode())
        os.replace(temporary, self.folder / pointer)
        _flush_folder(self.folder)

    def _prune(self) -> None:
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        whole = sorted(path for path in folders if not path.name.startswith("unfinished-"))
        kept = {*whole[-self.keep :], self.latest(), self.best()}
        for path in folders:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def verify(checkpoint: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: A file is missing, truncated or changed; it and its hashes are named.
    """
    manifest = checkpoint / MANIFEST
    try:
        expected: dict[str, str] = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{manifest} is missing or unreadable: {error}") from error
    for name, digest in expected.items():
        file = checkpoint / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing (its manifest expects sha256 {digest})")
        found = sha256(file)
        if found != digest:
            raise CheckpointError(
                f"{file} is truncated or was changed: sha256 {found}, expected {digest}; "
                f"other checkpoints in {checkpoint.parent} may be whole"
            )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors; tied tensors are written once per name."""
    copies = {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}
    _write(path, safetensors.torch.save(copies))


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    _write(path, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(folder)): sha256(path) for path in files}
    _write(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
