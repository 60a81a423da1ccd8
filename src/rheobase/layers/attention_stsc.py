"""Synapses that filter and gate over time (STSC-SNN)."""

from __future__ import annotations

from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.layers._checks import check_sequence
from rheobase.layers.norms.base import flat
from rheobase.stateful import Stateful

__all__ = ["STSC"]


class STSC(Stateful):
    r"""Spatio-temporal synaptic connection: a filter over time, gated by lateral inhibition.

    .. math:: y = \mathrm{TRF}(x) \odot \bigl(1 - \sigma(W\,\mathrm{relu}(V * \bar x + b))\bigr)

    TRF, the temporal response filter, convolves each channel over time. The gate (feed-forward
    lateral inhibition) sees the mean over pixels through a convolution over time that mixes
    channels. Placed in front of the weights of a layer. Both kernels reach as far ahead as back,
    so it is not causal and cannot stream.

    Reconstruction: the authors' repository lacks the file of this module; the form is that of
    copies of it in other public repositories. Uncertain are the defaults of the sizes.

    Args:
        channels: number of channels.
        filter_size: steps of the filter, odd.
        gate_size: steps that the gate sees, odd.
        reduction: the gate has ``channels // reduction`` hidden units.

    Raises:
        ValueError: a size is even, or nothing is left of ``channels // reduction``; an input of
            another number of channels.

    Source: Yu et al. 2022 (STSC-SNN), Frontiers in Neuroscience 16:1079357, arXiv 2210.05241.

    >>> import torch
    >>> STSC(3)(torch.rand(4, 2, 3, 5, 5)).shape
    torch.Size([4, 2, 3, 5, 5])
    """

    causal = False

    def __init__(
        self, channels: Size, filter_size: Size = 3, gate_size: Size = 3, reduction: Size = 1
    ) -> None:
        super().__init__()
        for name, size in (("filter_size", filter_size), ("gate_size", gate_size)):
            if size < 1 or size % 2 == 0:
                raise ValueError(f"{name} is an odd number of steps, got {size}")
        hidden = channels // reduction
        if hidden < 1:
            raise ValueError(f"reduction={reduction} leaves nothing of {channels} channels")
        self.channels = channels
        self.filter = nn.Conv2d(
            channels, channels, (filter_size, 1), padding="same", groups=channels, bias=False
        )
        self.receive = nn.Conv1d(channels, hidden, gate_size, padding="same")
        self.inhibit = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, C, ...]`` to real values of the same shape."""
        check_sequence(self, x, self.channels)
        y = flat(x)
        filtered = self.filter(y.permute(1, 2, 0, 3)).permute(2, 0, 1, 3)
        received = self.receive(y.mean(3).permute(1, 2, 0)).relu()
        inhibition = self.inhibit(received.permute(2, 0, 1)).sigmoid()
        return (filtered * (1.0 - inhibition).unsqueeze(-1)).view_as(x)  # type: ignore[no-any-return]
