"""A small real data set inside the package: 5,000 + 1,000 MNIST digits, nothing to download."""

from __future__ import annotations

import hashlib
import io
import lzma
from pathlib import Path

import numpy as np
import torch

from rheobase.data.fetch import ChecksumError
from rheobase.data.images import Bytes, DatasetInfo, ImageDataset, Transform
from rheobase.data.mnist import MNIST

__all__ = ["MNISTSample", "build_mnist_sample"]

_FILE = Path(__file__).parent / "embedded" / "mnist_sample.npz.xz"
_SHA256 = "64b0d3bf997f9df15fe980870dc6175f96c212fa3df1358a308ed926c4506cd9"


class MNISTSample(ImageDataset):
    """A class-balanced part of MNIST that comes with the package, ``[1, 28, 28]``.

    The first 500 training and the first 100 test images of every digit, in their MNIST order
    (LeCun et al., Proc. IEEE 1998; CC BY-SA 3.0).

    >>> image, label = MNISTSample(train=False)[0]
    >>> image.shape, label
    (torch.Size([1, 28, 28]), 7)

    Args:
        train: the training or the test images.
        transform: applied to each image.
        size: keep the middle ``size`` x ``size`` pixels; the margin of MNIST's 28 x 28 is empty.

    Raises:
        ValueError: ``size`` is not an even number from 2 to 28.
        ChecksumError: the file in the package is damaged.
    """

    info = DatasetInfo(
        name="mnist_sample",
        description="handwritten digits, a balanced part of MNIST",
        classes=MNIST.info.classes,
        shape=MNIST.info.shape,
        sizes=(5_000, 1_000),
        licence=MNIST.info.licence,
        how="comes with rheobase (0.8 MB)",
    )

    def __init__(
        self, train: bool = True, transform: Transform | None = None, *, size: int = 28
    ) -> None:
        if size not in range(2, 29, 2):
            raise ValueError(f"size={size}: must be an even number from 2 to 28")
        self.transform = transform
        split = "train" if train else "test"
        packed = _FILE.read_bytes()
        found = hashlib.sha256(packed).hexdigest()
        if found != _SHA256:
            raise ChecksumError(
                f"{_FILE} is damaged: expected sha256 {_SHA256}, found {found}. Reinstall rheobase"
            )
        with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
            margin = (28 - size) // 2
            images = torch.from_numpy(arrays[f"{split}_images"])
            self.images = images[..., margin : 28 - margin, margin : 28 - margin]
            self.labels = torch.from_numpy(arrays[f"{split}_labels"]).long()

    @classmethod
    def download(cls) -> Path:
        """Return the file in the package."""
        return _FILE


def build_mnist_sample(path: Path) -> None:
    """Write the embedded file anew from the full MNIST."""
    arrays: dict[str, Bytes] = {}
    for split, per_class in (("train", 500), ("test", 100)):
        full = MNIST(train=split == "train")
        labels = full.labels.byte().numpy()
        chosen = np.sort(
            np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)])
        )
        arrays[f"{split}_images"] = full.images.numpy()[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    plain = io.BytesIO()
    np.savez(plain, allow_pickle=False, **arrays)
    path.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))
