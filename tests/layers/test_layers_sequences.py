"""Layers that know what a sequence is: shared dropout, votes, and layers in a row."""

import pytest
import torch
from torch import nn

from rheobase.layers.dropout import DropoutOverTime
from rheobase.layers.sequential import TimeSequential
from rheobase.layers.sync_norm import SyncBatchNorm
from rheobase.layers.vote import vote
from rheobase.neurons import LIF
from rheobase.stateful import resumed


def test_dropout_is_unbiased_shared_over_time_and_off_in_evaluation():
    torch.manual_seed(0)
    x = torch.rand(3, 20_000, 2) + 0.5
    dropout = DropoutOverTime(0.3)
    y = dropout(x)
    assert torch.equal(y[0] == 0, y[2] == 0)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(y.mean(), x.mean(), atol=0.02, rtol=0)
    assert dropout.eval()(x) is x


def test_votes_must_divide_the_outputs():
    assert vote(torch.arange(6.0).view(1, 6), 3).tolist() == [[1.0, 4.0]]
    with pytest.raises(ValueError, match="7 output neurons cannot vote in groups of 3"):
        vote(torch.zeros(2, 7), 3)


def test_layers_in_a_row_see_steps_or_the_whole_sequence():
    torch.manual_seed(0)
    net = TimeSequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), LIF(), nn.Flatten()).eval()
    x = torch.rand(5, 3, 2, 6, 6)
    conv, norm, neuron, _ = net
    by_hand = neuron(torch.stack([norm(conv(step)) for step in x.unbind(0)])).flatten(2)
    torch.testing.assert_close(net(x), by_hand)


def test_a_neuron_resumed_step_by_step_is_the_neuron():
    torch.manual_seed(0)
    neuron = LIF(tau=2.0)
    x = torch.rand(6, 2, 3, dtype=torch.float64) * 3
    one, other, weights = (
        x.clone().requires_grad_(),
        x.clone().requires_grad_(),
        torch.rand(6, 2, 3),
    )
    membrane, steps = None, []
    for current in other.unbind(0):
        with resumed(neuron, membrane):
            spikes, after = neuron(current.unsqueeze(0), tap="v")
        membrane = after[0]
        steps.append(spikes[0])
    whole = neuron(one)
    assert torch.equal(torch.stack(steps), whole)
    for y in (torch.stack(steps), whole):
        (y * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    assert neuron.carried is None


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(5), (3, 5, 5)),  # as many samples as channels: nothing would fail
        (nn.BatchNorm3d(5), (3, 2, 5, 2, 2, 2)),
        (SyncBatchNorm(5), (3, 5, 5, 4, 4)),
        (nn.GroupNorm(5, 5), (3, 5, 5, 4, 4)),
        (nn.InstanceNorm2d(5), (3, 2, 5, 4, 4)),
        (nn.Conv1d(5, 4, 3), (3, 2, 5, 6)),
        (nn.ConvTranspose2d(5, 4, 2), (3, 2, 5, 4, 4)),
        (nn.MaxPool1d(2), (3, 2, 5, 6)),
        (nn.AvgPool3d(2), (3, 2, 5, 4, 4, 4)),
        (nn.AdaptiveMaxPool2d(2), (3, 2, 5, 4, 4)),
    ],
)
def test_layers_of_any_dimension_see_every_step(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = layer(x.flatten(0, 1)).unflatten(0, shape[:2])
    torch.testing.assert_close(TimeSequential(layer)(x), expected)
