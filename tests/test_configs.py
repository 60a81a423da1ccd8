"""Every recipe in `configs/` describes a run that can be built; the small ones train a step."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from rheobase.experiments.pairs import PAIRS, recipe_of
from rheobase.models import create_model
from rheobase.train import load_config
from rheobase.train.config import TeacherConfig
from rheobase.train.losses import build_objective
from rheobase.train.optim import build_optimizer

FOLDER = Path(__file__).parents[1] / "configs"
RECIPES = sorted(FOLDER.glob("*.yaml"))
SMALL = [path for path in RECIPES if path.stem.endswith("_small")]

# Table II of S1: each row has its recipe.
TABLE_II = {
    "cifar10": "plif_net bntt_vgg9 tdbn_resnet19 diet_snn_vgg16 dspike_resnet18 tet_resnet19 "
    "im_loss_resnet19 tebn_resnet19 spiking_densenet102 glif_resnet19 recdis_resnet19 "
    "lsg_resnet19 mpbn_resnet19 kdsnn_resnet18 im_lif_resnet19 local_zo_resnet19",
    "imagenet": "tdbn_resnet50 diet_snn_vgg16 tet_resnet34 im_loss_vgg16 tebn_resnet34 "
    "glif_resnet34 glif_ms_resnet34 recdis_resnet34 mpbn_resnet34 att_ms_resnet34",
    "cifar10dvs": "plif_net bntt_vgg9 tdbn_resnet19 dspike_resnet18 ta_snn tet_vggsnn "
    "im_loss_resnet19 tebn_vggsnn stsc_vggsnn ltmd_densenet glif_wide_7b_net recdis_resnet19 "
    "lsg_resnet19 mpbn_resnet19 im_lif_vggsnn local_zo_vggsnn",
}


def built(cfg, device="cpu"):
    with torch.device(device):
        return create_model(cfg.model.name, **cfg.model.overrides)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_builds(path):
    cfg = load_config(path)
    build_optimizer(built(cfg, "meta"), cfg.optim)
    build_objective(dataclasses.replace(cfg.loss, teacher=TeacherConfig()))
    assert cfg.run == f"runs/{path.stem}"
    comment = path.read_text().split("\nrun:")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert f"train configs/{path.name}" in comment


def test_every_row_of_table_ii_has_its_recipe():
    for data, names in TABLE_II.items():
        for name in names.split():
            path = FOLDER / f"{name}_{data}.yaml"
            cfg, text = load_config(path), path.read_text()
            assert cfg.data.name == data
            # No figure without saying where it was reported.
            assert re.search(r"Reported\s+(#\s+)?(there|in)", text), path.name


@pytest.mark.long  # one kernel or more each
@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_small_recipe_learns_from_a_batch(path):
    cfg = load_config(path)
    net = built(cfg)
    objective = build_objective(dataclasses.replace(cfg.loss, teacher=TeacherConfig()))
    side = net.config.image_size
    images, labels = torch.rand(4, net.config.channels, side, side), torch.tensor([0, 3, 7, 9])
    loss = objective(net, net, images, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("data", ["cifar10", "imagenet"])
def test_networks_without_norms_start_alive(data):
    """Where a layer never fires, nothing before it or behind it is learnt."""
    torch.manual_seed(0)
    cfg = load_config(FOLDER / f"diet_snn_vgg16_{data}.yaml")
    net = create_model(cfg.model.name, **cfg.model.overrides, hidden=(256, 256)).eval()
    images = torch.randn(1, 3, 32, 32)  # as normalised ones
    net(images).square().sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters() if p.dim() > 1)


@pytest.mark.parametrize("method", PAIRS)
def test_a_pair_differs_in_its_baseline_alone(method):
    pair, recipe = PAIRS[method], FOLDER / recipe_of(method)
    ours, theirs = load_config(recipe), load_config(recipe, pair.baseline)
    assert ours != theirs
    built(theirs, "meta")
    assert (ours.data, ours.optim, ours.epochs) == (theirs.data, theirs.optim, theirs.epochs)
    assert f"rheobase compare {method}" in recipe.read_text()
    if pair.teacher is not None:
        assert load_config(FOLDER / f"{pair.teacher}.yaml").run == ours.loss.teacher.run
