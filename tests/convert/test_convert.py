"""Conversion of small networks: what the graph may hold, and what it becomes."""

from __future__ import annotations

import torch
from torch import nn

from rheobase.convert import convert


def test_step_by_step_and_folded_are_one():
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3),
    ).double().eval()  # fmt: skip
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    snn = convert(ann, x, recipe="rueckauer_max", T=512)
    with torch.no_grad():
        folded = snn(x)
        snn.stepwise = True
        assert torch.equal(snn(x), folded)
        assert torch.allclose(snn.mean_output(x), ann(x), atol=0.02)
