"""What rules on spike-response networks share: the walk through time, feedback, desired spikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers.spike_response import Response, SpikeResponse
from rheobase.learn.rule import LearningRule, Lesson, add_gradient
from rheobase.models.spike_response_net import SpikeResponseNet

__all__ = [
    "ResponseRule",
    "add_outer",
    "by_logits",
    "desired_spikes",
    "feedback",
    "network",
    "walk",
]


class ResponseRule(LearningRule):
    """Base of rules that read the traces of a `SpikeResponseNet`."""

    readouts: ClassVar[tuple[str, ...]] = ()
    """What the network may put out."""
    single: ClassVar[bool] = False
    """Whether it has one layer only."""

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


def feedback(kind: str, weight: Tensor, width: int, seed: int) -> Tensor:
    """What carries the errors of the outputs ``[classes]`` to ``width`` hidden neurons.

    Args:
        kind: ``symmetric``, the output weights themselves (of the last hidden layer only);
            ``random``, fixed normal numbers of their usual size; ``uniform``, all 1.
        weight: of the outputs, ``[classes, last hidden]``.
        width: of the hidden layer.
        seed: of the random numbers.

    Raises:
        ValueError: an unknown kind, or symmetric feedback to a layer that is not the last hidden.
    """
    shape = (weight.shape[0], width)
    makers: dict[str, Callable[[], Tensor]] = {
        "symmetric": lambda: weight.detach(),
        "uniform": lambda: weight.new_ones(shape),
        "random": lambda: _normal(shape, seed).to(weight) / width**0.5,
    }
    if kind not in makers:
        raise ValueError(unknown_name("feedback", kind, makers))
    matrix = makers[kind]()
    if matrix.shape != shape:
        raise ValueError(
            "symmetric feedback reaches the last hidden layer only; take feedback=random "
            "(rule.options.feedback=random)"
        )
    return matrix


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
