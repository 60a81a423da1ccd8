"""Every recipe meets odd networks and data: it converts, or says in words why not."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rheobase.convert import RECIPES, convert
from rheobase.layers import QCFS, ClampQuant, RateNorm

# Of each recipe the first that it takes; the others take any.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "qcfs": lambda: QCFS(levels=4),
    "clamp_quant": lambda: ClampQuant(levels=4),
    "rate_norm": RateNorm,
}
# They fit layer by layer for thousands of iterations; what they begin with others do, too.
FITTED = ("calibration_advanced", "fast_snn_finetuned")
QUICK = [name for name in RECIPES if name not in FITTED]


def network(recipe: str, *, dead: bool = False) -> nn.Sequential:
    source = RECIPES[recipe].source
    kind = next((kind for kind in ACTIVATIONS if kind in source), "relu")
    activation = ACTIVATIONS[kind]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), activation(), nn.AvgPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), activation(), nn.Flatten(),
        nn.Linear(36, 8), activation(), nn.Linear(8, 3),
    )  # fmt: skip
    if dead:
        nn.init.constant_(net[4].bias, -100.0)
    return net.eval()


def converted(recipe: str, ann: nn.Module, x: Tensor) -> Tensor | None:
    """The outputs' mean; None where the recipe says that it does not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            snn = convert(ann, x, recipe=recipe, T=4)
        except ValueError:
            return None
    with torch.no_grad():
        return snn.mean_output(x)


@pytest.mark.parametrize("recipe", QUICK)
def test_a_layer_that_is_never_active(recipe: str) -> None:
    out = converted(recipe, network(recipe, dead=True), torch.rand(8, 2, 6, 6))
    assert out is None or bool(out.isfinite().all())


@pytest.mark.parametrize("recipe", QUICK)
@pytest.mark.parametrize(
    "x",
    [torch.rand(1, 2, 6, 6), torch.zeros(3, 2, 6, 6), 1e4 * torch.rand(3, 2, 6, 6)],
    ids=["one sample", "zeros", "large"],
)
def test_odd_calibration_data(recipe: str, x: Tensor) -> None:
    out = converted(recipe, network(recipe), x)
    assert out is None or bool(out.isfinite().all())


def test_most_recipes_convert_odd_networks() -> None:
    """So that the tests above are not passed by refusing."""
    x = torch.rand(8, 2, 6, 6)
    refused = [name for name in QUICK if converted(name, network(name, dead=True), x) is None]
    assert set(refused) == {"spike_norm", "rmp", "hybrid"}
