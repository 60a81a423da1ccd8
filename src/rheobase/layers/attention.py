"""Spiking self-attention: queries, keys and values are spikes, and there is no softmax."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rheobase.layers.unit import ConvNormNeuron

__all__ = ["SpikingSelfAttention"]


class SpikingSelfAttention(nn.Module):
    r"""Spiking self-attention (SSA) over the pixels (tokens) of ``[T, N, C, H, W]``.

    .. math:: Q, K, V = \mathrm{SN}(\mathrm{BN}(W x)), \qquad
       \mathrm{SSA}(x) = \mathrm{SN}(\mathrm{BN}(W \, \mathrm{SN}(Q K^\top V \cdot s)))

    :math:`Q K^\top V` is made of integers, so with a scale that is a power of two it is exact, in
    whichever order it is multiplied; the cheaper order is taken. It must stay exact: with scale
    1/8, threshold 1/2 and tau 2 the membrane often lands on the threshold itself. float32 is exact
    up to counts of 2^24, float16 to 2^11, bfloat16 to 2^8 (larger counts are far above it).

    Source: Zhou et al. 2023 (Spikformer), arXiv 2209.15425, eq. 7 to 11.

    Args:
        dim: number of channels.
        heads: divides ``dim``.
        make_neuron: makes each neuron; called with ``v_threshold=0.5`` for the one after the
            product, without arguments for the others.
        scale: factor of the product.
        qkv_bias: whether the layers of Q, K and V have biases.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        make_neuron: Callable[..., nn.Module],
        *,
        scale: float = 0.125,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.q = ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias)
        self.k = ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias)
        self.v = ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias)
        self.neuron = make_neuron(v_threshold=0.5)
        self.proj = ConvNormNeuron(dim, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        q, k, v = (self._split(unit(x)) for unit in (self.q, self.k, self.v))
        d, tokens = q.shape[-2:]
        y = (v @ k.mT) @ q if d < tokens else v @ (k.mT @ q)
        spikes: Tensor = self.proj(self.neuron(y.reshape(x.shape) * self.scale))
        return spikes

    def attention(self, x: Tensor) -> Tensor:
        """The attention map of input ``x``, ``[T, N, heads, queries, keys]``: scaled counts."""
        q, k = self._split(self.q(x)), self._split(self.k(x))
        counts: Tensor = q.mT @ k
        return counts * self.scale

    def _split(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [T, N, heads, d, tokens]``."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads, -1)
