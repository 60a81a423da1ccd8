"""Attention over steps, channels and pixels: structure, streaming and bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import rheobase
from rheobase.layers import STSC, TCJA, MultiDimensionalAttention, TemporalAttention, over_time

T, N, C = 4, 2, 8
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "TemporalAttention": lambda: TemporalAttention(T, reduction=2),
    "TCJA": lambda: TCJA(T, C),
    "STSC": lambda: STSC(C),
    "TCSA": lambda: MultiDimensionalAttention("TCSA", steps=T, channels=C, t_ratio=2, c_ratio=4),
    "SA": lambda: MultiDimensionalAttention("SA"),
}


def sequence() -> torch.Tensor:
    return torch.randn(T, N, C, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MAKERS)
def test_over_time_calls_it_on_the_sequence(name: str) -> None:
    module, x = MAKERS[name](), sequence()
    assert torch.equal(over_time(x, module), module(x))


@pytest.mark.parametrize("name", MAKERS)
def test_an_earlier_step_sees_a_later_one_so_it_cannot_stream(name: str) -> None:
    torch.manual_seed(0)
    module, x = MAKERS[name](), sequence()
    later = x.clone()
    later[1] *= 3.0
    assert not torch.equal(module(later)[0], module(x)[0])
    with pytest.raises(ValueError, match="is not causal"), rheobase.streaming(module):
        pass


@pytest.mark.parametrize("name", ["TemporalAttention", "TCJA", "TCSA"])
def test_another_number_of_steps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"made for T=4 .* given T=3"):
        MAKERS[name]()(sequence()[:3])


@pytest.mark.parametrize("name", ["TCJA", "STSC", "TCSA"])
def test_another_number_of_channels_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"8 channels.*has 5"):
        MAKERS[name]()(sequence()[:, :, :5])


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(1)
    module = MAKERS[name]().double()
    x = torch.randn(T, N, C, 2, 3, dtype=torch.float64, requires_grad=True)
    given = (x, *module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), given, fast_mode=True)


def test_temporal_attention_drops_steps_in_evaluation() -> None:
    module, x = TemporalAttention(T, reduction=2, drop_below=0.5), sequence()
    nn.init.zeros_(module.excite.weight)
    module.excite.bias.data = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert torch.equal(module.eval()(x), x * torch.tensor([1, 0, 1, 0]).view(T, 1, 1, 1, 1))
    scores = torch.tensor([1.0, -1.0, 1.0, -1.0]).sigmoid().view(T, 1, 1, 1, 1)
    torch.testing.assert_close(module.train()(x), x * scores)


def test_stsc_gate_inhibits_and_its_filter_sees_neighbouring_steps() -> None:
    module, x = STSC(C, filter_size=3), sequence()
    nn.init.zeros_(module.inhibit.weight)  # a gate of 1 - sigmoid(0)
    nn.init.zeros_(module.filter.weight)
    module.filter.weight.data[:, 0, 0, 0] = 1.0  # the step before
    y = module(x)
    torch.testing.assert_close(y[1:], 0.5 * x[:-1])
    assert torch.equal(y[0], torch.zeros_like(y[0]))


def test_stsc_is_its_equation() -> None:
    torch.manual_seed(0)
    synapse, x = STSC(3, reduction=1).double(), torch.rand(5, 2, 3, 4, 4, dtype=torch.float64)
    padded = torch.cat([torch.zeros_like(x[:1]), x, torch.zeros_like(x[:1])])
    taps = synapse.filter.weight.view(3, 3)  # [channel, step]
    seen = synapse.receive.weight  # [hidden, channel, step]
    expected = []
    for t in range(5):
        near = padded[t : t + 3]  # the step before, this one, the next
        filtered = torch.einsum("tncij,ct->ncij", near, taps)
        hidden = torch.einsum("tnc,hct->nh", near.mean((-2, -1)), seen) + synapse.receive.bias
        gate = 1.0 - (hidden.relu() @ synapse.inhibit.weight.T).sigmoid()
        expected.append(filtered * gate[..., None, None])
    torch.testing.assert_close(synapse(x), torch.stack(expected))


def test_no_pixels_are_needed_where_space_has_no_part() -> None:
    x = torch.randn(T, N, C)
    for name in ("TemporalAttention", "TCJA", "STSC"):
        assert MAKERS[name]()(x).shape == x.shape


@pytest.mark.parametrize("shape", [(T, N, C), (T, T, C), (T, N, C, 5), (T, N, C, 2, 3, 3)])
def test_attention_in_space_wants_pixels(shape: tuple[int, ...]) -> None:
    for kind in ("TCSA", "TA", "CA", "SA"):
        module = MultiDimensionalAttention(kind, steps=T, channels=C, t_ratio=2, c_ratio=4)
        with pytest.raises(ValueError, match=r"takes \[T, N, C, H, W\], got shape"):
            module(torch.rand(shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalAttention(4), "reduction is from 1 to steps=4, got 16"),
        (lambda: MultiDimensionalAttention("TCSA", channels=8), "needs steps="),
        (lambda: MultiDimensionalAttention("CA", channels=8), "ratio of 16 leaves nothing of 8"),
        (lambda: MultiDimensionalAttention("TCS"), "'TCS'; did you mean 'TCSA'"),
        (lambda: MultiDimensionalAttention("SA", kernel_size=4), "odd number of pixels, got 4"),
        (lambda: TemporalAttention(4, 2, drop_below=2.0), "from 0 to 1 or None as drop_below"),
        (lambda: STSC(8, filter_size=4), "filter_size is an odd number"),
        (lambda: STSC(8, reduction=9), "reduction=9 leaves nothing"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
