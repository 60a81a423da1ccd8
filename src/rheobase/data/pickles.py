"""CIFAR's Python batches, read without running anything in them."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rheobase.data.fetch import ChecksumError
from rheobase.data.images import Bytes

__all__ = ["read_batch"]


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three names that an array needs."""
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            # `_reconstruct` moved between numpy versions; an array says where it is now.
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"a data batch has no use for {module}.{name}: refused")
        return allowed[module, name]


def read_batch(path: Path, labels: str, md5: str | None = None) -> tuple[Bytes, Bytes]:
    """The pixels ``[N, 3072]`` and labels ``[N]`` of a batch.

    Args:
        path: the file.
        labels: their key.
        md5: the sum of the published file; None does not ask for one.

    Raises:
        ChecksumError: not the published file, or no batch; names its sum.
    """
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise ChecksumError(
            f"{path} is truncated or not the published file: expected md5 {md5}, found {found}"
        )
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()  # from Python 2
        return np.asarray(batch["data"]), np.array(batch[labels], np.uint8)
    except Exception as error:  # a damaged pickle can fail in any way
        raise ChecksumError(f"{path} (md5 {found}) is not a CIFAR Python batch: {error}") from error
