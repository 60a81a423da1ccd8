"""The tempotron."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase.learn._responses import ResponseRule, network, walk
from rheobase.learn.rule import Lesson, add_gradient

__all__ = ["Tempotron"]


class Tempotron(ResponseRule):
    r"""Tempotron: whether a neuron fires at all tells the class.

    Where it is wrong, :math:`\Delta w_i = \pm\sum_{t_i < t_{max}} K(t_{max} - t_i)`: the gradient
    of the cost :math:`\pm(\theta - u(t_{max}))`, at the time of the highest membrane. One tempotron
    for each class is to fire for its own.

    Source: Gütig & Sompolinsky 2006, Nature Neuroscience 9(3), eqs. 1 to 4.
    """

    readouts = ("peak",)
    single = True

    @torch.no_grad()
    def __call__(self, lesson: Lesson) -> Tensor:
        """See `LearningRule`."""
        _, layers, x = network(lesson)
        layer, N = layers[0], x.shape[1]
        steps = [(responses[0].u, responses[0].trace) for responses in walk(layers, x)]
        peak, at = torch.stack([u for u, _ in steps]).max(0)
        traces = torch.stack([trace for _, trace in steps])
        own = torch.nn.functional.one_hot(lesson.target, layer.out_features).bool()
        short = layer.threshold - peak
        missed, false = own & (short > 0), ~own & (short <= 0)
        sign = false.to(x.dtype) - missed.to(x.dtype)
        kernels = traces[at, torch.arange(N, device=x.device).unsqueeze(1)]  # [N, out, in]
        add_gradient(layer.weight, torch.einsum("no,noi->oi", sign / N, kernels))
        add_gradient(layer.bias, (sign / N).sum(0))
        return (short.abs() * (missed | false)).sum() / N
