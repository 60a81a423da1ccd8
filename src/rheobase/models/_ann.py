"""What ordinary networks that are trained to be converted have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from rheobase.layers import QCFS, ClampQuant, QuantReLU
from rheobase.models._inputs import as_sequence

__all__ = ["AnnConfig", "of_frames"]


@dataclass(frozen=True)
class AnnConfig:
    """A network for images with activations that convert.

    Attributes:
        activation: ReLU, or one that is bounded and quantised as a converted neuron is.
        levels: of a quantised activation above 0: L of QCFS and `ClampQuant`, 2^b - 1 of b bits
            (`QuantReLU`).
        threshold: bound of a quantised activation; trained, but that of `ClampQuant`.
        num_classes: how many.
        channels: of the images.
        image_size: their side.
    """

    activation: Literal["relu", "qcfs", "quant_relu", "clamp_quant"] = "relu"
    levels: int = 8
    threshold: float = 8.0
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32

    def __post_init__(self) -> None:
        if self.activation == "quant_relu" and (self.levels + 1) & self.levels:
            raise ValueError(f"b bits have 1, 3, 7, ... levels above 0, not {self.levels}")

    def make_activation(self) -> nn.Module:
        """One of them."""
        if self.activation == "qcfs":
            return QCFS(self.levels, self.threshold)
        if self.activation == "quant_relu":
            return QuantReLU(self.levels.bit_length(), self.threshold)
        if self.activation == "clamp_quant":
            return ClampQuant(self.levels, self.threshold)
        return nn.ReLU()


def of_frames(network: Callable[[Tensor], Tensor], x: Tensor, channels: int) -> Tensor:
    """Logits of images ``[N, channels, H, W]`` as ``[1, N, classes]``; of frames, each by itself.

    What trains here has an axis of time steps: an ordinary network has one step.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: wrong rank or channels, or an empty input.
    """
    x = as_sequence(x, steps=1, channels=channels)
    logits = network(x.flatten(0, 1))
    return logits.unflatten(0, x.shape[:2])  # type: ignore[no-untyped-call,no-any-return]
