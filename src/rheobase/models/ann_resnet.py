"""Ordinary ResNets for CIFAR-10, to be converted: the ANN side of conversion experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.models._ann import AnnConfig, of_frames
from rheobase.models.registry import Family

__all__ = [
    "FAMILY",
    "PRESETS",
    "CifarResNet",
    "CifarResNetConfig",
    "TrainedResNet",
    "cifar_resnet20",
    "cifar_resnet20_clamp_quant",
    "cifar_resnet20_qcfs",
    "cifar_resnet20_quant_relu",
    "normalised",
    "official_weights",
]


class _Shortcut(nn.Module):
    """Every second pixel, with zeros for the channels that come in (option A)."""

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.before = missing // 2
        self.after = missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C + missing, H / 2, W / 2]``."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class _Block(nn.Module):
    """Two convolutions with batch norm, and the shortcut added before the last activation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = activation()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 else _Shortcut(outputs - inputs)
        self.relu2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.shortcut(x)
        out: Tensor = self.relu2(y)
        return out


class CifarResNet(nn.Module):
    """The ResNet of 6 n + 2 layers for 32 x 32 images.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2.

    Args:
        blocks: n, blocks in each of the three stages (3 is ResNet-20).
        classes: how many.
        activation: makes each activation; `rheobase.layers.QCFS` and others make the network
            easier to convert.

    >>> CifarResNet(1)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, blocks: int = 3, classes: int = 10, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = activation()
        self.layer1 = _stage(16, 16, blocks, 1, activation)
        self.layer2 = _stage(16, 32, blocks, 2, activation)
        self.layer3 = _stage(32, 64, blocks, 2, activation)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to ``[N, classes]``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        y: Tensor = self.linear(x.mean((2, 3)))
        return y


def _stage(
    inputs: int, outputs: int, blocks: int, stride: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    first = _Block(inputs, outputs, stride, activation)
    rest = [_Block(outputs, outputs, 1, activation) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


@dataclass(frozen=True)
class CifarResNetConfig(AnnConfig):
    """A `CifarResNet` as the training loop builds it.

    Attributes:
        blocks: in each of the three stages (3 is ResNet-20).
    """

    blocks: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != 3:
            raise ValueError(f"the network takes images of 3 channels, not {self.channels}")


class TrainedResNet(CifarResNet):
    """`CifarResNet` with an axis of one time step, as everything that trains here has one.

    Its weights are those of a `CifarResNet`, which is what gets converted.

    >>> TrainedResNet(CifarResNetConfig(blocks=1))(torch.rand(2, 3, 32, 32)).shape
    torch.Size([1, 2, 10])
    """

    T = 1

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__(config.blocks, config.num_classes, config.make_activation)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``[N, 3, H, W]`` as ``[1, N, classes]``; of frames, each by itself."""
        return of_frames(super().forward, x, channels=3)


PRESETS = {
    "ann_resnet20_cifar10": CifarResNetConfig(),
    "ann_resnet20_qcfs_cifar10": CifarResNetConfig(activation="qcfs", levels=8),
    "ann_resnet20_quant_relu_cifar10": CifarResNetConfig(activation="quant_relu", levels=3),
    "ann_resnet20_clamp_quant_cifar10": CifarResNetConfig(
        activation="clamp_quant", levels=16, threshold=2.0
    ),
}

FAMILY = Family("ann_resnet", network=TrainedResNet, presets=PRESETS)


def _plain(preset: str) -> CifarResNet:
    config = PRESETS[preset]
    return CifarResNet(config.blocks, config.num_classes, config.make_activation)


def cifar_resnet20() -> CifarResNet:
    """ResNet-20 with ReLU."""
    return _plain("ann_resnet20_cifar10")


def cifar_resnet20_qcfs() -> CifarResNet:
    """ResNet-20 with QCFS of 8 levels."""
    return _plain("ann_resnet20_qcfs_cifar10")


def cifar_resnet20_quant_relu() -> CifarResNet:
    """ResNet-20 with activations of 2 bits: 3 levels above 0."""
    return _plain("ann_resnet20_quant_relu_cifar10")


def cifar_resnet20_clamp_quant() -> CifarResNet:
    """ResNet-20 with activations clamped and rounded down to 16 levels."""
    return _plain("ann_resnet20_clamp_quant_cifar10")


def official_weights(checkpoint: Mapping[str, object]) -> dict[str, Tensor]:
    """The state dict of a checkpoint of github.com/akamaster/pytorch_resnet_cifar10.

    Raises:
        ValueError: the checkpoint has no ``state_dict`` of tensors.
    """
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, Mapping):
        raise ValueError(
            f"expected a checkpoint with a 'state_dict', got keys {sorted(checkpoint)[:5]}"
        )
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


def normalised(images: Tensor) -> Tensor:
    """Pixels in [0, 1] with ImageNet's mean and deviation taken out, as these weights expect."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (images - mean.to(images)) / deviation.to(images)
