"""What rules on spike-response networks share: the walk through time, feedback, desired spikes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers.spike_response import Response, SpikeResponse
from rheobase.learn.rule import LearningRule, Lesson, add_gradient
from rheobase.models.spike_response_net import SpikeResponseNet

__all__ = [
    "FEEDBACKS",
    "ResponseRule",
    "add_outer",
    "by_logits",
    "carriers",
    "desired_spikes",
    "known_feedback",
    "network",
    "walk",
]

FEEDBACKS = ("symmetric", "random", "uniform")


class ResponseRule(LearningRule):
    """Base of rules that read the traces of a `SpikeResponseNet`."""

    readouts: ClassVar[tuple[str, ...]] = ()
    """What the network may put out."""
    single: ClassVar[bool] = False
    """Whether it has one layer only."""
    feedback: str = ""
    """A kind of `FEEDBACKS`, where the outputs' errors go to hidden layers."""

    def check(self, net: nn.Module) -> None:
        """Refuse another network, readout or depth.

        Raises:
            TypeError: not a `SpikeResponseNet`.
            ValueError: another readout, or hidden layers for a rule that has no way to teach them.
        """
        name = type(self).__name__
        if not isinstance(net, SpikeResponseNet):
            raise TypeError(
                f"{name} reads the traces of spike-response layers, got {type(net).__name__}; take "
                "a model of rheobase.models.spike_response_net, such as eprop_mnist"
            )
        if net.config.readout not in self.readouts:
            raise ValueError(
                f"{name} takes a network with readout {' or '.join(map(repr, self.readouts))}, "
                f"this one has {net.config.readout!r} (model.overrides.readout)"
            )
        if self.single and net.config.hidden:
            raise ValueError(f"{name} trains one layer, this network has hidden layers too: "
                             f"{net.config.hidden} (model.overrides.hidden=[])")  # fmt: skip
        if self.feedback == "symmetric" and len(net.config.hidden) > 1:
            raise ValueError(
                f"symmetric feedback reaches the last hidden layer only, this network has "
                f"{net.config.hidden}; take feedback=random (rule.options.feedback=random)"
            )


def network(lesson: Lesson) -> tuple[SpikeResponseNet, list[SpikeResponse], Tensor]:
    """A lesson's network, its layers, and its inputs ``[T, N, features]``."""
    net = lesson.net
    assert isinstance(net, SpikeResponseNet)
    layers = [layer for layer in net.layers if isinstance(layer, SpikeResponse)]
    return net, layers, net.encode(lesson.inputs)


def walk(layers: list[SpikeResponse], x: Tensor) -> Iterator[list[Response]]:
    """The layers' responses of every step; only the latest is kept."""
    states = []
    for layer, width in zip(layers, [x.shape[2], *(m.out_features for m in layers)], strict=False):
        states.append(layer.start(x.new_zeros(x.shape[1], width)))
    for x_t in x.unbind(0):
        responses = []
        for layer, state in zip(layers, states, strict=True):
            responses.append(layer.step(x_t, state))
            x_t = responses[-1].spikes
        states = [response.state for response in responses]
        yield responses


def by_logits(lesson: Lesson, logits: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The loss of one of ``steps`` steps' logits ``[N, classes]``, and its gradient by them."""
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        loss = lesson.loss(logits.unsqueeze(0), lesson.target) / steps
        (error,) = torch.autograd.grad(loss, logits)
    return loss.detach(), error


def add_outer(layer: SpikeResponse, error: Tensor, trace: Tensor) -> None:
    """Add an error by the membrane ``[N, out]`` times a trace ``[N, in]`` to the gradients."""
    add_gradient(layer.weight, error.T @ trace)
    add_gradient(layer.bias, error.sum(0))


def known_feedback(kind: str) -> str:
    """``kind``, if it is one.

    Raises:
        ValueError: it is none of `FEEDBACKS`.
    """
    if kind not in FEEDBACKS:
        raise ValueError(unknown_name("feedback", kind, FEEDBACKS))
    return kind


def carriers(
    kind: str, last: SpikeResponse, hidden: list[SpikeResponse], seed: int
) -> list[Tensor]:
    """What carries the outputs' errors to each hidden layer, ``[classes, width]``.

    Args:
        kind: ``symmetric``, the output weights themselves (there is one hidden layer);
            ``random``, fixed normal numbers of their usual size; ``uniform``, all 1.
        last: the outputs.
        hidden: the layers before.
        seed: of the random numbers.
    """
    weight = last.weight.detach()
    if kind == "symmetric":
        return [weight for _ in hidden]
    shapes = [(weight.shape[0], layer.out_features) for layer in hidden]
    if kind == "uniform":
        return [weight.new_ones(shape) for shape in shapes]
    return [_normal(shape, seed + i).to(weight) / shape[1] ** 0.5 for i, shape in enumerate(shapes)]


def _normal(shape: tuple[int, int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def desired_spikes(target: Tensor, T: int, classes: int, period: int) -> Tensor:
    """The spike trains ``[T, N, classes]`` that outputs are to have.

    Labels ``[N]``: the neuron of the label fires at every ``period``-th step, the others never.
    Trains ``[T, N, classes]`` are taken as they are.

    Raises:
        ValueError: trains of another shape, or a period below 1.
    """
    if period < 1:
        raise ValueError(f"period={period}: at least 1 step between desired spikes")
    if target.dim() == 1:
        active = torch.nn.functional.one_hot(target, classes).to(torch.get_default_dtype())
        now = (torch.arange(1, T + 1, device=target.device) % period == 0).to(active.dtype)
        return now.view(T, 1, 1) * active
    if target.dim() != 3 or target.shape[0] != T or target.shape[2] != classes:
        raise ValueError(
            f"desired spikes are labels [N] or trains [{T}, N, {classes}], got {list(target.shape)}"
        )
    return target
