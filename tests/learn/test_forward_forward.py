from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rheobase.learn import ForwardForward, Lesson
from rheobase.learn.forward_forward import goodness, with_label
from rheobase.models import create_model
from rheobase.train import cross_entropy_of_mean


def build() -> nn.Module:
    torch.manual_seed(0)
    return create_model("forward_forward_mnist", hidden=(12, 10), image_size=6, num_classes=3)


def lesson(net: nn.Module) -> Lesson:
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Lesson(net, x, torch.tensor([0, 1, 2, 1, 0]), cross_entropy_of_mean, repeats=6)


def test_each_layer_descends_its_own_loss_alone() -> None:
    net = build()
    given, rule = lesson(net), ForwardForward()
    torch.manual_seed(3)
    rule(given)
    torch.manual_seed(3)
    other = torch.randint(1, 3, (5,))
    batches = [
        with_label(given.inputs, given.target, 3),
        with_label(given.inputs, (given.target + other) % 3, 3),
    ]
    flatten, first, fire, unit, second, again, unit2, head = net.layers  # type: ignore[misc]
    del flatten

    def layer_input(x: Tensor, depth: int) -> Tensor:
        x = x.flatten(1).expand(6, 5, 36)
        if depth > 0:
            x = unit(fire(first(x)))
        if depth > 1:
            x = unit2(again(second(x)))
        return x.detach()

    for depth, (linear, neuron) in enumerate(((first, fire), (second, again))):
        good, bad = (goodness(neuron(linear(layer_input(x, depth)))) for x in batches)
        expected = torch.autograd.grad(rule.of_layer(good, bad), linear.weight)[0]
        assert expected.abs().sum() > 0
        torch.testing.assert_close(linear.weight.grad, expected)
    loss = cross_entropy_of_mean(head(layer_input(given.inputs, 2)), given.target)
    torch.testing.assert_close(
        head.weight.grad, torch.autograd.grad(loss, head.weight)[0], rtol=1e-4, atol=1e-6
    )


def test_goodness_classifies_after_learning() -> None:
    rng = torch.Generator().manual_seed(4)
    target = torch.randint(3, (60,), generator=rng)
    patterns = torch.rand(3, 1, 6, 6, generator=rng)[target]
    images = (patterns + 0.05 * torch.randn(60, 1, 6, 6, generator=rng)).clamp(0.0, 1.0)
    torch.manual_seed(0)
    net = create_model("forward_forward_mnist", hidden=(48,), image_size=6, num_classes=3)
    _, first, fire, *_ = net.layers  # type: ignore[misc, union-attr]

    def by_goodness() -> float:
        each = []
        for label in range(3):
            x = with_label(images, torch.full_like(target, label), 3).flatten(1)
            each.append(goodness(fire(first(x.expand(6, *x.shape)))))
        return float((torch.stack(each, 1).argmax(1) == target).float().mean())

    rule, before = ForwardForward(), by_goodness()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        rule(Lesson(net, images, target, cross_entropy_of_mean, repeats=6))
        optimizer.step()
    assert before < 0.7 and by_goodness() > 0.85
    assert float((net(images).mean(0).argmax(1) == target).float().mean()) > 0.9


def test_a_network_without_neurons_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a network with neurons"):
        ForwardForward().check(nn.Linear(2, 2))
    for shape in ((2, 1, 2, 4), (3, 2, 16)):
        with pytest.raises(ValueError, match=r"one of 9 labels .* got shape \["):
            with_label(torch.rand(shape), torch.tensor([0, 1]), 9)
    for bad in ({"sharpness": 0.0}, {"threshold": 0.0}):
        with pytest.raises(ValueError, match="takes a finite number above 0 as"):
            ForwardForward(**bad)
