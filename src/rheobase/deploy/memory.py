"""Memory of a core for the synapses of a tile of neurons."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import product

from rheobase.deploy.chips import Synapses
from rheobase.measure import Connections

__all__ = ["axon_bits", "inputs_of_tile", "tile_bits"]

_BLOCK = 64  # synapses that one header counts at most
_HEADER = 4 + 6  # bits: compression and number of synapses
_INDEX_BITS = (0, 6, 7, 8, 9, 10, 11, 12)


def axon_bits(targets: int, weight_bits: int, index_bits: int = 0) -> int:
    """Bits that one input of a Loihi core takes that reaches so many neurons of it.

    Blocks of up to 64 synapses, each with a header, in words of 64 bits. All neurons in order need
    no index.

    Source: nengo-loihi, block.py.

    >>> axon_bits(1024, 8)
    9216
    """
    whole, rest = divmod(targets, _BLOCK)
    each = weight_bits + index_bits
    words = whole * math.ceil((_BLOCK * each + _HEADER) / 64)
    if rest:
        words += math.ceil((rest * each + _HEADER) / 64)
    return 64 * words


def inputs_of_tile(links: Connections, tile: tuple[int, ...]) -> int:
    """Different inputs that the neurons of a tile ``(channels, *positions)`` have, at most."""
    channels = _source_channels(links, tile[0])
    return channels * math.prod(
        len(_reach(t, k, s, size)) if s else size
        for t, k, s, size in zip(
            tile[1:], links.kernel, links.stride, links.inputs[1:], strict=True
        )
    )


def tile_bits(links: Connections, tile: tuple[int, ...], synapses: Synapses) -> int:
    """Bits of the synapses of a tile's neurons, of which no input comes from outside the source.

    A crossbar has a place for each pair already; it takes none here.
    """
    if synapses.kept == "crossbar":
        return 0
    if synapses.kept == "shared":
        weights = math.prod(links.kernel) * (links.inputs[0] // links.groups) * tile[0]
        own = math.prod(tile[1:]) if 0 in links.stride else 1  # weights of each position
        return synapses.weight_bits * weights * own
    per_group = min(tile[0], links.outputs[0] // links.groups)
    neurons = math.prod(tile)
    axes = [
        Counter(_reach(t, k, s, size)) if s else Counter({t: size})
        for t, k, s, size in zip(
            tile[1:], links.kernel, links.stride, links.inputs[1:], strict=True
        )
    ]
    total = 0
    for combination in product(*(axis.items() for axis in axes)):
        targets = per_group * math.prod(reach for reach, _ in combination)
        count = math.prod(count for _, count in combination)
        if synapses.kept == "lists":
            total += count * targets * synapses.word_bits
        else:
            index = 0 if targets == neurons else _index_bits(neurons)
            total += count * axon_bits(targets, synapses.weight_bits, index)
    return total * _source_channels(links, tile[0])


def _source_channels(links: Connections, channels: int) -> int:
    per_group = max(1, links.outputs[0] // links.groups)
    return math.ceil(channels / per_group) * (links.inputs[0] // links.groups)


def _index_bits(neurons: int) -> int:
    return next((bits for bits in _INDEX_BITS if 2**bits >= neurons), _INDEX_BITS[-1])


@cache
def _reach(tile: int, kernel: int, stride: int, size: int) -> tuple[int, ...]:
    """How many of a tile's positions along an axis see each input, at most ``size`` of them."""
    seen = Counter(o * stride + k for o in range(tile) for k in range(kernel))
    return tuple(sorted(seen.values(), reverse=True)[:size])
