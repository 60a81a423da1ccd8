"""Learnt parameters: gradients checked against finite differences of a smooth forward pass.

A spike is a step, which has no differences to compare with. Here neurons fire a sigmoid instead,
whose derivative is their surrogate: everything else, the fused backward included, is as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheobase.neurons import (
    ALIF,
    GLIF,
    KLIF,
    LTMD,
    PLIF,
    PSN,
    DietLIF,
    MaskedPSN,
    Neuron,
    SlidingPSN,
)
from rheobase.neurons.current import CUBALIF, IMLIF
from rheobase.ops.lang import exp
from rheobase.ops.scan import ScanSpec, use_backend
from rheobase.ops.scan.spec import FIRES
from rheobase.surrogate import Sigmoid

# Compiles many kernels.
pytestmark = pytest.mark.long


def _smooth(z: Any) -> Any:
    return 1.0 / (1.0 + exp(-2.0 * z))


@pytest.fixture(autouse=True)
def _smooth_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("above", "at_or_above", "ratio_above"):
        monkeypatch.setitem(FIRES, f"{name}_smooth", replace(FIRES[name], quantize=_smooth))
    monkeypatch.setattr("rheobase.neurons.parallel.spike", lambda h, surrogate: _smooth(h))


def _smoothed(neuron: Neuron) -> Neuron:
    """The same neuron, firing smoothly."""

    class Smoothed(type(neuron)):  # type: ignore[misc]
        @property
        def spec(self) -> ScanSpec:
            spec: ScanSpec = super().spec
            return replace(spec, fire=f"{spec.fire}_smooth")

        def spike(self, z: Tensor) -> Tensor:
            return torch.sigmoid(2.0 * z)

    neuron.surrogate = Sigmoid(alpha=2.0)
    neuron.detach_reset = False
    neuron.__class__ = Smoothed
    return neuron.double()


def _glif(channels: int | None) -> GLIF:
    torch.manual_seed(1)
    return GLIF(T=3, channels=channels)


NEURONS = {
    "plif": lambda: PLIF(tau=1.7),
    "diet": lambda: DietLIF(leak=0.8, v_threshold=0.9),
    "diet_channel": lambda: DietLIF(leak=0.8, v_threshold=0.9, channels=2),
    "ltmd": lambda: LTMD(),
    "klif_hard": lambda: KLIF(tau=3.0, k=1.3),
    "klif_soft_scaled": lambda: KLIF(k=1.3, scale_reset=True, v_reset=None, decay_input=False),
    "klif_hard_scaled": lambda: KLIF(k=0.8, scale_reset=True, v_reset=-0.2),
    "glif_layer": lambda: _glif(None),
    "glif_channel": lambda: _glif(2),
    "cuba": lambda: CUBALIF(current_decay=0.4),
    "im_lif": lambda: IMLIF(T=3),
    "alif": lambda: ALIF(tau=3.0, tau_adaptation=4.0, beta=0.3),
    "psn": lambda: PSN(T=3),
    "masked_psn": lambda: MaskedPSN(T=3, k=2, masking=0.5),
    "sliding_psn": lambda: SlidingPSN(k=2),
}


@pytest.mark.parametrize("name", NEURONS)
def test_reference_gradients_are_those_of_finite_differences(name: str) -> None:
    _check(NEURONS[name](), "reference")


@pytest.mark.parametrize("name", ["glif_layer", "klif_soft_scaled"])
def test_fused_gradients_are_those_of_finite_differences(name: str) -> None:
    _check(NEURONS[name](), "cpu")


@pytest.mark.long  # a minute and more of compiling
@pytest.mark.parametrize("name", NEURONS)
def test_all_fused_gradients_are_those_of_finite_differences(name: str) -> None:
    _check(NEURONS[name](), "cpu")


def _check(neuron: Neuron, backend: str) -> None:
    neuron = _smoothed(neuron)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    parameters = dict(neuron.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        for (path, _), value in zip(parameters.items(), values, strict=True):
            owner, _, leaf = path.rpartition(".")
            module: nn.Module = neuron.get_submodule(owner)
            del module._parameters[leaf]
            object.__setattr__(module, leaf, value)
        try:
            spikes, v = neuron(x, tap="v")
            return torch.stack([spikes, v])
        finally:
            for path, parameter in parameters.items():
                owner, _, leaf = path.rpartition(".")
                module = neuron.get_submodule(owner)
                object.__delattr__(module, leaf)
                module._parameters[leaf] = parameter

    with use_backend(backend):
        values = [p.detach().clone().requires_grad_() for p in parameters.values()]
        assert torch.autograd.gradcheck(run, (x, *values), eps=1e-6, atol=1e-7, rtol=1e-6)
