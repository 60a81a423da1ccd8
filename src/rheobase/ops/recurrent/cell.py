"""What one step of a recurrent spiking layer is.

    i = current_decay * i + x + W s          # the synapses: input, and the layer's own last spikes
    theta = threshold + adaptation * a       # what every spike raised falls back
    h, s, u = charge, fire, reset            # those of the scan (`rheobase.ops.scan.tables`)
    a = adaptation_decay * a + s

Without ``current_decay`` the input charges the membrane at once (LIF); without ``adaptation`` the
threshold stays (0 switches either off). Two linear states beside the scan's membrane make
recurrent CUBA-LIF and ALIF layers (LSNN) of it: Bellec et al. 2018, arXiv 1803.09574.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheobase.ops.scan.spec import ScanSpec

__all__ = ["Cell", "first_state"]


@dataclass(frozen=True)
class Cell:
    """The neuron of a recurrent layer: a spec of the scan and its two linear states."""

    spec: ScanSpec
    current_decay: float = 0.0
    adaptation: float = 0.0
    adaptation_decay: float = 0.0

    @property
    def numbers(self) -> tuple[float, float, float]:
        """What the spec does not tell, as the kernels take it."""
        return self.current_decay, self.adaptation, self.adaptation_decay


def first_state(x: Tensor, rest: float) -> Tensor:
    """The state before the first step, ``[4, N, F]``: spikes, membrane, current, adaptation.

    Args:
        x: the input ``[T, N, F]``, in the dtype of computation.
        rest: the membrane.
    """
    silent = torch.zeros(4, *x.shape[1:], dtype=x.dtype, device=x.device)
    silent[1].fill_(rest)
    return silent
