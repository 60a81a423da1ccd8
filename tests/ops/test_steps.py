"""Kernels made of a neuron's step, against the same step unrolled by autograd."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rheobase import neurons, streaming
from rheobase.neurons import CLIF, StepNeuron
from rheobase.ops.steps import Untraceable, cpu, run_steps, trace_step
from rheobase.surrogate import Sigmoid, surrogates

State = tuple[Tensor, ...]

# Each neuron with the scale of a current that makes it fire.
CASES: list[tuple[StepNeuron, float]] = [
    (neurons.CLIF(), 1.0),
    (neurons.CLIF(memory="squashed", detach_reset=True), 1.0),
    (neurons.ALIF(beta=0.5), 1.0),
    (neurons.ALIF(v_reset=0.0, detach_reset=True), 1.0),
    (neurons.AdaptiveQIF(a=0.2, b=0.3), 1.0),
    (neurons.RAF(), 1.5),
    (neurons.RAF(v_reset=None), 1.0),
    (neurons.BurstIF(burst=2, signed=True), 1.0),
    (neurons.FedBackBurstIF(burst=1, signed=True), 0.3),
    (neurons.SignedIF(), 1.0),
    (neurons.MultiThreshold(levels=3), 2.0),
    (neurons.STBIF(lowest=-3, highest=4), 1.0),
    (neurons.STDBIF(beta=0.4, leak=0.9), 1.0),
    (neurons.PhysicalLIF(dt=1.0, refractory=3.0), 40.0),
    (neurons.PhysicalQIF(dt=0.5), 60.0),
    (neurons.PhysicalEIF(dt=0.5), 60.0),
    (neurons.Izhikevich(dt=0.5, detach_reset=True), 20.0),
    (neurons.Izhikevich(dt=0.25, method="rk4"), 20.0),
    (neurons.AdEx(dt=0.5, refractory=2.0), 3.0),
    (neurons.HodgkinHuxley(dt=0.05), 40.0),
]


def _case(case: tuple[StepNeuron, float], dtype: torch.dtype) -> tuple[StepNeuron, Tensor]:
    neuron, scale = case
    generator = torch.Generator().manual_seed(0)
    # More columns than a block, and some left over.
    x = scale * (0.7 + torch.randn(30, 2, 3, 700, dtype=torch.float64, generator=generator))
    return neuron, x.to(dtype)


def _differentiated(outputs: tuple[Any, ...], x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, *x.shape, dtype=torch.float64, generator=generator).to(x.dtype)
    followed = [y for y in outputs[:2] if y is not None]
    loss = torch.stack([(y * w).sum() for y, w in zip(followed, weights, strict=False)]).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: type(CASES[i][0]).__name__)
def test_kernel_equals_unrolled_steps(number: int) -> None:
    neuron, x = _case(CASES[number], torch.float64)
    tap: Literal["h", "v"] | None = (None, "h", "v")[number % 3]  # type: ignore[assignment]
    x.requires_grad_()
    program = trace_step(neuron.step, neuron.states, x.dtype)
    first = torch.stack(neuron.start(x[0].detach()))
    ours = run_steps(program, x, first, tap or "")
    expected = neuron._unrolled(x, None, tap)
    assert expected[0].detach().abs().mean() > 0.0 and torch.equal(ours[0], expected[0])
    for a, b in zip(ours[1:], (expected[1], expected[2].view_as(first)), strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    gradient, other = _differentiated(ours, x), _differentiated(expected, x)
    assert (gradient - other).abs().max() <= 1e-11 * other.abs().max()


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case[0]).__name__)
def test_neurons_run_by_their_kernel(case: tuple[StepNeuron, float]) -> None:
    neuron, x = _case(case, torch.float32)
    assert neuron._program(x) is not None
    x.requires_grad_()
    spikes = neuron(x)
    assert type(spikes.grad_fn).__name__ == "_StepsBackward"
    expected = neuron._unrolled(x, None, None)
    differ = (spikes != expected[0]).double().mean()
    # exp is another one than PyTorch's; a column that once fires at another step stays apart.
    assert differ < 2e-3, differ
    if differ == 0.0:
        gradient, other = _differentiated((spikes,), x), _differentiated(expected[:1], x)
        assert (gradient - other).abs().max() <= 2e-3 * other.abs().max()


@pytest.mark.parametrize("name", [row.name for row in surrogates()])
def test_every_surrogate(name: str) -> None:
    """A step's gradient goes through whatever surrogate the neuron has, or is unrolled."""
    neuron = neurons.ALIF(surrogate=next(row for row in surrogates() if row.name == name).cls())
    x = torch.randn(8, 2, 300, requires_grad=True)
    torch.manual_seed(0)  # of one that draws its width
    spikes = neuron(x)
    torch.manual_seed(0)
    expected = neuron._unrolled(x, None, None)
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(
        _differentiated((spikes,), x), _differentiated(expected[:1], x), rtol=1e-4, atol=1e-5
    )


def test_any_memory_order_and_halves() -> None:
    neuron = CLIF()
    x = torch.randn(6, 2, 8, 5, 5)
    spikes = neuron(x)
    last = x.transpose(2, 4).contiguous().transpose(2, 4)
    assert torch.equal(neuron(last), spikes) and neuron(last).stride() == last.stride()
    gap = torch.randn(12, 2, 8, 5, 5)
    gap[::2] = x
    assert torch.equal(neuron(gap[::2]), spikes)
    assert torch.equal(neuron(x.bfloat16()), neuron(x.bfloat16().float()).bfloat16())
    repeated = x[:1].expand(6, -1, -1, -1, -1)
    assert torch.equal(neuron(repeated), neuron(repeated.contiguous()))


def test_streaming_goes_on_from_the_states() -> None:
    neuron, x = CLIF(), torch.randn(10, 3, 40)
    whole = neuron(x)
    with streaming(neuron):
        pieces = torch.cat([neuron(x[:1]), neuron(x[1:7]), neuron(x[7:])])
    assert torch.equal(pieces, whole)


class Own(StepNeuron):
    """A neuron as a user writes one."""

    states = 2
    fused = True

    def __init__(self, pull: float = 0.3) -> None:
        super().__init__(v_reset=None, surrogate=Sigmoid(4.0))
        self.pull = pull

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        u, w = state
        h = 0.8 * u + x - self.pull * w.clamp(0.0, 2.0)
        s = self.spike(h - self.v_threshold)
        return s, h, (self.reset_membrane(h, s, self.v_threshold), 0.9 * w + s)


def test_a_users_neuron_is_fused_and_follows_its_attributes() -> None:
    neuron, x = Own(), torch.randn(20, 4, 50, requires_grad=True)
    assert torch.equal(neuron(x), neuron._unrolled(x, None, None)[0])
    kernels = cpu._forward_kernel.cache_info().currsize
    before = neuron(x)
    neuron.pull = 1.1
    assert torch.equal(neuron(x), neuron._unrolled(x, None, None)[0])
    assert not torch.equal(neuron(x), before)
    assert cpu._forward_kernel.cache_info().currsize == kernels  # other numbers, the same kernel


class Mean(Own):
    """Its columns see each other."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        return super().step(x - x.mean(), state)


class Whole(Own):
    """It rounds by way of integers."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        return super().step(x.long().float(), state)


class Undecided(Own):
    """It looks at the values."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        return super().step(x if bool((x > 0.0).any()) else -x, state)


@pytest.mark.parametrize("make", [Mean, Whole, Undecided])
def test_what_is_more_than_arithmetic_on_columns_is_unrolled(make: type[Own]) -> None:
    neuron, x = make(), 2.0 * torch.randn(6, 4, 50)
    with pytest.raises(Untraceable):
        trace_step(neuron.step, 2, torch.float32)
    assert torch.equal(neuron(x), neuron._unrolled(x, None, None)[0])


def test_tensors_of_a_neuron_are_followed() -> None:
    neuron = neurons.SignedIF(torch.rand(5) + 0.5)
    x = torch.randn(6, 4, 5)
    neuron(x).sum().backward()
    assert neuron.v_threshold.grad is not None  # type: ignore[union-attr]
    listed = Own()
    listed.pulls = [0.1, 0.2]  # type: ignore[assignment]
    assert listed._program(x) is None


def test_gradients_flow_through_the_states_before_and_after() -> None:
    neuron = CLIF()
    x, carried = torch.randn(5, 2, 7, requires_grad=True), torch.rand(2, 2, 7, requires_grad=True)
    weights = torch.randn(2, 2, 7)
    found = []
    for run in (neuron.run, neuron._unrolled):
        spikes, _, last = run(x, carried, None)
        assert last is not None
        loss = spikes.sum() + (last * weights).sum()
        found.append(torch.autograd.grad(loss, [x, carried]))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)
