"""Texts in the training loop: a label at every word, or one for each text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from train_toys import config

from rheobase.models import create_model
from rheobase.train import NextToken, Trainer, evaluate, train
from rheobase.train.config import AugmentConfig, LossConfig, OptimConfig, RuleConfig, TrainConfig

LENGTH = 12


def counting(samples: int, seed: int = 0) -> TensorDataset:
    """Texts that count, from 0 to 5 and again, by a step of 1 or 2 that the first words tell."""
    rng = torch.Generator().manual_seed(seed)
    start, step = (
        torch.randint(low, 6 if low == 0 else 3, (samples, 1), generator=rng) for low in (0, 1)
    )
    text = (start + step * torch.arange(LENGTH + 1)) % 6
    return TensorDataset(text[:, :-1], text[:, 1:])


def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("spikegpt_bookcorpus_12_512", vocabulary=6, dim=16, depth=2)


def settings(folder: Path, **changes: object) -> TrainConfig:
    loss, optim = LossConfig("next_token"), OptimConfig(lr=0.02, weight_decay=0.0, clip=1.0)
    return config(folder, **({"epochs": 12, "loss": loss, "optim": optim} | changes))


def test_a_language_model_learns(tmp_path: Path) -> None:
    result = train(settings(tmp_path), model(), counting(64), counting(32, seed=1))
    # The second word alone can't be known; of eleven others each can.
    assert result.accuracy > 0.8
    assert result.epochs[-1]["test_loss"] < 0.5 * result.epochs[0]["test_loss"]
    found = evaluate(result.model, counting(32, seed=1), batch_size=5)
    assert found.accuracy == result.accuracy and found.confusion.sum() == 32 * LENGTH
    assert len(found.accuracy_at) == 1
    logits = result.model.eval()(counting(32, seed=1).tensors[0].T)
    labels = counting(32, seed=1).tensors[1].T
    right = (logits.argmax(-1) == labels).double().mean()
    assert found.accuracy == pytest.approx(float(right), abs=1e-6)
    error = nn.functional.cross_entropy(logits.detach().flatten(0, 1), labels.flatten())
    assert found.loss == pytest.approx(float(error), abs=1e-6)


def test_a_stopped_language_model_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    whole = train(settings(tmp_path / "whole", epochs=2), model(), counting(64), counting(16))
    trainer = Trainer(settings(tmp_path / "cut", epochs=2), model(), counting(64), counting(16))
    events = trainer.events()
    for _ in range(3):
        next(events)
    events.close()
    trainer.close()
    again = train(settings(tmp_path / "cut", epochs=2), model(), counting(64), counting(16))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            whole.model.state_dict().values(), again.model.state_dict().values(), strict=True
        )
    )


def test_next_token_is_cross_entropy_and_a_pull() -> None:
    logits = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randint(5, (4, 2))
    plain = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    assert NextToken(pull=0.0)(logits, target).item() == pytest.approx(plain.item(), abs=1e-12)
    (NextToken(pull=0.3)(logits, target) - plain).backward()
    # What the released code adds to the gradient: the largest logit, over the number of words.
    wanted = torch.zeros_like(logits).scatter(
        -1, logits.argmax(-1, keepdim=True), 0.3 / 8 * logits.detach().amax(-1, keepdim=True)
    )
    torch.testing.assert_close(logits.grad, wanted)
    uniform = NextToken()(torch.zeros(4, 2, 5), target)
    assert uniform.item() == pytest.approx(math.log(5), abs=1e-6)
    with pytest.raises(ValueError, match=r"label at every step, \[T, N\]"):
        NextToken()(logits, target[0])
    with pytest.raises(ValueError, match="5 outputs"):
        NextToken()(logits, target + 5)


def test_texts_take_no_augmentation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for images; a text takes none"):
        train(
            settings(tmp_path, augment=AugmentConfig(flip=0.5)), model(), counting(64), counting(8)
        )
    with pytest.raises(ValueError, match="needs another loss than next_token"):
        settings(tmp_path, rule=RuleConfig("ottt"))


def test_a_vocabulary_that_is_too_small_is_told(tmp_path: Path) -> None:
    large = TensorDataset(*(words + 3 for words in counting(64).tensors))
    with pytest.raises(ValueError, match=r"model\.overrides\.vocabulary"):
        train(settings(tmp_path), model(), large, large)


def told(samples: int, seed: int = 0) -> TensorDataset:
    """Texts of the class that their words above 4 tell; none is 0, padding."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 5, (samples, LENGTH), generator=rng)
    labels = torch.randint(3, (samples,), generator=rng)
    places = torch.randint(LENGTH, (samples, 4), generator=rng)
    return TensorDataset(ids.scatter(1, places, (labels[:, None] + 5).expand(-1, 4)), labels)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("spikebert_12_768", {"T": 2}), ("spikingbert_4_768", {"T": 20, "heads": 2, "hidden": 32})],
)
def test_a_network_learns_classes_of_texts(
    tmp_path: Path, name: str, sizes: dict[str, int]
) -> None:
    torch.manual_seed(0)
    common = {"vocabulary": 8, "dim": 32, "depth": 1, "num_classes": 3, "distilled": False}
    net = create_model(name, **common, **sizes)
    changes = {"loss": LossConfig(), "optim": OptimConfig(lr=1e-2), "epochs": 12}
    result = train(settings(tmp_path, **changes), net, told(256), told(64, seed=1))
    assert result.accuracy > 0.7  # 0.33 by chance
    assert len(evaluate(result.model, told(64, seed=1)).accuracy_at) == sizes["T"]
