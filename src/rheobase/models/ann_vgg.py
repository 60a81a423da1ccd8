"""Ordinary VGGs for small images, to be converted: the ANN side of conversion experiments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rheobase.models._ann import AnnConfig, of_frames
from rheobase.models.registry import Family

__all__ = [
    "FAMILY",
    "PRESETS",
    "CifarVGG",
    "CifarVGGConfig",
    "TrainedVGG",
    "cifar_vgg8",
    "cifar_vgg8_plain",
    "cifar_vgg8_qcfs",
    "mnist_vgg8",
]


class CifarVGG(nn.Module):
    """Pairs of 3 x 3 convolutions with batch norm, each pair before a pooling; two linear layers.

    Source: Simonyan & Zisserman 2015, arXiv 1409.1556, narrow and with batch norm, for images of 32
    x 32 and the like.

    Args:
        widths: channels of each pair.
        hidden: width of the linear layer before the last.
        classes: how many.
        activation: makes each activation.
        plain: without batch norm and biases, with average pooling: what conversions from Cao et
            al. 2015 to Rathi et al. 2020 ask of a network.
        channels: of the images.
        image_size: their side, at least 8.

    >>> import torch
    >>> CifarVGG((4, 8, 8), 16)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (32, 64, 128),
        hidden: int = 256,
        classes: int = 10,
        activation: Callable[[], nn.Module] = nn.ReLU,
        plain: bool = False,
        channels: int = 3,
        image_size: int = 32,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for width in widths:
            for size in (inputs, width):
                layers.append(nn.Conv2d(size, width, 3, padding=1, bias=False))
                layers += [] if plain else [nn.BatchNorm2d(width)]
                layers.append(activation())
            layers.append(nn.AvgPool2d(2) if plain else nn.MaxPool2d(2))
            inputs = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear((image_size // 8) ** 2 * inputs, hidden, bias=not plain),
            activation(),
            nn.Linear(hidden, classes, bias=not plain),
        )
        if plain:  # no batch norm brings the layers to one scale
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, side, side]`` to ``[N, classes]``."""
        y: Tensor = self.classifier(self.features(x).flatten(1))
        return y


@dataclass(frozen=True)
class CifarVGGConfig(AnnConfig):
    """A `CifarVGG` as the training loop builds it.

    Attributes:
        widths: channels of each pair of convolutions.
        hidden: width of the linear layer before the last.
        plain: without batch norm and biases, with average pooling.
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    hidden: int = 256
    plain: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 8:
            raise ValueError(f"three poolings ask for a side of at least 8, not {self.image_size}")


class TrainedVGG(CifarVGG):
    """`CifarVGG` with an axis of one time step; its weights are those of a `CifarVGG`.

    >>> import torch
    >>> TrainedVGG(CifarVGGConfig(widths=(4, 8, 8)))(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    T = 1

    def __init__(self, config: CifarVGGConfig) -> None:
        super().__init__(*_sizes(config))
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``[N, C, H, W]`` as ``[1, N, classes]``; of frames, each by itself."""
        return of_frames(super().forward, x, self.config.channels)


def _sizes(config: CifarVGGConfig) -> tuple[Any, ...]:
    """What `CifarVGG` takes."""
    return (
        config.widths, config.hidden, config.num_classes, config.make_activation, config.plain,
        config.channels, config.image_size,
    )  # fmt: skip


PRESETS = {
    "ann_vgg8_cifar10": CifarVGGConfig(),
    "ann_vgg8_qcfs_cifar10": CifarVGGConfig(activation="qcfs", levels=8),
    "ann_vgg8_plain_cifar10": CifarVGGConfig(plain=True),
    "ann_vgg8_mnist": CifarVGGConfig(widths=(8, 16, 32), hidden=128, channels=1, image_size=28),
}

FAMILY = Family("ann_vgg", network=TrainedVGG, presets=PRESETS)


def _ordinary(preset: str) -> CifarVGG:
    return CifarVGG(*_sizes(PRESETS[preset]))


def cifar_vgg8() -> CifarVGG:
    """Six convolutions and two linear layers with ReLU."""
    return _ordinary("ann_vgg8_cifar10")


def cifar_vgg8_qcfs() -> CifarVGG:
    """The same with QCFS of 8 levels."""
    return _ordinary("ann_vgg8_qcfs_cifar10")


def cifar_vgg8_plain() -> CifarVGG:
    """The same with ReLU, without batch norm and biases, with average pooling."""
    return _ordinary("ann_vgg8_plain_cifar10")


def mnist_vgg8() -> CifarVGG:
    """Six convolutions and two linear layers with ReLU, narrow, for digits of 28 x 28."""
    return _ordinary("ann_vgg8_mnist")
