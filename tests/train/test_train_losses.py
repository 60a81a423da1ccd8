from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rheobase.train import TET, cross_entropy_of_mean
from rheobase.train.config import LossConfig
from rheobase.train.losses import build_loss

GOLDEN = Path(__file__).parents[1] / "goldens" / "direct" / "loss_TET.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.golden
@pytest.mark.parametrize(("lamb", "means"), [(0.0, 1.0), (0.001, 1.0), (0.05, 1.0), (0.001, 0.5)])
def test_tet_is_the_official_one(
    golden: dict[str, torch.Tensor], lamb: float, means: float
) -> None:
    outputs = golden["outputs_NTC"].requires_grad_()
    loss = TET(lamb, means)(outputs.transpose(0, 1), golden["labels"])
    (gradient,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(loss, golden[f"loss_lamb{lamb}_means{means}"], rtol=1e-12, atol=0)
    expected = golden[f"grad_lamb{lamb}_means{means}"]
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-15)


@pytest.mark.golden
def test_cross_entropy_of_mean_is_the_official_one(golden: dict[str, torch.Tensor]) -> None:
    outputs = golden["outputs_NTC"].requires_grad_()
    loss = cross_entropy_of_mean(outputs.transpose(0, 1), golden["labels"])
    (gradient,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(loss, golden["loss_CE_of_mean"], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, golden["grad_CE_of_mean"], rtol=1e-10, atol=1e-15)


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


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[2, 5\]; losses take every time step"):
        cross_entropy_of_mean(torch.zeros(2, 5), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"target has shape \[3\]"):
        TET()(torch.zeros(4, 2, 5), torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=r"labels\.long"):
        TET()(torch.zeros(4, 2, 5), torch.tensor([0, 1], dtype=torch.int32))
