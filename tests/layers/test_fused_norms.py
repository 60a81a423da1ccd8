"""A folded norm and a neuron as one scan."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import rheobase
from rheobase.layers import BGN, BNTT, MPBN, TAB, TEBN, ThresholdDependentBatchNorm2d, over_time
from rheobase.layers.norms import FusedNormNeuron
from rheobase.neurons import (
    CUBALIF,
    IF,
    LIF,
    PLIF,
    ImbalancedSignedIF,
    Neuron,
    TernaryLIF,
    record_membranes,
)
from rheobase.ops.scan import use_backend

# Compiles many kernels.
pytestmark = pytest.mark.long

T, N, C = 4, 3, 6
NORMS = [
    lambda: ThresholdDependentBatchNorm2d(C, 0.5),
    lambda: BNTT(C, T),
    lambda: TEBN(C, T),
    lambda: TAB(C, T),
    lambda: BGN(C, 2),
]
NEURONS = [
    lambda: IF(v_reset=None),
    lambda: LIF(tau=1.7, v_reset=-0.3),
    lambda: LIF(decay_input=False, strict=True),
    lambda: PLIF(channels=C),
    lambda: TernaryLIF(tau=1.7),
    lambda: ImbalancedSignedIF(0.5, v_threshold=torch.linspace(0.5, 1.5, C).view(C, 1, 1)),
]


def sequence() -> Tensor:
    return torch.randn(T, N, C, 3, 3, generator=torch.Generator().manual_seed(3)).double() * 2


def folded(norm: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    norm.double()
    for parameter in norm.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    over_time(sequence() + 0.4, norm)
    norm.fold()
    return norm


@pytest.mark.parametrize("neuron", range(len(NEURONS)))
@pytest.mark.parametrize("norm", range(len(NORMS)))
def test_spikes_are_those_of_norm_then_neuron(norm: int, neuron: int) -> None:
    first, second, x = folded(NORMS[norm]()), NEURONS[neuron]().double(), sequence()
    with use_backend("reference"):  # every combination compiled would take minutes
        spikes, h = FusedNormNeuron(first, second)(x, tap="h")
        expected, expected_h = second(over_time(x, first), tap="h")
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(h, expected_h, rtol=1e-11, atol=1e-11)


def test_the_compiled_kernel_agrees() -> None:
    norm, x = folded(BNTT(C, T)), sequence()
    assert torch.equal(FusedNormNeuron(norm, LIF())(x), LIF()(norm(x)))
    with pytest.raises(ValueError, match="CUBALIF has a synapse between norm and charge"):
        FusedNormNeuron(norm, CUBALIF())


def test_it_streams_where_every_step_is_alike() -> None:
    neuron, x = FusedNormNeuron(folded(BGN(C, 2)), LIF()), sequence()
    alone = copy.deepcopy(neuron)
    with rheobase.streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:1]), neuron(x[1:])]), alone(x))
    steps = FusedNormNeuron(folded(TEBN(C, T)), LIF())
    with pytest.raises(ValueError, match="not causal"), rheobase.streaming(steps):
        pass


def test_it_counts_as_one_neuron() -> None:
    neuron: Neuron = FusedNormNeuron(folded(BGN(C, 2)), LIF())
    with record_membranes(neuron) as membranes:
        neuron(sequence())
    assert [m.name for m in membranes] == [""]


def test_what_cannot_be_fused_is_named() -> None:
    with pytest.raises(ValueError, match="BNTT is not folded"):
        FusedNormNeuron(BNTT(C, T), LIF())
    with pytest.raises(ValueError, match="MPBN computes more than a scan"):
        FusedNormNeuron(folded(BGN(C, 2)), MPBN(C))
    fused = FusedNormNeuron(folded(BNTT(C, T)), LIF())
    with pytest.raises(ValueError, match=r"T=4 .* given T=3"):
        fused(sequence()[:3])
    with pytest.raises(ValueError, match=r"6 channels.*has 5"):
        fused(sequence()[:, :, :5])
