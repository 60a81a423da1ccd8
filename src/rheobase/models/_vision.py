"""The door of vision networks: what they take, refuse and return."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rheobase.models._inputs import as_sequence

__all__ = ["VisionNetwork"]


class VisionNetwork(nn.Module):
    """A network of images or sequences of them; a family gives its `logits`.

    Args:
        config: has ``channels`` and ``T``.
        divisor: what the sides of images must be multiples of.
    """

    def __init__(self, config: Any, divisor: int) -> None:
        super().__init__()
        self.config = config
        self.T: int = config.T
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Logits; their mean over the first axis is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``; ``[1, N, num_classes]`` of networks that see all steps at once.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or image size, or an empty input.
        """
        return self.logits(self.checked(x))

    def checked(self, x: Tensor) -> Tensor:
        """The sequence ``[T, N, C, H, W]`` that `forward` makes of what it is given, or refuses."""
        channels = self.config.channels
        return as_sequence(x, steps=self.T, channels=channels, divisor=self.divisor)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of a checked sequence ``[T, N, C, H, W]``."""
        raise NotImplementedError
