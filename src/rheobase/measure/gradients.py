"""How far surrogate gradients are from the gradient of the loss that spikes really give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.measure._evaluating import evaluating
from rheobase.neurons import Neuron

__all__ = ["GradientError", "gradient_approximation_error"]


@dataclass(frozen=True)
class GradientError:
    r"""The surrogate gradient of one neuron layer against the true, smoothed one.

    Attributes:
        error: :math:`\epsilon_{grad} = \|g - \tilde g\|`, g the gradient of the smoothed loss,
            :math:`\tilde g` the surrogate's.
        relative: ``error`` over the norm of g; infinite where g was not told from 0.
        cosine: of the angle between the two; NaN where one of them is 0.
    """

    error: float
    relative: float
    cosine: float


def gradient_approximation_error(
    net: nn.Module,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    sigma: float = 0.1,
    samples: int = 64,
    seed: int = 0,
) -> dict[str, GradientError]:
    r"""Gradient approximation error of every `Neuron` of ``net``: surrogate against truth.

    The true loss is a step function of the membranes, so its gradient is taken of the loss smoothed
    by noise, :math:`L_\sigma(V) = E_r\,L(V + \sigma r)` with normal r on all neurons at once, by
    central differences :math:`(L(V + \sigma r) - L(V - \sigma r))\,r / 2\sigma`. V is the current
    into a neuron, from which its membrane differs by a constant factor.

    The estimate has no bias, but noise: take few inputs, and clearly more samples than a layer
    has elements.

    Args:
        net: a network; runs in evaluation mode.
        x: its input.
        loss: what makes a scalar of the network's output.
        sigma: standard deviation of the noise, in units of the current.
        samples: pairs of evaluations.
        seed: of the noise.

    Returns:
        neuron's name to its error, in order of execution.

    Raises:
        ValueError: ``sigma`` is not above 0, fewer than 2 samples, or no neurons.

    Source: S2 section 6.1 (the definition); Spall 1992 and Nesterov & Spokoiny 2017 (the
    differences along random directions).

    >>> from rheobase.neurons import IF
    >>> from rheobase.surrogate import Gaussian
    >>> net = nn.Sequential(IF(surrogate=Gaussian(0.3)))  # right for noise of that width
    >>> x = torch.linspace(0.5, 1.5, 4).view(1, 1, 4)
    >>> found = gradient_approximation_error(net, x, torch.sum, sigma=0.3, samples=2000)
    >>> found["0"].relative < 0.2 and found["0"].cosine > 0.9
    True
    """
    if not sigma > 0 or samples < 2:
        raise ValueError(f"sigma={sigma}, samples={samples}: must be above 0 and at least 2")
    surrogate = _surrogate_gradients(net, x, loss)
    if not surrogate:
        raise ValueError("gradient_approximation_error needs a network with neurons")
    generator = torch.Generator(x.device).manual_seed(seed)
    sums = [_Estimate(gradient) for _, gradient in surrogate]
    with evaluating(net):
        for _ in range(samples):
            noise = [
                torch.randn(g.shape, generator=generator, device=g.device) for _, g in surrogate
            ]
            up, down = (_perturbed(net, x, loss, noise, s) for s in (sigma, -sigma))
            for estimate, direction in zip(sums, noise, strict=True):
                estimate.add((up - down) / (2.0 * sigma), direction)
    return {name: e.result() for (name, _), e in zip(surrogate, sums, strict=True)}


class _Estimate:
    """Unbiased estimates of |g|^2 and of g against the surrogate, from slopes along directions."""

    def __init__(self, surrogate: Tensor) -> None:
        self.surrogate = surrogate.double()
        self.total = torch.zeros_like(self.surrogate)
        self.own = self.count = 0.0

    def add(self, slope: float, direction: Tensor) -> None:
        part = slope * direction.double()
        self.total += part
        self.own += float(part.square().sum())
        self.count += 1

    def result(self) -> GradientError:
        # The product of two different samples is free of the square of their noise.
        true = (float(self.total.square().sum()) - self.own) / (self.count * (self.count - 1))
        inner = float((self.total * self.surrogate).sum()) / self.count
        ours = float(self.surrogate.square().sum())
        error = math.sqrt(max(true - 2.0 * inner + ours, 0.0))
        size = math.sqrt(max(true, 0.0))
        product = size * math.sqrt(ours)
        return GradientError(
            error=error,
            relative=error / size if size else math.inf,
            cosine=max(-1.0, min(1.0, inner / product)) if product else math.nan,
        )


def _surrogate_gradients(
    net: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]
) -> list[tuple[str, Tensor]]:
    """Name and gradient by its current, of every call of a neuron."""
    currents: list[tuple[str, Tensor]] = []

    def watch(name: str, current: Tensor) -> Tensor:
        current = current if current.requires_grad else current.detach().requires_grad_()
        currents.append((name, current))
        return current

    with evaluating(net), torch.enable_grad(), changed_currents(net, watch):
        total = loss(net(x))
    if not currents:
        return []
    gradients = torch.autograd.grad(
        total, [current for _, current in currents], allow_unused=True, materialize_grads=True
    )
    return [(name, gradient) for (name, _), gradient in zip(currents, gradients, strict=True)]


def _perturbed(
    net: nn.Module,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    noise: list[Tensor],
    size: float,
) -> float:
    directions = iter(noise)
    with changed_currents(
        net, lambda _, current: current + size * next(directions).to(current.dtype)
    ):
        return float(loss(net(x)))


@contextmanager
def changed_currents(net: nn.Module, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Within the block, the input of every neuron is what ``change(name, input)`` makes of it."""

    def hook(name: str) -> Any:
        return lambda module, args: (change(name, args[0]), *args[1:])

    handles = [
        module.register_forward_pre_hook(hook(name))
        for name, module in net.named_modules()
        if isinstance(module, Neuron)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
