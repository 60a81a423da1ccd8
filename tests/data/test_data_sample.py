"""The embedded digits, and the real downloads they come from."""

from __future__ import annotations

import hashlib
import io
import lzma
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_toys import python2_pickle, write_files

from rheobase.data import CIFAR10, ChecksumError, MNISTSample, download, get_dataset
from rheobase.data import sample as sample_module
from rheobase.data.fetch import cache_folder
from rheobase.data.sample import build_mnist_sample


@pytest.mark.parametrize(("train", "count"), [(True, 5000), (False, 1000)])
def test_the_sample_is_balanced(train: bool, count: int) -> None:
    dataset = MNISTSample(train=train)
    assert dataset.images.shape == (count, 1, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert dataset.labels.bincount().tolist() == [count // 10] * 10
    image, label = dataset[7]
    assert (image.shape, image.dtype, image.min().item(), image.max().item()) == (
        (1, 28, 28),
        torch.float32,
        0.0,
        1.0,
    )
    assert dataset.classes[label] == str(label)
    assert len(pickle.loads(pickle.dumps(dataset))) == count


def test_the_sample_begins_as_mnist_does() -> None:
    """The first ten labels of MNIST are well known."""
    assert MNISTSample().labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert MNISTSample(train=False).labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_the_sample_is_small_and_says_where_it_is_from() -> None:
    path = download("mnist_sample")
    assert path.stat().st_size <= 900_000
    text = (path.parent / "README.md").read_text()
    assert "CC BY-SA 3.0" in text
    assert "first 500 training images" in text


def test_a_damaged_sample_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "mnist_sample.npz.xz"
    broken.write_bytes(download("mnist_sample").read_bytes()[:-1])
    monkeypatch.setattr(sample_module, "_FILE", broken)
    with pytest.raises(ChecksumError, match=hashlib.sha256(broken.read_bytes()).hexdigest()):
        MNISTSample()


@pytest.mark.long
def test_the_sample_is_rebuilt_from_the_full_mnist(tmp_path: Path) -> None:
    build_mnist_sample(tmp_path / "again")
    archives = [(tmp_path / "again").read_bytes(), download("mnist_sample").read_bytes()]
    again, embedded = (np.load(io.BytesIO(lzma.decompress(packed))) for packed in archives)
    assert sorted(again) == sorted(embedded)
    assert all(np.array_equal(again[name], embedded[name]) for name in embedded)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "mean", "first"),
    [
        ("mnist", 0.1306604762738429, [5, 0, 4, 1, 9]),
        ("fashion_mnist", 0.28604059698879553, [9, 0, 0, 3, 0]),
        ("cifar10", 120.70756512369792 / 255, [6, 9, 9, 4, 1]),
    ],
)
def test_the_real_data_set(name: str, mean: float, first: list[int]) -> None:
    """The published sums are checked on the way; the mean of all pixels is well known too."""
    assert download(name) == cache_folder() / name
    train, test = get_dataset(name), get_dataset(name, train=False)
    assert (len(train), len(test)) == train.info.sizes
    assert train.images.double().mean().item() / 255 == pytest.approx(mean, abs=1e-12)
    assert train.labels[:5].tolist() == first
    assert train.images.shape[1:] == train.info.shape


@pytest.mark.long
def test_real_cifar10_from_binary_and_python_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = CIFAR10(train=False)
    binary = test._encode(test.images.numpy(), test.labels.byte().numpy())
    python = {"test_batch": python2_pickle(binary["test_batch.bin"])}
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path / "cache"))
    for folder, files in (("cifar-10-batches-bin", binary), ("cifar-10-batches-py", python)):
        write_files(tmp_path / folder[-3:] / folder, files)
        again = CIFAR10(tmp_path / folder[-3:], train=False)
        assert torch.equal(again.images, test.images)
        assert torch.equal(again.labels, test.labels)


def test_the_middle_of_the_sample() -> None:
    whole, middle = MNISTSample(train=False), get_dataset("mnist_sample", train=False, size=24)
    assert torch.equal(middle.images, whole.images[..., 2:26, 2:26])
    with pytest.raises(ValueError, match="even number from 2 to 28"):
        MNISTSample(size=30)
