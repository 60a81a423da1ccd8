"""Forward-forward: each layer tells right from wrong labels by its own activity."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rheobase._numbers import Positive
from rheobase.learn.rule import LearningRule, Lesson
from rheobase.neurons import Neuron

__all__ = ["ForwardForward", "goodness", "with_label"]


class ForwardForward(LearningRule):
    r"""Forward-forward: two forward passes, no error from layer to layer.

    The label is written into the image. Every neuron layer has the loss
    :math:`\mathrm{softplus}(\theta - G^+) + \mathrm{softplus}(G^- - \theta)` of its `goodness` for
    right (+) and for random wrong (-) labels, whose gradient stops at the layer's own input.
    Layers after the last neurons learn the lesson's loss from images without a label, their input
    detached: Hinton's quick readout, by which the network classifies with one ordinary call.

    Source: Hinton 2022, arXiv 2212.13345, sections 2 and 3.3.

    Args:
        threshold: :math:`\theta`; goodness is a mean of squares, 1 where all neurons always fire.
        sharpness: what the difference to the threshold is multiplied by.

    Raises:
        ValueError: ``threshold`` or ``sharpness`` is not positive; the network has no neurons.
    """

    def __init__(self, threshold: Positive = 0.1, sharpness: Positive = 20.0) -> None:
        self.threshold, self.sharpness = threshold, sharpness

    def check(self, net: nn.Module) -> None:
        """Refuse a network without neurons.

        Raises:
            ValueError: as above.
        """
        if not any(isinstance(m, Neuron) for m in net.modules()):
            raise ValueError("forward-forward needs a network with neurons (rheobase.neurons)")

    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        self.check(lesson.net)
        x, target, net = lesson.inputs, lesson.target, lesson.net
        with _layers_alone(net) as spikes:
            logits = net(x)
            spikes.clear()
            classes = logits.shape[-1]
            other = torch.randint(1, classes, target.shape).to(target.device)
            net(with_label(x, target, classes))
            right = [goodness(s) for s in spikes]
            spikes.clear()
            net(with_label(x, (target + other) % classes, classes))
            wrong = [goodness(s) for s in spikes]
        loss = lesson.loss(logits, target)
        local = [self.of_layer(good, bad) for good, bad in zip(right, wrong, strict=True)]
        torch.stack([loss, *local]).sum().backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def of_layer(self, right: Tensor, wrong: Tensor) -> Tensor:
        """The loss of one layer, by its goodness ``[N]`` for right and for wrong labels."""
        above, below = right - self.threshold, self.threshold - wrong
        softplus = nn.functional.softplus
        return softplus(-self.sharpness * torch.cat([above, below])).mean()


def goodness(spikes: Tensor) -> Tensor:
    """The mean over neurons of their squared firing rates, ``[N]``, of spikes ``[T, N, ...]``.

    >>> goodness(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))  # (1 + 1/4) / 2
    tensor([0.6250])
    """
    return spikes.mean(0).flatten(1).square().mean(1)


def with_label(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The images ``[..., N, C, H, W]`` with the label in their first pixels, one for each class.

    The pixel of the label gets the batch's highest value, those of the other classes 0.

    Raises:
        ValueError: no images, or fewer pixels than classes.

    >>> with_label(torch.full((1, 1, 1, 4), 0.5), torch.tensor([1]), 2).flatten().tolist()
    [0.0, 0.5, 0.5, 0.5]
    """
    if x.dim() < 4 or x.shape[-3:].numel() < classes:
        raise ValueError(
            f"forward-forward writes one of {classes} labels into the first pixels of images "
            f"[..., N, C, H, W], got shape {list(x.shape)}"
        )
    marks = nn.functional.one_hot(labels, classes).to(x.dtype) * x.max()
    y = x.clone().flatten(-3)
    y[..., :classes] = marks
    return y.view(x.shape)


@contextmanager
def _layers_alone(net: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, weights see detached inputs; list what neurons fire."""
    spikes: list[Tensor] = []
    weights = [m for m in net.modules() if isinstance(m, nn.Linear | _ConvNd)]
    hooks = [m.register_forward_pre_hook(lambda m, x: (x[0].detach(), *x[1:])) for m in weights]
    hooks += [
        m.register_forward_hook(lambda m, x, y: spikes.append(y))
        for m in net.modules()
        if isinstance(m, Neuron)
    ]
    try:
        yield spikes
    finally:
        for hook in hooks:
            hook.remove()
