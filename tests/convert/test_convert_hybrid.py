"""Hybrid training: a trained ANN, converted, then fine-tuned through STDB."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rheobase
from rheobase.neurons import STDBIF


def batches() -> tuple[Tensor, Tensor]:
    """Three noisy patterns and their labels."""
    torch.manual_seed(0)
    y = torch.arange(90) % 3
    return (torch.rand(3, 12)[y] + 0.4 * torch.randn(90, 12)).clamp(0.0, 1.0), y


def test_fine_tuning_gains_what_conversion_at_few_steps_lost() -> None:
    x, y = batches()
    ann = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(),
                        nn.Linear(24, 3))  # fmt: skip
    optimizer = torch.optim.Adam(ann.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(ann(x), y).backward()
        optimizer.step()
    assert (ann(x).argmax(1) == y).float().mean() > 0.95

    snn = rheobase.convert(ann, x, recipe="hybrid", T=5)
    assert sum(isinstance(m, STDBIF) for m in snn.modules()) == 2

    def accuracy() -> float:
        torch.manual_seed(1)  # the same Poisson spikes
        with torch.no_grad():
            return float((snn.mean_output(x).argmax(1) == y).float().mean())

    converted = accuracy()
    optimizer = torch.optim.Adam(snn.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(snn.mean_output(x), y).backward()
        optimizer.step()
    assert converted < 0.9 and accuracy() > converted + 0.05
