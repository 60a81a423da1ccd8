"""A Spikformer whose attention is something else: what several reconstructions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from torch import Tensor, nn

from rheobase.layers import SpikingMlp, sew_join
from rheobase.models._inputs import as_sequence
from rheobase.models.registry import MakeNeuron
from rheobase.models.spikformer import PRESETS, SpikformerConfig, Stem, initialise

__all__ = ["MixingSpikformer", "like"]

AnyConfig = TypeVar("AnyConfig", bound=SpikformerConfig)


def like(config: type[AnyConfig], spikformer: str, **changes: Any) -> AnyConfig:
    """A config with the sizes of a Spikformer that is published, and changes."""
    sizes = {f.name: getattr(PRESETS[spikformer], f.name) for f in fields(SpikformerConfig)}
    return config(**(sizes | changes))


class MixingBlock(nn.Module):
    """A mixer of tokens, then MLP, each added to a stream of small integers."""

    def __init__(self, mixer: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to the same shape."""
        x = sew_join(self.mixer(x), x, "ADD")
        return sew_join(self.mlp(x), x, "ADD")


class MixingSpikformer(nn.Module):
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
        super().__init__()
        self.config = config
        self.T = config.T
        self.stem = Stem(config, make_neuron)
        hidden = int(config.dim * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            MixingBlock(make_mixer(), SpikingMlp(config.dim, hidden, make_neuron))
            for _ in range(config.depth)
        )
        self.head = nn.Linear(config.dim, config.num_classes)
        initialise(self, config)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over T is the output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or image size, or an empty input.
        """
        config = self.config
        x = as_sequence(x, steps=self.T, channels=config.channels, divisor=config.patch_size)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits
