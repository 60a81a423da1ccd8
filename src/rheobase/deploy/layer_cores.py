"""Chips whose cores each compute one convolution: DYNAP-CNN and Speck.

A linear layer is a convolution with a window of one. Memories are counted in words; the rules are
those of sinabs (`DynapcnnNetwork`), which finds cores for layers as a maximum flow does: here by
augmenting paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SPECK", "ConvLayer", "LayerCores", "LayerMapping", "map_layers"]

_KI = 1024


@dataclass(frozen=True)
class ConvLayer:
    """A convolution with neurons, and pooling behind them.

    Attributes:
        inputs: channels in.
        outputs: channels out.
        kernel: height and width of the window.
        size: height and width of the input.
        stride: of the window.
        padding: zeros around the input.

    >>> layer = ConvLayer(2, 8, (3, 3), (64, 64), stride=2, padding=1)
    >>> layer.output, layer.kernel_words, layer.neuron_words, layer.bias_words
    ((32, 32), 256, 8192, 8)
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    size: tuple[int, int]
    stride: int = 1
    padding: int = 0

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the output, before pooling."""
        height, width = (
            (size + 2 * self.padding - k) // self.stride + 1
            for size, k in zip(self.size, self.kernel, strict=True)
        )
        return height, width

    @property
    def kernel_words(self) -> int:
        """c 2^(ceil(log2(kx ky)) + ceil(log2 f))."""
        return self.inputs * _power(math.prod(self.kernel)) * _power(self.outputs)

    @property
    def neuron_words(self) -> int:
        """f 2^(ceil(log2 fy) + ceil(log2 fx))."""
        return self.outputs * math.prod(map(_power, self.output))

    @property
    def bias_words(self) -> int:
        """One for each channel."""
        return self.outputs


def _power(value: int) -> int:
    """The least power of two that is not smaller."""
    return int(1 << (value - 1).bit_length())


@dataclass(frozen=True)
class LayerCores:
    """Memories of the cores, in units of 1024 words, one number a core."""

    name: str
    kernel: tuple[int, ...]
    neuron: tuple[int, ...]
    bias: tuple[int, ...]

    def candidates(self, layer: ConvLayer) -> list[int]:
        """Cores that a layer fits into."""
        limits = enumerate(zip(self.kernel, self.neuron, self.bias, strict=True))
        return [
            core
            for core, (kernel, neuron, bias) in limits
            if layer.kernel_words <= kernel * _KI
            and layer.neuron_words <= neuron * _KI
            and layer.bias_words <= bias * _KI
        ]


SPECK = LayerCores(
    "SynSense Speck 2 / DYNAP-CNN",
    kernel=(16, 16, 16, 32, 32, 64, 64, 16, 16),
    neuron=(64, 64, 64, 32, 32, 16, 16, 16, 16),
    bias=(1024,) * 9,
)


@dataclass(frozen=True)
class LayerMapping:
    """Layers on cores.

    Attributes:
        candidates: of each layer, the cores that it fits into.
        cores: layer -> core, of as many layers as possible.
    """

    candidates: tuple[tuple[int, ...], ...]
    cores: dict[int, int]

    @property
    def feasible(self) -> bool:
        """Whether every layer has a core."""
        return len(self.cores) == len(self.candidates)


def map_layers(layers: Sequence[ConvLayer], chip: LayerCores = SPECK) -> LayerMapping:
    """Give each layer a core of its own, where that can be.

    A core goes from one layer to another as long as the first finds a different one: so as many
    layers as possible have a core (Kuhn's augmenting paths).

    >>> wide = ConvLayer(2, 16, (3, 3), (64, 64), padding=1)  # 64 Ki neurons, as three cores have
    >>> map_layers([wide] * 3).feasible, map_layers([wide] * 4).feasible
    (True, False)
    """
    candidates = tuple(tuple(chip.candidates(layer)) for layer in layers)
    layer_of: dict[int, int] = {}

    def find(layer: int, tried: set[int]) -> bool:
        for core in candidates[layer]:
            if core in tried:
                continue
            tried.add(core)
            if core not in layer_of or find(layer_of[core], tried):
                layer_of[core] = layer
                return True
        return False

    for layer in range(len(layers)):
        find(layer, set())
    return LayerMapping(candidates, dict(sorted((layer, core) for core, layer in layer_of.items())))
