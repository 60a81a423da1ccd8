"""A Spikformer whose attention is something else: what several reconstructions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor, nn

from rheobase.layers import SpikingBlock, SpikingMlp
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import MakeNeuron
from rheobase.models.spikformer import PRESETS, SpikformerConfig, Stem, initialise

__all__ = ["MixingSpikformer", "like"]

AnyConfig = TypeVar("AnyConfig", bound=SpikformerConfig)


def like(config: type[AnyConfig], spikformer: str, **changes: Any) -> AnyConfig:
    """A config with the sizes of a Spikformer that is published, and changes."""
    sizes = {f.name: getattr(PRESETS[spikformer], f.name) for f in fields(SpikformerConfig)}
    return config(**(sizes | changes))


class MixingSpikformer(VisionNetwork):
    """Stem, MLPs and head of Spikformer around mixers of tokens.

    Args:
        config: sizes.
        make_neuron: makes each neuron.
        make_mixer: makes a block's mixer: ``[T, N, C, H, W]`` to spikes of the same shape.
    """

    def __init__(
        self,
        config: SpikformerConfig,
        make_neuron: MakeNeuron,
        make_mixer: Callable[[], nn.Module],
    ) -> None:
        super().__init__(config, config.patch_size)
        self.stem = Stem(config, make_neuron)
        hidden = int(config.dim * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            SpikingBlock(make_mixer(), SpikingMlp(config.dim, hidden, make_neuron))
            for _ in range(config.depth)
        )
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise(self, config)

    def logits(self, x: Tensor) -> Tensor:
        """See `VisionNetwork.logits`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits
