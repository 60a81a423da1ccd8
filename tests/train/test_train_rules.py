"""Learning rules in the training loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from train_toys import CLASSES, T, config, images

from rheobase.layers import over_time, repeat
from rheobase.neurons import LIF, PSN
from rheobase.train import Trainer, train
from rheobase.train.config import (
    LossConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RuleConfig,
)
from rheobase.train.config_file import load_config

TRAIN, TEST = images(70), images(30, seed=1)


class Spiking(nn.Module):
    def __init__(self, neuron: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(64, 32), nn.Linear(32, CLASSES)
        self.neuron = neuron or LIF(decay_input=False)

    def forward(self, x: Tensor) -> Tensor:
        x = repeat(x, T) if x.dim() == 4 else x
        return over_time(over_time(x, nn.Flatten(), self.first, self.neuron), self.head)


@pytest.mark.parametrize(
    "rule",
    [
        RuleConfig("ottt"),
        RuleConfig("ottt", {"every_step": True}),
        RuleConfig("sltt", {"k": 2}),
        RuleConfig("truncated_bptt", {"steps": 2}),
    ],
    ids=lambda rule: f"{rule.name}-{rule.options}",
)
def test_a_rule_learns(tmp_path: Path, rule: RuleConfig) -> None:
    result = train(config(tmp_path, epochs=6, rule=rule), Spiking(), TRAIN, TEST)
    assert result.accuracy > 0.9


def test_a_run_stopped_in_between_continues_bit_for_bit(tmp_path: Path) -> None:
    rule = RuleConfig("sltt", {"k": 1})
    whole = train(config(tmp_path / "whole", rule=rule), Spiking(), TRAIN, TEST)
    cfg = config(tmp_path / "pieces", rule=rule)
    trainer = Trainer(cfg, Spiking(), TRAIN, TEST)
    events = trainer.events()
    for _ in range(4):
        next(events)
    events.close()
    trainer.close()
    resumed = train(cfg, Spiking(), TRAIN, TEST)
    assert resumed.steps == whole.steps
    assert all(
        torch.equal(a, b)
        for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True)
    )


def test_parts_of_a_batch_add_up(tmp_path: Path) -> None:
    def gradient(accumulate: int, rule: RuleConfig) -> Tensor:
        cfg = config(tmp_path / f"{rule.name}{accumulate}", rule=rule,
                     optim=OptimConfig(lr=0.01, accumulate=accumulate))  # fmt: skip
        trainer = Trainer(cfg, Spiking(), TRAIN, TEST)
        size = 16 // accumulate
        data = [TRAIN[i * size : (i + 1) * size] for i in range(accumulate)]
        trainer._backward(data)
        trainer.close()
        grad = trainer.model.head.weight.grad
        assert grad is not None
        return grad

    ottt = RuleConfig("ottt")
    torch.testing.assert_close(gradient(4, ottt), gradient(1, ottt))


def test_what_does_not_fit_is_said_before_training(tmp_path: Path) -> None:
    def start(neuron: nn.Module | None = None, **changes: object) -> None:
        Trainer(config(tmp_path, **changes), Spiking(neuron), TRAIN, TEST).close()

    with pytest.raises(ValueError, match="unknown learning rule 'ottttt'; did you mean 'ottt'"):
        start(rule=RuleConfig("ottttt"))
    with pytest.raises(ValueError, match="unknown option of ottt 'evry_step'"):
        start(rule=RuleConfig("ottt", {"evry_step": True}))
    with pytest.raises(ValueError, match=r"neuron \(PSN\) is not causal"):
        start(PSN(T), rule=RuleConfig("ottt"))
    with pytest.raises(ValueError, match=r"rule.name=ottt needs precision=fp32"):
        start(rule=RuleConfig("ottt"), precision="bf16")
    with pytest.raises(ValueError, match=r"needs parallel.strategy=ddp"):
        start(rule=RuleConfig("ottt"), parallel=ParallelConfig(strategy="fsdp"))
    with pytest.raises(ValueError, match=r"needs loss.membrane=none"):
        start(rule=RuleConfig("sltt"), loss=LossConfig(membrane="im"))


def test_weights_that_move_within_a_batch_cannot_be_accumulated(tmp_path: Path) -> None:
    cfg = config(tmp_path, rule=RuleConfig("ottt", {"every_step": True}),
                 optim=OptimConfig(accumulate=2))  # fmt: skip
    with pytest.raises(ValueError, match=r"set optim\.accumulate=1"):
        train(cfg, Spiking(), TRAIN, TEST)


def test_a_rule_is_chosen_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {name: plif_net_mnist}\n")
    cfg = load_config(file, ["rule.name=sltt", "rule.options.k=2", "model.overrides.T=4"])
    assert cfg.rule == RuleConfig("sltt", {"k": 2})
    assert cfg.model == ModelConfig("plif_net_mnist", {"T": 4})


def test_the_rule_may_be_named_without_its_section() -> None:
    named = load_config(None, ["rule.name=ottt"])
    assert load_config(None, ["train.rule=ottt"]) == load_config(None, ["rule=ottt"]) == named
    assert named.rule == RuleConfig("ottt")
    options = ["train.rule=ottt", "train.rule.options.decay=0.5", "train.optim.lr=0.1"]
    cfg = load_config(None, options)
    assert cfg.rule == RuleConfig("ottt", {"decay": 0.5}) and cfg.optim.lr == 0.1
    with pytest.raises(ValueError, match="unknown key 'rul'; did you mean 'rule'"):
        load_config(None, ["train.rul=ottt"])
    with pytest.raises(TypeError, match="rule: expected a section of key: value lines, got 3"):
        load_config(None, ["train.rule=3"])
    with pytest.raises(TypeError, match="augment: expected a section"):
        load_config(None, ["augment=flip"])
