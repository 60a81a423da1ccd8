from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rheobase.layers.sequential import TimeSequential
from rheobase.learn import RSTDP, STDP, Lesson
from rheobase.learn.plasticity import _reward
from rheobase.models import create_model
from rheobase.neurons import LIF
from rheobase.train import cross_entropy_of_mean


def build(spiking_output: bool = False) -> nn.Module:
    torch.manual_seed(0)
    net = create_model("spiking_mlp_mnist", hidden=(7,), image_size=4, num_classes=3, T=5,
                       spiking_output=spiking_output)  # fmt: skip
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.Linear):
                m.weight.mul_(2.0)
    return net


def lesson(net: nn.Module, static: bool = False) -> Lesson:
    rng = torch.Generator().manual_seed(1)
    x = (torch.rand(5, 4, 1, 4, 4, generator=rng) < 0.5).float()
    given = (x[0], 5) if static else (x, None)
    return Lesson(net, given[0], torch.tensor([0, 1, 2, 1]), cross_entropy_of_mean, given[1])


def spikes(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.layers[2](net.layers[1](x.flatten(2)))  # type: ignore[index, union-attr]


@pytest.mark.parametrize("static", [False, True])
def test_a_plastic_layer_follows_stdp_the_others_the_loss(static: bool) -> None:
    net = build()
    given = lesson(net, static)
    rule = STDP(tau_pre=3.0, tau_post=2.0, a_plus=0.5, a_minus=0.25, low=-2.0, high=2.0)
    kept = torch.ones(7, 16)
    net.layers[1].weight.grad = kept.clone()  # type: ignore[index, union-attr]
    rule(given)
    weight, bias = net.layers[1].weight, net.layers[1].bias  # type: ignore[index, union-attr]
    x = given.sequence.flatten(2)
    post = spikes(net, given.sequence)
    assert 0.05 < post.mean() < 0.95
    expected = torch.zeros_like(weight)
    for t in range(5):
        for s in range(t + 1):
            grow = torch.einsum("no,ni->oi", post[t], x[s]) * math.exp(-(t - s) / 3.0)
            shrink = torch.einsum("no,ni->oi", post[s], x[t]) * math.exp(-(t - s) / 2.0)
            expected += 0.5 * (2.0 - weight) / 4.0 * grow - 0.25 * (weight + 2.0) / 4.0 * shrink
    torch.testing.assert_close(weight.grad, kept - expected.detach() / 4)
    assert bias.grad is None
    head = net.layers[3].weight  # type: ignore[index, union-attr]
    loss = cross_entropy_of_mean(net(given.inputs), given.target)
    torch.testing.assert_close(head.grad, torch.autograd.grad(loss, head)[0])


def test_reward_of_the_answer_so_far_decides_what_is_learnt() -> None:
    """Florian's eligibility, written out, times the rewards of answer and label."""
    torch.manual_seed(0)
    net = create_model("spiking_mlp_mnist", hidden=(), image_size=4, num_classes=3, T=5,
                       spiking_output=True, neuron_kwargs={"v_threshold": 0.3})  # fmt: skip
    given = lesson(net)
    RSTDP(tau_eligibility=4.0, tau_pre=3.0, tau_post=2.0, mu=0.0)(given)
    x, post = given.sequence.flatten(2), spikes(net, given.sequence)
    weight = net.layers[1].weight  # type: ignore[index, union-attr]
    assert 0.05 < post.mean() < 0.95
    expected, eligible, pairs = torch.zeros(3, 16), torch.zeros(4, 3, 16), torch.zeros(4, 3, 16)
    signs = set()
    for t in range(5):
        eligible = eligible * math.exp(-1.0 / 4.0) + pairs / 4.0
        count = post[: t + 1].sum(0)
        for n, label in enumerate(given.target.tolist()):
            answer = int(count[n].argmax())
            if answer != label or not count[n].any():
                expected[answer] -= eligible[n, answer] * float(answer != label)
            expected[label] += eligible[n, label]
            signs.add(answer == label)
        pairs = torch.zeros(4, 3, 16)
        for s in range(t + 1):
            pairs += torch.einsum("no,ni->noi", post[t], x[s]) * math.exp(-(t - s) / 3.0)
            pairs -= torch.einsum("no,ni->noi", post[s], x[t]) * math.exp(-(t - s) / 2.0)
    assert signs == {True, False}
    torch.testing.assert_close(weight.grad, -expected / 4)


def test_right_answers_are_rewarded_whatever_the_sign_of_the_logits() -> None:
    logits = torch.tensor([[-1.0, -3.0, -2.0], [-1.0, -3.0, -2.0], [0.0, 0.0, 0.0]])
    target = torch.tensor([0, 1, 0])
    assert _reward(logits, target, output=False).tolist() == [1.0, -1.0, -1.0]
    of_outputs = [[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert _reward(logits, target, output=True).tolist() == of_outputs


def test_a_neuron_belongs_to_the_layer_right_before_it() -> None:
    """A plastic layer that another layer follows has no spikes of its own."""
    torch.manual_seed(0)
    net = TimeSequential(nn.Linear(5, 4), nn.Linear(4, 4), LIF(v_threshold=0.1))
    given = Lesson(net, torch.rand(6, 3, 5), torch.tensor([0, 1, 2]), cross_entropy_of_mean)
    with pytest.raises(ValueError, match="no neuron runs after 0: "):
        STDP(layers=["0"])(given)
    STDP()(given)
    assert net[1].weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    # The first layer is left to the loss, through the second.
    loss = cross_entropy_of_mean(net(given.inputs), given.target)
    expected = torch.autograd.grad(loss, net[0].weight)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(net[0].weight.grad, expected)


def test_what_cannot_learn_by_stdp_is_refused() -> None:
    x, target = torch.rand(4, 2, 3, 5), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="Conv2d has none"):
        STDP().check(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="no neuron runs after any linear layer"):
        STDP()(Lesson(nn.Linear(5, 5), x[:, :, 0], target, cross_entropy_of_mean))
    of_tokens = nn.Sequential(nn.Linear(5, 5), LIF())
    with pytest.raises(ValueError, match=r"after 0 fires \[4, 2, 3, 5\]; .* of 5 neurons"):
        STDP()(Lesson(of_tokens, x, target, lambda logits, _: logits.mean()))


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown linear layer 'layers\.2'; did you mean 'layers"):
        STDP(layers=["layers.2"]).check(build())
    with pytest.raises(ValueError, match=r"no neuron runs after layers\.3"):
        STDP(layers=["layers.3"])(lesson(build()))
    with pytest.raises(ValueError, match="is not below"):
        STDP(low=1.0, high=1.0)
