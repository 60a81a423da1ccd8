"""Ordinary ResNets for CIFAR-10, to be converted: the ANN side of conversion experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CifarResNet", "cifar_resnet20", "normalised", "official_weights"]


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


def cifar_resnet20() -> CifarResNet:
    """ResNet-20 with ReLU."""
    return CifarResNet(3)


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
