"""Spiking self-attention: queries, keys and values are spikes, and there is no softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rheobase._numbers import Positive, Size, numbers_checked
from rheobase.layers.residual import sew_join
from rheobase.layers.unit import ConvNormNeuron

__all__ = [
    "ChannelMaskAttention",
    "MembraneSelfAttention",
    "SpikingSelfAttention",
    "attention_product",
    "split_heads",
]


def attention_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r""":math:`Q K^\top V` of heads ``[..., d, tokens]``, in the cheaper order.

    It is made of integers where Q, K and V are, and then exact in either order: float32 up to
    counts of 2^24, float16 to 2^11, bfloat16 to 2^8.
    """
    d, tokens = q.shape[-2:]
    return (v @ k.mT) @ q if d < tokens else v @ (k.mT @ q)


def split_heads(x: Tensor, heads: Size) -> Tensor:
    """``[T, N, C, H, W] -> [T, N, heads, d, tokens]``."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads, -1)


@numbers_checked
class SpikingSelfAttention(nn.Module):
    r"""Spiking self-attention (SSA) over the pixels (tokens) of ``[T, N, C, H, W]``.

    .. math:: Q, K, V = \mathrm{SN}(\mathrm{BN}(W x)), \qquad
       \mathrm{SSA}(x) = \mathrm{SN}(\mathrm{BN}(W \, \mathrm{SN}(Q K^\top V \cdot s)))

    :math:`Q K^\top V` is made of integers, so with a scale that is a power of two it is exact. It
    must stay exact: with scale 1/8, threshold 1/2 and tau 2 the membrane often lands on the
    threshold itself (where counts are too large for float16 or bfloat16, it is far above it).

    Source: Zhou et al. 2023 (Spikformer), arXiv 2209.15425, eq. 7 to 11.

    Args:
        dim: number of channels.
        heads: divides ``dim``.
        make_neuron: makes each neuron; called with ``v_threshold=0.5`` for the one after the
            product, without arguments for the others.
        scale: factor of the product.
        qkv_bias: whether the layers of Q, K and V have biases.
        proj_bias: whether the last layer has one.
        leaks: of the last layer, see `ConvNormNeuron`.
    """

    def __init__(
        self,
        dim: Size,
        heads: Size,
        make_neuron: Callable[..., nn.Module],
        *,
        scale: Positive = 0.125,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        leaks: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.q = ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias)
        self.k = ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias)
        self.v = ConvNormNeuron(dim, dim, make_neuron(), bias=qkv_bias)
        self.neuron = make_neuron(v_threshold=0.5)
        self.proj = ConvNormNeuron(dim, dim, make_neuron(), bias=proj_bias, leaks=leaks)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        return self.attend(x, x)

    def attend(self, x: Tensor, other: Tensor) -> Tensor:
        """Spikes of the shape of ``x``, ``[T, N, C, H, W]``, of which queries are made.

        ``other``, ``[T, N, C, H', W']``, is what keys and values are made of: cross-attention.
        """
        q = split_heads(self.q(x), self.heads)
        k, v = (split_heads(unit(other), self.heads) for unit in (self.k, self.v))
        y = attention_product(q, k, v).reshape(x.shape) * self.scale
        spikes: Tensor = self.proj(self.neuron(y))
        return spikes

    def attention(self, x: Tensor) -> Tensor:
        """The attention map of input ``x``, ``[T, N, heads, queries, keys]``: scaled counts."""
        q, k = split_heads(self.q(x), self.heads), split_heads(self.k(x), self.heads)
        counts: Tensor = q.mT @ k
        return counts * self.scale


@numbers_checked
class MembraneSelfAttention(nn.Module):
    r"""Spiking self-attention that takes and gives membranes, put together of its parts.

    .. math:: s = \mathrm{SN}(x), \qquad y = W \, \mathrm{SN}(Q(s) K(s)^\top V(s) \cdot c)

    Spikingformer's attention (there Q, K and V are 1x1 convolution, batch norm and neuron), and
    SDSA-3 of the Meta-SpikeFormer (there they are re-parameterised convolutions). SDSA-4 learns the
    threshold of the neuron behind the product. Learning the scale instead is the same where a
    membrane starts at 0 and is reset to 0, for only scale over threshold counts there.

    Source: Zhou et al. 2023 (Spikingformer), arXiv 2304.11954; Yao et al. 2024, arXiv 2404.03663.
    SDSA-4 is in no released code; it is a reconstruction, and that the threshold is one number for
    a layer is uncertain.

    Args:
        heads: divides the channels of Q, K and V.
        input: the neuron of the input.
        q: spikes ``[T, N, C, H, W]`` to the spikes of Q, of the same shape.
        k: the same for K.
        v: the same for V, which may have more channels.
        neuron: the neuron behind the product.
        proj: from the channels of V back to those of the input, membranes.
        scale: factor c of the product.
        learn_scale: whether c is a parameter that starts at ``scale`` (SDSA-4).
    """

    def __init__(
        self,
        heads: Size,
        *,
        input: nn.Module,
        q: nn.Module,
        k: nn.Module,
        v: nn.Module,
        neuron: nn.Module,
        proj: nn.Module,
        scale: Positive = 0.125,
        learn_scale: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = nn.Parameter(torch.full((1,), scale)) if learn_scale else scale
        self.input = input
        self.q, self.k, self.v = q, k, v
        self.neuron = neuron
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        spikes = self.input(x)
        q, k, v = (split_heads(unit(spikes), self.heads) for unit in (self.q, self.k, self.v))
        y = attention_product(q, k, v) * self.scale
        membrane: Tensor = self.proj(self.neuron(y.reshape(*x.shape[:2], -1, *x.shape[3:])))
        return membrane


class ChannelMaskAttention(nn.Module):
    r"""Attention without a product of matrices: keys and values decide which channels of Q pass.

    .. math:: s = \mathrm{SN}(x), \qquad
       y = W \, \Big(Q(s) \otimes \mathrm{SN}\Big(\sum_{tokens} K(s) \otimes V(s)\Big)\Big)

    SDSA-1, the attention of the Spike-driven Transformer. Without V, the sum over K alone decides:
    SDSA-2 of the Meta-SpikeFormer.

    Source: Yao et al. 2023, arXiv 2307.01694; Yao et al. 2024, arXiv 2404.03663. SDSA-2 is in no
    released code; it is a reconstruction. The paper's table was not at hand; the 28.6 M parameters
    remembered of it are those of a network without V.

    Args:
        input: the neuron of the input.
        q: spikes ``[T, N, C, H, W]`` to the spikes of Q, of the same shape.
        k: the same for K.
        v: the same for V; None for SDSA-2.
        mask: the neuron behind the sum, of ``[T, N, C, 1, 1]``.
        proj: spikes to membranes, both ``[T, N, C, H, W]``.

    >>> from rheobase.layers import RepConv
    >>> from rheobase.neurons import LIF
    >>> sdsa2 = ChannelMaskAttention(
    ...     input=LIF(), q=RepConv(8, LIF()), k=RepConv(8, LIF()), v=None,
    ...     mask=LIF(v_threshold=0.5), proj=RepConv(8, nn.Identity()),
    ... )
    >>> sdsa2(torch.rand(4, 2, 8, 6, 6)).shape
    torch.Size([4, 2, 8, 6, 6])
    """

    def __init__(
        self,
        *,
        input: nn.Module,
        q: nn.Module,
        k: nn.Module,
        v: nn.Module | None,
        mask: nn.Module,
        proj: nn.Module,
    ) -> None:
        super().__init__()
        self.input = input
        self.q, self.k, self.v = q, k, v
        self.mask = mask
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        spikes = self.input(x)
        mask = self.mask(self.summed(spikes).sum((-2, -1), keepdim=True))
        membrane: Tensor = self.proj(self.join(mask, self.q(spikes)))
        return membrane

    def summed(self, spikes: Tensor) -> Tensor:
        """What is summed over the tokens: K, where there is a V only where it spikes too."""
        k: Tensor = self.k(spikes)
        return k if self.v is None else self.join(k, self.v(spikes))

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Spikes where both spike."""
        return sew_join(a, b, "AND")
