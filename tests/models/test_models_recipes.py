"""The recipes of the zoo: each fits its model and its data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rheobase.data import list_datasets
from rheobase.models import create_model, model_family
from rheobase.train import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = {path.stem: load_config(path) for path in sorted(CONFIGS.glob("*.yaml"))}
DATA = {info.name: info for info in list_datasets()}

# Families of the surveys' tables, and those closest to them. SSTFormer takes two inputs, of data
# that are not here.
FAMILIES = {
    "spikformer", "spikformer_v2", "spike_driven_transformer", "spike_driven_transformer_v2",
    "spike_driven_transformer_v3", "spikingformer", "qkformer", "spiking_resformer", "sglformer",
    "tim", "max_former", "swformer", "ost", "revs_resnet", "revsformer", "spikeformer_ct",
    "autost", "sts_transformer", "spikformer_lt", "spiking_vit_dts", "dista", "mast",
    "te_spikformer",
}  # fmt: skip


def test_every_family_has_a_recipe():
    assert {model_family(cfg.model.name) for cfg in RECIPES.values()} >= FAMILIES


@pytest.mark.parametrize("name", RECIPES)
def test_model_and_data_of_a_recipe_fit(name):
    cfg, data = RECIPES[name], DATA[RECIPES[name].data.name]
    with torch.device("meta"):
        net = create_model(cfg.model.name, **cfg.model.overrides)
    classes = 1000 if data.name == "imagenet" else len(data.classes)
    assert (net.config.channels, net.config.num_classes) == (data.shape[0], classes)
    side = cfg.data.options.get("size", data.shape[1])
    assert net.config.image_size == cfg.augment.resized_crop or net.config.image_size == side
    assert len(cfg.data.mean) in (0, data.shape[0])
    assert cfg.data.options.get("frames", net.T) == net.T
    if data.name == "imagenet":
        assert cfg.augment.resized_crop == side, "training and test pictures are of one size"
