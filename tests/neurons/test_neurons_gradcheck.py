"""Learnt parameters: gradients checked against finite differences of a smooth forward pass.

A spike is a step, which has no differences to compare with. Here neurons fire a sigmoid instead,
whose derivative is their surrogate: everything else, the fused backward included, is as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import MPBN
from rheobase.neurons import (
    ALIF,
    CUBALIF,
    GLIF,
    IMLIF,
    KLIF,
    LIF,
    LSGLIF,
    LTMD,
    NEURONS,
    PLIF,
    PSN,
    DietLIF,
    ImbalancedSignedIF,
    MaskedPSN,
    Neuron,
    SignedIF,
    SlidingPSN,
)
from rheobase.ops.lang import exp
from rheobase.ops.scan import ScanSpec, use_backend
from rheobase.ops.scan.tables import FIRES
from rheobase.surrogate import Sigmoid, Surrogate, SurrogateRow, surrogates


def _smooth(z: Any) -> Any:
    return 1.0 / (1.0 + exp(-2.0 * z))


@pytest.fixture(autouse=True)
def _smooth_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("above", "at_or_above", "ratio_above", "both_at_or_beyond"):
        monkeypatch.setitem(FIRES, f"{name}_smooth", replace(FIRES[name], quantize=_smooth))
    monkeypatch.setattr("rheobase.neurons.parallel.fire", lambda h, surrogate: _smooth(h))


def _smoothed(neuron: Neuron) -> Neuron:
    """The same neuron, firing smoothly."""

    class Smoothed(type(neuron)):  # type: ignore[misc]
        @property
        def spec(self) -> ScanSpec:
            spec: ScanSpec = super().spec
            return replace(spec, fire=f"{spec.fire}_smooth")

        def spike(self, z: Tensor) -> Tensor:
            return torch.sigmoid(2.0 * z)

    if not isinstance(neuron, LSGLIF):  # which tells its surrogate how wide to be
        neuron.surrogate = Sigmoid(alpha=2.0)
    neuron.detach_reset = False
    neuron.__class__ = Smoothed
    return neuron.double()


def _glif(channels: int | None) -> GLIF:
    torch.manual_seed(1)
    return GLIF(T=3, channels=channels)


def _lsg(channels: int | None) -> LSGLIF:
    """Of a width at which the surrogate is that of the smooth firing."""
    neuron = LSGLIF(0.6, width=0.5 / math.sqrt(1.0 + 0.6**2), channels=channels)
    neuron.surrogate = Sigmoid(alpha=2.0)
    return neuron


# Every neuron with something to learn, and forms of it that take other ways.
CASES: dict[str, Callable[[], Neuron]] = {
    "plif": lambda: PLIF(tau=1.7),
    "plif_channel": lambda: PLIF(tau=1.7, decay_input=False, v_reset=-0.2, channels=2),
    "lsg": lambda: _lsg(None),
    "lsg_channel": lambda: _lsg(2),
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
    "signed_if": lambda: SignedIF(torch.tensor([0.9, 1.1])),
    "imbalanced_signed_if": lambda: ImbalancedSignedIF(0.3, v_threshold=torch.tensor([0.9, 1.1])),
    "mpbn": lambda: MPBN(2, learn_threshold=True),
    "mpbn_normalised": lambda: MPBN(2, membrane="normalised", v_reset=None, learn_threshold=True),
}

# Their gradient is that of a rate by design, held to the official code (test_goldens_neurons.py).
OF_RATES = {"dsr_if", "dsr_lif"}

NEEDED = {"glif": {"T": 3}, "im_lif": {"T": 3}, "psn": {"T": 3}, "masked_psn": {"T": 3, "k": 2}}
NEEDED |= {"sliding_psn": {"k": 2}}


@pytest.mark.parametrize("name", CASES)
def test_reference_gradients_are_those_of_finite_differences(name: str) -> None:
    _check(CASES[name](), "reference")


@pytest.mark.long  # minutes of compiling
@pytest.mark.parametrize("name", CASES)
def test_fused_gradients_are_those_of_finite_differences(name: str) -> None:
    _check(CASES[name](), "cpu")


def test_no_neuron_with_something_to_learn_is_left_out() -> None:
    checked = {type(make()) for make in CASES.values()}
    for name, make in NEURONS.items():
        if any(True for _ in make(**NEEDED.get(name, {})).parameters()):
            assert make in checked or name in OF_RATES, name


LEARNT = [
    pytest.param(row, name, id=f"{row.name}.{name}")
    for row in surrogates()
    for name in row.parameters
    if row.cls.primitive is not None and row.cls.parameters_for is Surrogate.parameters_for
]  # those that are sampled draw another at every call


@pytest.mark.parametrize(("row", "name"), LEARNT)
def test_learnt_surrogates_follow_their_primitive(
    row: SurrogateRow, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neuron fires the primitive itself, which a surrogate's parameter is learnt through."""
    surrogate = row.cls(**{name: nn.Parameter(torch.tensor(1.1 * row.parameters[name]))}).double()

    def fired(z: Tensor) -> Tensor:
        values = surrogate.parameters_by_name().values()
        plain = (v.detach() if isinstance(v, Tensor) else v for v in values)
        smooth: Tensor = row.cls.primitive(z, *plain)  # type: ignore[misc]
        return smooth

    smooth = replace(FIRES["at_or_above"], quantize=fired)
    monkeypatch.setitem(FIRES, "at_or_above_smooth", smooth)
    neuron = _smoothed(LIF(v_reset=None))
    neuron.surrogate = surrogate
    _check_gradients(neuron, "reference")


def _check(neuron: Neuron, backend: str) -> None:
    _check_gradients(_smoothed(neuron), backend)


def _check_gradients(neuron: Neuron, backend: str) -> None:
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
