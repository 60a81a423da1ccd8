"""What moves in the course of training besides the learning rate, and comes back on resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_toys import CLASSES, config, images

from rheobase.layers import over_time, repeat
from rheobase.learn import Lesson, TemperatureChoice
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import ATan, Dspike
from rheobase.train import Trainer, load_config, loop, train
from rheobase.train.config import CheckpointConfig, OptimConfig, ParallelConfig, TemperatureConfig

TRAIN, TEST = images(64), images(16, seed=1)
STEPS = 3


class Small(nn.Module):
    """One layer of any neuron, over three steps."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(TRAIN[0][0].numel(), 12)
        self.neuron = neuron
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return over_time(repeat(x.flatten(1), STEPS), self.inner, self.neuron, self.head)


def dspike() -> Small:
    return Small(LIF(decay_input=False, surrogate=Dspike(3.0)))


def temperature(net: nn.Module) -> float:
    (found,) = {float(m.b) for m in net.modules() if isinstance(m, Dspike)}
    return found


def test_the_temperature_is_searched_at_every_epochs_start(tmp_path: Path) -> None:
    cfg = config(tmp_path, epochs=3, temperature=TemperatureConfig(0.5, 0.3, 20))
    seen = []
    net = dspike()
    train(cfg, net, TRAIN, TEST, lambda e: seen.append((e.epoch, temperature(net))))
    by_epoch = {epoch: {b for e, b in seen if e == epoch} - {3.0} for epoch in range(3)}
    assert all(len(found) <= 1 for found in by_epoch.values())
    assert any(by_epoch.values())  # it moved


@pytest.mark.parametrize(("images", "seen"), [(0, 16), (7, 7), (10_000, len(TRAIN))])
def test_the_search_looks_at_so_many_images(
    images: int, seen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, found = loop.choose_temperature, []

    def noted(lesson: Lesson, **options: Any) -> TemperatureChoice:
        found.append(len(lesson.target))
        return search(lesson, **options)

    monkeypatch.setattr(loop, "choose_temperature", noted)
    cfg = config(tmp_path, epochs=1, temperature=TemperatureConfig(0.5, 0.3, 2, images))
    train(cfg, dspike(), TRAIN, TEST)
    assert found == [seen]


def test_a_stopped_search_goes_on_bit_for_bit(tmp_path: Path) -> None:
    search = TemperatureConfig(0.5, 0.3, 20)
    changes = {
        "epochs": 3, "temperature": search, "checkpoint": CheckpointConfig(every_steps=1),
    }  # fmt: skip
    whole = train(config(tmp_path / "whole", **changes), dspike(), TRAIN, TEST)
    for stop in (2, 4, 6):  # inside an epoch, and at its end
        folder = config(tmp_path / f"stopped{stop}", **changes)
        trainer = Trainer(folder, dspike(), TRAIN, TEST)
        events = trainer.events()
        while next(events).step < stop:
            pass
        events.close()
        trainer.close()
        again = train(folder, dspike(), TRAIN, TEST)
        assert temperature(again.model) == temperature(whole.model) != 3.0
        pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_search_that_cannot_be_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"temperature\.epsilon=0.*above 0"):
        config(tmp_path, temperature=TemperatureConfig(0.5, 0.0))
    with pytest.raises(ValueError, match=r"needs parallel\.strategy=ddp"):
        config(
            tmp_path, temperature=TemperatureConfig(0.5), parallel=ParallelConfig(strategy="fsdp")
        )
    cfg = config(tmp_path / "run", temperature=TemperatureConfig(0.5))
    with pytest.raises(ValueError, match="whose surrogates are Dspike"):
        train(cfg, Small(LIF()), TRAIN, TEST)


def test_the_search_is_reached_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("temperature: {step: 0.2, elements: 8}\n")
    cfg = load_config(tmp_path / "run.yaml", ["temperature.epsilon=0.3"])
    assert cfg.temperature == TemperatureConfig(0.2, 0.3, 8)


def test_training_masks_a_psn(tmp_path: Path) -> None:
    make = neuron_factory("masked_psn", T=STEPS, k=2, masking=[0.0, 1.0])
    net, seen = Small(make()), []
    assert float(net.neuron.masking) == 0.0
    cfg = config(tmp_path, epochs=2, optim=OptimConfig(ema=0.9))
    found = train(
        cfg, net, TRAIN, TEST,
        lambda e: seen.append(float(net.neuron.masking)) if e.kind == "step" else None,
    )  # fmt: skip
    expected = [i / len(seen) for i in range(len(seen))]
    assert seen == pytest.approx(expected)
    assert float(net.neuron.masking) == float(found.model.neuron.masking) == 1.0
    assert net.neuron.matrix().triu(1).count_nonzero() == 0  # causal at the end


def test_a_surrogate_that_learns_itself_out_of_range_is_named(tmp_path: Path) -> None:
    net = Small(LIF(surrogate=ATan(nn.Parameter(torch.tensor(2.0)))))
    net.neuron.surrogate.alpha.data.fill_(-1.0)
    with pytest.raises(ValueError, match=r"neuron.surrogate.*above 0 as alpha, got -1.*learnt"):
        Trainer(config(tmp_path), net, TRAIN, TEST)
