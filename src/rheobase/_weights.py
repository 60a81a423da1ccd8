"""Reading of weights and of what is saved beside them. Nothing in a file is ever executed."""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

__all__ = ["CheckpointError", "read_state", "read_tensors", "read_weights", "sha256"]

# What training scripts save beside the weights: their arguments, and numbers of NumPy, 1 and 2. To
# make these again runs no code of the file.
_NUMBER = np.float64(0).__reduce__()[0]
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    (_NUMBER, "numpy.core.multiarray.scalar"),
    (_NUMBER, "numpy._core.multiarray.scalar"),
]


class CheckpointError(ValueError):
    """A checkpoint is damaged, was changed, or holds what it must not."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of weights onto the CPU, ``.safetensors`` or what `torch.save` wrote.

    Raises:
        CheckpointError: The file holds code or objects, or is damaged.
    """
    path = Path(path)
    return dict(read_tensors(path)) if path.suffix == ".safetensors" else read_state(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        CheckpointError: The file is not whole.
    """
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote onto the CPU.

    Raises:
        CheckpointError: The file holds code or objects, or is damaged.
    """
    try:
        with torch.serialization.safe_globals(_PLAIN):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds something other than tensors and plain data; refused, nothing in it "
            f"was executed: {str(error).splitlines()[0]}"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # PyTorch: no whole archive
            raise
        raise CheckpointError(f"{path} is damaged (sha256 {sha256(path)}): {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a dictionary")
    return state


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
