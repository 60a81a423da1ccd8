"""LIF with a refractory period."""

from __future__ import annotations

from typing import Any

from rheobase.neurons.integrate_and_fire import LIF

__all__ = ["RefractoryLIF"]


class RefractoryLIF(LIF):
    r"""LIF that after a spike takes no input and does not leak for ``refractory`` steps.

    In a refractory step the membrane stays where the reset has put it, the neuron does not fire,
    and no gradient passes from its spike or its input. Every neuron of the scan that has the
    options of `Neuron` has this one: ``PLIF(refractory=2)``. Runs step by step.
    Source: Gerstner et al. 2014, *Neuronal Dynamics*, section 1.3.1.

    Args:
        tau: time constant, at least 1.
        refractory: steps without input after a spike, 0 or more.
        options: the arguments of `LIF`.

    Raises:
        ValueError: ``tau`` is below 1, or ``refractory`` negative.

    >>> import torch
    >>> RefractoryLIF(refractory=2)(torch.full((7, 1), 3.0)).flatten().tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    def __init__(self, tau: float = 2.0, *, refractory: int = 1, **options: Any) -> None:
        super().__init__(tau, refractory=refractory, **options)
