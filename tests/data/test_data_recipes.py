"""Recipes on files of the user's run as they stand, but for sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_toys import recording, write_aedat2
from PIL import Image

from rheobase.data import CIFAR10
from rheobase.train import load_config, train

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def cifar10dvs(tmp_path: Path) -> Path:
    for name in CIFAR10.info.classes:
        (tmp_path / name).mkdir()
        for i in range(10):
            write_aedat2(tmp_path / name / f"cifar10_{name}_{i}.aedat", recording(200, seed=i))
    return tmp_path


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.JPEG")
    return tmp_path


SMALL = ["epochs=1", "precision=fp32", "data.workers=0", "model.overrides.dim=32",
         "model.overrides.depth=1", "schedule.warmup_epochs=0",
         "schedule.cooldown_epochs=0", "model.overrides.heads=2", "log.progress=never"]  # fmt: skip


def test_an_event_recipe_runs(cifar10dvs: Path, tmp_path: Path) -> None:
    options = [
        *SMALL, "model.overrides.image_size=32", "model.overrides.T=3", "data.options.frames=3",
        "data.options.size=32", f"data.root={cifar10dvs}", f"run={tmp_path}/run",
    ]  # fmt: skip
    result = train(load_config(CONFIGS / "spikformer_cifar10dvs_2_256.yaml", options))
    assert result.steps == 90 // 16
    assert 0 <= result.accuracy <= 1


def test_an_imagenet_recipe_runs(imagenet: Path, tmp_path: Path) -> None:
    options = [
        *SMALL, "model.overrides.image_size=32", "model.overrides.num_classes=2",
        "augment.resized_crop=32", "data.options.size=32", "data.batch_size=4",
        f"data.root={imagenet}", f"run={tmp_path}/run",
    ]  # fmt: skip
    result = train(load_config(CONFIGS / "spikformer_8_512.yaml", options))
    assert result.steps == 2
