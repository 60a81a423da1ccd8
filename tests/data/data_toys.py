"""Small data sets and package archives made on the fly, and clients that pretend."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from rheobase.data import CIFAR10, MNIST, Events, FashionMNIST, Source
from rheobase.data.idx import write_idx


def make_tgz(members: Mapping[str, bytes]) -> bytes:
    """An npm archive."""
    return _make_tar(members, "w:gz")


def make_deb(members: Mapping[str, bytes]) -> bytes:
    """A Debian package: `ar` of a version, a control and a data archive."""
    data = _make_tar({f"./{name}": content for name, content in members.items()}, "w:xz")
    packed = b"!<arch>\n"
    for name, content in {
        "debian-binary": b"2.0",
        "control.tar.xz": b"odd",
        "data.tar.xz": data,
    }.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return packed


def _make_tar(members: Mapping[str, bytes], mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as bundle:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            bundle.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


class FakeClient:
    """`npm` and `apt-get` on PATH that hand over what `serve` was given, and note every call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "calls").touch()
        for client, archive in (("npm", "toy-1.0.0.tgz"), ("apt-get", "toy_1.0.0_all.deb")):
            script = folder / client
            script.write_text(
                f'#!/bin/sh\necho "{client} $*" >> {folder}/calls\n'
                f"test -f {folder}/served || {{ echo 404 no such package >&2; exit 7; }}\n"
                f"sleep 0.1\ncp {folder}/served {archive}\n"
            )
            script.chmod(0o755)

    def serve(self, packed: bytes) -> None:
        """Hand over this archive from now on."""
        (self._folder / "served").write_bytes(packed)

    @property
    def calls(self) -> list[str]:
        """The command lines so far."""
        return (self._folder / "calls").read_text().splitlines()


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def source_of(packed: bytes, client: str = "npm") -> Source:
    """The pinned source of a toy archive."""
    return Source(
        client=client,  # type: ignore[arg-type]
        package="toy",
        version="1.0.0",
        archive={"npm": "toy-1.0.0.tgz", "apt": "toy_1.0.0_all.deb"}[client],
        size=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
    )


def _sums(
    files: Mapping[str, bytes], names: Mapping[bool, Mapping[str, str]]
) -> dict[bool, dict[str, str]]:
    return {
        train: {name: hashlib.md5(files[name]).hexdigest() for name in names[train]}
        for train in (True, False)
    }


def _make_idx_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for split, count in (("train", 12), ("t10k", 5)):
        files[f"{split}-images-idx3-ubyte"] = write_idx(
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        )
        files[f"{split}-labels-idx1-ubyte"] = write_idx(rng.integers(0, 10, count, dtype=np.uint8))
    return files


def _make_cifar_files() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    files = {}
    for name in [*CIFAR10.md5[True], *CIFAR10.md5[False]]:
        records = rng.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
    return files


def python2_pickle(record_file: bytes, key: bytes = b"labels") -> bytes:
    """A CIFAR-10 Python batch as Python 2 wrote it: protocol 2, text and bytes alike as `str`."""
    records = np.frombuffer(record_file, np.uint8).reshape(-1, 3073)

    def string(text: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(text)) + text

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    pixels = records[:, 1:]
    dtype = b"cnumpy\ndtype\n(" + string(b"u1") + integer(0) + integer(1) + b"tR"
    dtype += (
        b"(" + integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
    array += integer(0) + b"t" + string(b"b") + b"tR("
    array += integer(1) + b"(" + b"".join(integer(n) for n in pixels.shape) + b"t"
    array += dtype + b"\x89" + string(pixels.tobytes()) + b"tb"
    labels = b"](" + b"".join(integer(int(n)) for n in records[:, 0]) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(key) + labels + b"u."


def _make_cifar_package() -> bytes:
    members = {}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for name, content in CIFAR_FILES.items():
        records = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        picture = io.BytesIO()
        rows = records[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1)
        Image.fromarray(np.ascontiguousarray(rows)).save(picture, "png")
        members[f"package/{Path(name).stem}.png"] = picture.getvalue()
        labels["test" if name.startswith("test") else "train"] += records[:, 0].tolist()
    for split, values in labels.items():
        members[f"package/{split}_lables.json"] = json.dumps(values).encode()
    return make_tgz(members)


IDX_FILES = _make_idx_files()
CIFAR_FILES = _make_cifar_files()
PY_FILES = {Path(name).stem: python2_pickle(content) for name, content in CIFAR_FILES.items()}
MNIST_PACKAGE = make_tgz({f"package/data/{n}": c for n, c in IDX_FILES.items()})
FASHION_PACKAGE = make_deb(
    {FashionMNIST.members.format(n): gzip.compress(c) for n, c in IDX_FILES.items()}
)
CIFAR_PACKAGE = _make_cifar_package()


class ToyMNIST(MNIST):
    """MNIST with 12 + 5 images of noise."""

    source = source_of(MNIST_PACKAGE)
    md5 = _sums(IDX_FILES, MNIST.md5)


class ToyFashion(FashionMNIST):
    """Fashion-MNIST with the same noise."""

    source = source_of(FASHION_PACKAGE, "apt")
    md5 = _sums(IDX_FILES, FashionMNIST.md5)


class ToyCIFAR(CIFAR10):
    """CIFAR-10 with batches of 4 images of noise."""

    source = source_of(CIFAR_PACKAGE)
    md5 = _sums(CIFAR_FILES, CIFAR10.md5)


def recording(n: int = 40, seed: int = 0) -> Events:
    """Random events of a camera of 128 x 128 pixels."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 1000, n))
    x, y = rng.integers(0, 128, (2, n))
    return Events(t, x, y, rng.integers(0, 2, n))


def write_aedat2(path: Path, events: Events, start: int = 500) -> None:
    """An AEDAT 2.0 file of a DVS128."""
    address = events.y << 8 | events.x << 1 | (1 - events.p)
    words = np.stack([address, events.t + start], 1).astype(">u4")
    path.write_bytes(b"#!AER-DAT2.0\r\n# a comment\r\n" + words.tobytes())


def write_aedat3(path: Path, events: Events, overflow: int = 0) -> None:
    """Packets of seven events, each behind a packet of another type, with one invalid event."""
    packets = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for start in range(0, len(events), 7):
        piece = slice(start, start + 7)
        address = events.x[piece] << 17 | events.y[piece] << 2 | events.p[piece] << 1 | 1
        words = np.stack([address, events.t[piece]], 1).astype("<u4")
        words = np.concatenate([words, np.array([[0, 12345]], "<u4")])
        other = np.array([0, 0, 8, 4, overflow, 1, 1, 1])
        head = np.array([1, 0, 8, 4, overflow, len(words), len(words), len(words) - 1])
        for numbers, body in ((other, bytes(8)), (head, words.tobytes())):
            packets += numbers[:2].astype("<i2").tobytes() + numbers[2:].astype("<i4").tobytes()
            packets += body
    path.write_bytes(packets)
