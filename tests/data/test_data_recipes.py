"""Recipes on files of the user's run as they stand, but for sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_toys import recording, write_aedat2
from PIL import Image
from torch.nn import functional as F

from rheobase.data import CIFAR10, Sequences
from rheobase.models import create_model
from rheobase.train import Trainer, load_config, train
from rheobase.train.losses import Distillation

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


def test_both_steps_of_meta_spikeformer_run_with_a_teacher(imagenet: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"name": "spikformer_ann_8_384", "num_classes": 2, "dim": 32, "heads": 2, "depth": 1}
    teacher = create_model(**options, image_size=64)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    small = [
        "precision=fp32", "data.workers=0", "schedule.warmup_epochs=0", "log.progress=never",
        "model.overrides.widths=[8, 16, 32, 40]", "model.overrides.image_size=64",
        "model.overrides.num_classes=2", "augment.resized_crop=64", "data.options.size=64",
        "data.batch_size=4", f"data.root={imagenet}", "epochs=1",
        "model.overrides.neuron_kwargs={v_threshold: 0.25}",  # or so small a network is silent
    ]  # fmt: skip
    recipe = "spike_driven_transformer_v2_8_512"
    first = train(load_config(CONFIGS / f"{recipe}.yaml", [*small, f"run={tmp_path}/first"]))
    assert first.steps == 2
    cfg = load_config(
        CONFIGS / f"{recipe}_t4.yaml",
        [
            *small, f"run={tmp_path}/second", f"model.weights={tmp_path}/first",
            "loss.teacher.module=rheobase.models:create_model",
            f"loss.teacher.options={json.dumps(options | {'image_size': 64})}",
            f"loss.teacher.weights={tmp_path}/teacher.pth",
        ],
    )  # fmt: skip
    trainer = Trainer(cfg)
    term = trainer.objective.terms[0]
    assert isinstance(term, Distillation)
    torch.testing.assert_close(dict(term.teacher.state_dict()), dict(teacher.state_dict()))
    net = trainer.model
    torch.testing.assert_close(
        net.state_dict()["head.weight"], first.model.state_dict()["head.weight"]
    )
    before = {name: p.clone() for name, p in net.named_parameters()}
    # The objective is the published one: labels for one head, the teacher's classes for the other.
    x, y = torch.rand(3, 3, 64, 64), torch.tensor([0, 1, 1])
    net.eval()
    ours, theirs = (z.mean(0) for z in net.heads(x))
    smooth = cfg.loss.label_smoothing
    expected = F.cross_entropy(ours, y, label_smoothing=smooth)
    expected = expected + F.cross_entropy(theirs, teacher.eval()(x).mean(0).argmax(-1))
    torch.testing.assert_close(trainer.objective(net, net, x, y), expected)
    for _ in trainer.events():
        pass
    trainer.close()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert {"head.weight", "head_kd.weight"} <= moved
    assert trainer.at.step == 2


def test_frames_and_events_train_sstformer(tmp_path: Path) -> None:
    """Its test accuracy says nothing: so few steps leave running statistics unsettled."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(("above", "below")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                clip = rng.normal(0, 0.1, (8, 5, 64, 64)).astype(np.float32)
                clip[:, 3:, 32 * label : 32 * label + 32] += 1
                np.save(tmp_path / split / name / f"{i}.npy", clip)
    sizes = {"dim": 16, "heads": 2, "widths": [4, 8, 8, 8], "channels": 5, "image_size": 64,
             "num_classes": 2, "T": 8}  # fmt: skip
    options = [
        "epochs=6", "precision=fp32", "data.workers=0", "log.progress=never",
        "schedule.warmup_epochs=0", f"model.overrides={json.dumps(sizes)}",
        f"data.root={tmp_path}", f"run={tmp_path}/run",
    ]  # fmt: skip
    result = train(load_config(CONFIGS / "sstformer_poker.yaml", options))
    losses = [epoch["train_loss"] for epoch in result.epochs]
    assert result.steps == 24
    assert losses[-1] < 0.7 * losses[0]


def test_sequences_name_what_they_want(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no .*train; root: a folder with train/ and test/"
    ):
        Sequences(tmp_path)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no \.npy files"):
        Sequences(tmp_path)
    np.save(tmp_path / "train" / "a" / "0.npy", np.zeros((3, 4)))
    assert Sequences(tmp_path).classes == ("a",)
    with pytest.raises(ValueError, match=r"shape \[3, 4\]; expected \[T, C, H, W\]"):
        Sequences(tmp_path)[0]
