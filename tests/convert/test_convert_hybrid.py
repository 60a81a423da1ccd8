"""Hybrid training: an ANN trained on digits, converted, trained further by the usual trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import rheobase
from rheobase.data import get_dataset
from rheobase.neurons import STDBIF
from rheobase.train import TrainConfig, evaluate, train
from rheobase.train.config import DataConfig, LogConfig, OptimConfig


def test_fine_tuning_gains_what_conversion_at_few_steps_lost(tmp_path: Path) -> None:
    data = get_dataset("mnist_sample", train=True)
    pairs = [data[i] for i in range(500)]
    x, y = torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 32, bias=False), nn.ReLU(), nn.Linear(32, 32, bias=False),
        nn.ReLU(), nn.Linear(32, 10, bias=False),
    )  # fmt: skip
    optimizer = torch.optim.Adam(ann.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(ann(x), y).backward()
        optimizer.step()
    assert (ann(x).argmax(1) == y).float().mean() > 0.95

    snn = rheobase.convert(ann.eval(), x, recipe="hybrid", T=5)
    assert sum(isinstance(m, STDBIF) for m in snn.modules()) == 2
    test = get_dataset("mnist_sample", train=False)
    torch.manual_seed(1)  # of the Poisson spikes
    before = evaluate(snn, test).accuracy
    cfg = TrainConfig(
        run=str(tmp_path / "run"), device="cpu", epochs=3,
        data=DataConfig("mnist_sample", batch_size=50), log=LogConfig(progress="never"),
        optim=OptimConfig(lr=2e-3, weight_decay=0.0),
    )  # fmt: skip
    after = train(cfg, snn).accuracy
    assert before < 0.7 and after > before + 0.15, (before, after)
