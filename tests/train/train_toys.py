"""A small network and small images, for tests that must train in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rheobase.train.config import (
    CheckpointConfig,
    DataConfig,
    LogConfig,
    OptimConfig,
    ParallelConfig,
    TrainConfig,
)

T, CLASSES = 3, 4


class Net(nn.Module):
    """Convolution, batch norm, linear; every time step sees the image a little brighter."""

    def __init__(
        self, seed: int = 0, dropout: float = 0.0, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 6, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([nn.Linear(54, 16), nn.Linear(16, 16)])
        self.head = nn.Linear(16, CLASSES)
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        bright = torch.arange(1, T + 1, dtype=images.dtype).view(T, 1, 1, 1, 1) / T
        x = torch.relu(self.norm(self.conv((images * bright).flatten(0, 1))))
        x = self.dropout(x.flatten(1))
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(x).unflatten(0, (T, -1))


def images(count: int, seed: int = 0) -> TensorDataset:
    """Noisy images of four patterns that `Net` can tell apart."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=rng)
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    noise = 0.2 * torch.randn(count, 1, 8, 8, generator=rng)
    return TensorDataset(patterns[labels] + noise, labels)


def config(run: object, **changes: object) -> TrainConfig:
    """A run of a few steps."""
    settings: dict[str, object] = {
        "run": str(run),
        "device": "cpu",
        "epochs": 2,
        "data": DataConfig(batch_size=16),
        "optim": OptimConfig(lr=0.01),
        "parallel": ParallelConfig(),
        "checkpoint": CheckpointConfig(every_steps=3),
        "log": LogConfig(progress="never"),
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]
