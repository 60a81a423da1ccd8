from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from train_toys import images

from rheobase.train import Augment, mix, random_flip, random_shift
from rheobase.train.config import AugmentConfig, DataConfig
from rheobase.train.data import EpochBatches, KeyedDataset, first_samples, train_loader
from rheobase.train.seeding import generator


def epoch_of(batches: EpochBatches, epoch: int) -> list[list[tuple[int, int]]]:
    batches.set_epoch(epoch)
    return list(batches)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (4, 1), (2, 2), (1, 4)])
def test_global_batches_do_not_depend_on_processes(world: int, accumulate: int) -> None:
    whole = epoch_of(EpochBatches(50, 8, seed=1), 2)
    ranks = [
        epoch_of(EpochBatches(50, 8, seed=1, rank=r, world=world, accumulate=accumulate), 2)
        for r in range(world)
    ]
    micro = [key for parts in zip(*ranks, strict=True) for part in parts for key in part]
    assert micro == [key for batch in whole for key in batch] and len(whole) == 6


def test_a_part_of_the_images_is_the_first() -> None:
    data = images(20)
    assert first_samples(data, 0) is data
    part = first_samples(data, 6)
    assert len(part) == 6 and torch.equal(part[5][0], data[5][0])
    with pytest.raises(ValueError, match=r"data\.train_images=21, but .* 20 samples"):
        first_samples(data, 21)


def test_order_changes_with_epoch_and_seed_only() -> None:
    batches = EpochBatches(20, 4, seed=0)
    first, second = epoch_of(batches, 0), epoch_of(batches, 1)
    assert [s for b in first for _, s in b] != [s for b in second for _, s in b]
    assert epoch_of(EpochBatches(20, 4, seed=0), 1) == second
    assert epoch_of(EpochBatches(20, 4, seed=5), 1) != second
    assert sorted(s for b in first for _, s in b) == list(range(20))


def test_batches_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fewer than data\.batch_size=32"):
        EpochBatches(20, 32, seed=0)
    with pytest.raises(ValueError, match="use a multiple of 6"):
        EpochBatches(20, 8, seed=0, world=3, accumulate=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_resumes_in_the_middle_of_an_epoch(workers: int) -> None:
    def make() -> tuple[Any, EpochBatches]:
        augment = Augment(AugmentConfig(shift=2), DataConfig(), seed=4)
        data = KeyedDataset(images(40), augment)
        batches = EpochBatches(len(data), 8, seed=4)
        batches.set_epoch(3)
        return train_loader(data, batches, workers, pin_memory=False), batches

    loader, batches = make()
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    rest = list(iterator)
    batches.set_epoch(4)
    following = next(iter(loader))
    resumed, batches = make()
    resumed.load_state_dict(state)
    again = list(resumed)
    batches.set_epoch(4)
    assert len(rest) == len(again) == 3
    for (x, y), (x2, y2) in zip([*rest, following], [*again, next(iter(resumed))], strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


def test_shift_moves_and_fills_with_zeros() -> None:
    image = torch.ones(1, 6, 6)
    seen = {tuple(random_shift(image, 2, generator(i)).sum((0, 1)).tolist()) for i in range(60)}
    assert len(seen) > 5 and (6.0,) * 6 in seen
    assert all(sum(columns) >= 16 for columns in seen)


def test_flip_happens_as_often_as_asked() -> None:
    image = torch.arange(3.0).view(1, 1, 3)
    flips = sum(random_flip(image, 0.3, generator(i))[0, 0, 0].item() == 2 for i in range(400))
    assert 90 < flips < 150


FULL = AugmentConfig(
    shift=1, resized_crop=12, flip=0.5, randaugment_n=2, randaugment_std=0.5, erasing=0.5
)


def test_augmentation_is_a_function_of_seed_epoch_and_sample() -> None:
    pytest.importorskip("kornia")
    data = DataConfig(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    image = torch.rand(3, 16, 16)
    augment = Augment(FULL, data, seed=1)
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first = [augment(image, 0, i) for i in range(6)]
    assert torch.equal(torch.rand(1), expected), "the global generator must be left alone"
    torch.manual_seed(99)
    again = Augment(FULL, data, seed=1)
    for i in reversed(range(6)):
        assert torch.equal(again(image, 0, i), first[i])
        assert first[i].shape == (3, 12, 12)
        assert not torch.equal(again(image, 1, i), first[i])


def test_without_kornia_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("kornia"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    Augment(AugmentConfig(shift=2, flip=0.5), DataConfig(), 0)  # plain PyTorch
    with pytest.raises(ImportError, match=r"pip install rheobase\[augment\]"):
        Augment(AugmentConfig(erasing=0.25), DataConfig(), 0)


def test_mixup_and_cutmix_mix_neighbours() -> None:
    batch, labels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8), torch.arange(4)
    mixed, target = mix(batch, labels, 4, AugmentConfig(mixup=0.5), generator(3))
    share = float(target[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed[0], torch.full((1, 8, 8), 1 - share))
    torch.testing.assert_close(
        target[3], share * F.one_hot(labels[3], 4) + (1 - share) * F.one_hot(labels[2], 4)
    )
    cut, target = mix(batch, labels, 4, AugmentConfig(cutmix=1.0), generator(3))
    torch.testing.assert_close((cut[2] == 2).float().mean(), target[2, 2])
    assert set(cut[2].unique().tolist()) == {2.0, 3.0}


def test_mixing_is_the_same_for_one_process_and_for_two() -> None:
    batch, labels = torch.rand(8, 1, 6, 6), torch.arange(8) % 4
    for cfg in (AugmentConfig(mixup=0.4, cutmix=1.0), AugmentConfig(cutmix=1.0)):

        def mixed(part: slice, cfg: AugmentConfig = cfg) -> tuple[Tensor, Tensor]:
            return mix(batch[part], labels[part], 4, cfg, generator(0, "mix", 9))

        whole, halves = mixed(slice(0, 8)), (mixed(slice(0, 4)), mixed(slice(4, 8)))
        for i in (0, 1):
            torch.testing.assert_close(whole[i], torch.cat([half[i] for half in halves]))
