"""Streaming: chunks of a sequence give what one call gives, and state is explicit."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rheobase
from rheobase.neurons import IF, LIF, PLIF, Neuron
from rheobase.stateful import Stateful

NEURONS = [IF(v_reset=None), LIF(tau=1.5, v_reset=-0.3), LIF(decay_input=False), PLIF(channels=3)]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=5), which=st.sampled_from(range(len(NEURONS))))
def test_any_chunking_equals_one_call(cuts: list[int], which: int) -> None:
    neuron: Neuron = NEURONS[which]
    x = torch.rand(12, 2, 3, 4, generator=torch.Generator().manual_seed(len(cuts))) * 2
    edges = [0, *sorted(set(cuts)), 12]
    with rheobase.streaming(neuron):
        parts = [neuron(x[a:b]) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(parts), neuron(x))


def test_state_is_saved_and_restored() -> None:
    net, x = nn.Sequential(LIF(), LIF(v_threshold=0.2)), torch.rand(8, 2, 5) * 2
    with rheobase.streaming(net) as stream:
        assert stream.state_dict() == {}
        net(x[:4])
        state = stream.state_dict()
        expected = net(x[4:])
    assert sorted(state) == ["0", "1"]
    with rheobase.streaming(net) as stream:
        stream.load_state_dict(state)
        assert torch.equal(net(x[4:]), expected)
        stream.reset()
        assert torch.equal(net(x), net_alone(net, x))
        with pytest.raises(KeyError, match="state of modules that this network does not have"):
            stream.load_state_dict({"7": state["0"]})


def net_alone(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    import copy

    fresh = copy.deepcopy(net)
    for module in fresh.modules():
        if isinstance(module, Stateful):
            module._streams, module._state = False, None
    return fresh(x)


def test_state_ends_with_the_block_and_gradients_with_the_chunk() -> None:
    neuron, x = LIF(), torch.rand(4, 2, 3, requires_grad=True)
    before = neuron(x)
    with rheobase.streaming(neuron):
        neuron(x).sum().backward()
        neuron(x).sum().backward()
    assert torch.equal(neuron(x), before)
    assert neuron._state is None


def test_streaming_compiles() -> None:
    torch._dynamo.reset()
    neuron, x = LIF(), torch.rand(6, 2, 3) * 2
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    expected = compiled(x)
    with rheobase.streaming(neuron):
        pieces = torch.cat([neuron(x[:2]), neuron(x[2:])])
    assert torch.equal(pieces, expected)


class _Acausal(Stateful):
    causal = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


def test_what_cannot_stream_says_so() -> None:
    with pytest.raises(ValueError, match=r"1 \(_Acausal\) is not causal"):
        rheobase.streaming(nn.Sequential(LIF(), _Acausal())).__enter__()
    with pytest.raises(ValueError, match=r"BatchNorm2d\) is in training mode"):
        rheobase.streaming(nn.Sequential(nn.BatchNorm2d(3), LIF())).__enter__()
    with pytest.raises(ValueError, match="streaming already"):
        neuron = LIF()
        with rheobase.streaming(neuron), rheobase.streaming(neuron):
            pass


def test_another_batch_size_in_the_stream_is_refused() -> None:
    neuron = LIF()
    with rheobase.streaming(neuron):
        neuron(torch.rand(2, 4, 3))
        with pytest.raises(ValueError, match=r"streams on inputs \[t, 4, 3\] but was given"):
            neuron(torch.rand(2, 5, 3))
