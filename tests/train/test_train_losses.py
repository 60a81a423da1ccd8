from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rheobase.train import STCA, TET, cross_entropy_of_mean
from rheobase.train.config import LossConfig
from rheobase.train.losses import Loss, build_loss
from rheobase.train.losses.readout import squared_error_of_rates


@pytest.mark.parametrize("loss", [cross_entropy_of_mean, TET(0.1)])
def test_soft_targets_interpolate_between_labels(loss: TET) -> None:
    logits = torch.randn(3, 2, 5)
    first, second = torch.tensor([0, 4]), torch.tensor([2, 1])
    soft = 0.3 * F.one_hot(first, 5).float() + 0.7 * F.one_hot(second, 5).float()
    expected = 0.3 * loss(logits, first) + 0.7 * loss(logits, second)
    torch.testing.assert_close(loss(logits, soft), expected)


def test_label_smoothing_reaches_both_losses() -> None:
    logits, labels = torch.randn(1, 4, 5), torch.tensor([0, 1, 2, 3])
    expected = F.cross_entropy(logits[0], labels, label_smoothing=0.2)
    for name in ("cross_entropy", "tet"):
        loss = build_loss(LossConfig(name, label_smoothing=0.2, tet_lambda=0.0))  # type: ignore[arg-type]
        torch.testing.assert_close(loss(logits, labels), expected)


def test_squared_error_is_that_of_firing_rates() -> None:
    spikes, labels = torch.rand(4, 3, 5).round(), torch.tensor([0, 4, 2])
    expected = (spikes.mean(0) - F.one_hot(labels, 5)).square().mean()
    loss = build_loss(LossConfig("mse"))
    torch.testing.assert_close(loss(spikes, labels), expected)
    torch.testing.assert_close(loss(spikes, F.one_hot(labels, 5).float()), expected)


def test_wrong_shapes_are_named() -> None:
    every_loss = [cross_entropy_of_mean, TET(), squared_error_of_rates, STCA()]
    for loss in every_loss:  # logits averaged over time
        with pytest.raises(ValueError, match=r"\[2, 5\]; losses take every time step, \[T, N, c"):
            loss(torch.zeros(4, 2, 5).mean(0), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"target has shape \[3\]"):
        TET()(torch.zeros(4, 2, 5), torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=r"labels\.long"):
        TET()(torch.zeros(4, 2, 5), torch.tensor([0, 1], dtype=torch.int32))


@pytest.mark.parametrize("loss", [cross_entropy_of_mean, TET(), squared_error_of_rates, STCA()])
@pytest.mark.parametrize("labels", [[3, 10], [-1, 2]])
def test_labels_of_no_class_are_named(loss: Loss, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"has labels .* but the model has 10 outputs"):
        loss(torch.randn(4, 2, 10), torch.tensor(labels))
