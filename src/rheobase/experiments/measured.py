"""A network to be measured, and real images for it, from what a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from rheobase.data import get_dataset
from rheobase.models import create_model, list_models
from rheobase.train import TrainConfig, load_config
from rheobase.train.augment import normalize
from rheobase.train.diagnose import time_first
from rheobase.train.evaluate import load_run

__all__ = ["UNTRAINED", "first_samples", "load_measured"]

UNTRAINED = "untrained: how often its neurons fire is chance, and so is what follows from it"


def load_measured(
    source: str, settings: Sequence[str], count: int
) -> tuple[nn.Module, Tensor, bool]:
    """A network in evaluation mode, test images for it, and whether it is trained.

    Args:
        source: folder of a run or checkpoint, a model's ``.safetensors`` file, or the name of a
            registered model, whose weights are then those it starts from.
        settings: ``section.key=value`` of `rheobase.train.TrainConfig`, such as ``data.name``.
        count: test images, from the first.

    Raises:
        ValueError: fewer than one image; an unknown setting; images that the network refuses.
        FileNotFoundError: no such run, file or model.
    """
    if count < 1:
        raise ValueError(f"--images is at least 1, got {count}")
    trained = source not in list_models()
    if trained:
        if not Path(source).exists():
            raise FileNotFoundError(
                f"{source} is neither a run, nor a model's file, nor a name of `rheobase models`"
            )
        net, cfg = load_run(source, settings=settings)
    else:
        cfg = load_config(None, [f"model.name={source}", *settings])
        torch.manual_seed(cfg.seed)
        net = create_model(source, **cfg.model.overrides)
    images, _ = first_samples(cfg, count)
    return net.eval(), images, trained


def first_samples(cfg: TrainConfig, count: int, train: bool = False) -> tuple[Tensor, Tensor]:
    """Images of a recipe's data, normalised, and labels: for testing, or those for training.

    Images are ``[N, C, H, W]``, or frames with T before; as many as there are, up to ``count``.
    """
    data = get_dataset(cfg.data.name, train=train, root=cfg.data.root, **cfg.data.options)
    samples = default_collate([data[i] for i in range(min(count, len(data)))])
    images, labels = time_first(*samples)
    return normalize(images, cfg.data), labels
