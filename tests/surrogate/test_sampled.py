"""LocalZO: its draws, their expectation, and that kernels and reference agree about them."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.neurons import ALIF, LIF
from rheobase.ops.scan import use_backend
from rheobase.surrogate import Gaussian, LocalZO


def gradient(neuron: torch.nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    neuron(x).sum().backward()
    assert x.grad is not None
    return x.grad


def test_its_expectation_is_the_gaussian() -> None:
    x = torch.linspace(-1.0, 3.0, 41, dtype=torch.float64).expand(1, 4000, 41)
    neuron = LIF(tau=1.0, decay_input=False, surrogate=LocalZO(0.5))
    torch.manual_seed(0)
    with use_backend("reference"):
        mean = gradient(neuron, x)[0].mean(0)
    expected = Gaussian(0.5)(x[0, 0] - 1.0)
    assert float((mean - expected).abs().max()) < 0.03


def test_every_element_is_drawn_anew_and_by_the_seed() -> None:
    neuron = LIF(surrogate=LocalZO(0.5))
    x = torch.full((3, 2, 50), 0.9)
    torch.manual_seed(1)
    first = gradient(neuron, x)
    second = gradient(neuron, x)
    torch.manual_seed(1)
    assert torch.equal(gradient(neuron, x), first) and not torch.equal(first, second)
    assert first[2].unique().numel() > 20


def test_kernels_and_reference_agree() -> None:
    x = torch.rand(6, 3, 20, dtype=torch.float64) * 2.0
    found = []
    for backend in ("reference", "cpu"):
        torch.manual_seed(2)
        with use_backend(backend):
            found.append(gradient(LIF(surrogate=LocalZO(0.7)), x))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_neurons_with_several_states_draw_too() -> None:
    torch.manual_seed(3)
    x = torch.full((3, 2, 50), 0.9)
    assert gradient(ALIF(surrogate=LocalZO(0.5)), x)[2].unique().numel() > 20


def test_nothing_is_drawn_where_no_gradient_is_wanted() -> None:
    state = torch.random.get_rng_state()
    with torch.no_grad():
        LIF(surrogate=LocalZO())(torch.rand(2, 1, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.random.get_rng_state(), state)
