"""The recipes of the zoo: each fits its model and its data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from rheobase.data import list_datasets
from rheobase.models import create_model, model_family
from rheobase.models.registry import families
from rheobase.train import TrainConfig, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
DATA = {info.name: info for info in list_datasets()}

# A line of a recipe's comment that says how it trains another preset.
OTHER = re.compile(r"^#   ((?:[\w.]+=\S+ )*model=\w+)", re.MULTILINE)


def runs() -> dict[str, TrainConfig]:
    """What can be trained as it is written: recipes, and the other presets that they name."""
    found = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        found[path.stem] = load_config(path)
        for line in OTHER.findall(path.read_text()):
            found[f"{path.stem} {line}"] = load_config(path, line.split())
    return found


RUNS = runs()

STATIC, EVENTS = {"imagenet", "cifar10"}, {"cifar10dvs", "dvs128gesture"}

# Families of the surveys' tables, and those closest to them: the data that their papers or released
# code give a recipe for (those without code, that of their host). "sequences" are the user's.
FAMILIES = {
    "spikformer": STATIC | EVENTS,
    "spikformer_v2": {"imagenet"},
    "spike_driven_transformer": STATIC | EVENTS,
    "spike_driven_transformer_v2": {"imagenet"},
    "spike_driven_transformer_v3": {"imagenet"},
    "spike_driven_transformer_v3_large": {"imagenet"},
    "spikingformer": STATIC | EVENTS,
    "spikingformer_cml": STATIC | EVENTS,
    "qkformer": STATIC | EVENTS,
    "spiking_resformer": STATIC | EVENTS,
    "sglformer": STATIC | EVENTS,
    "tim": {"cifar10dvs", "sequences"},
    "max_former": STATIC | EVENTS,
    "swformer": STATIC | {"cifar10dvs"},
    "ost": STATIC | EVENTS,
    "revs_resnet": {"cifar10"} | EVENTS,
    "revsformer": {"cifar10"} | EVENTS,
    "spikeformer_ct": {"imagenet"} | EVENTS,
    "autost": {"cifar10"},
    "sts_transformer": {"dvs128gesture"},
    "spikformer_lt": {"cifar10"} | EVENTS,
    "spiking_vit_dts": {"cifar10"},
    "dista": {"cifar10", "cifar10dvs"},
    "mast": {"cifar10"} | EVENTS,
    "te_spikformer": EVENTS | {"sequences"},
    "sstformer": {"sequences"},
}

PAPERS = {"spikingformer_cml"}  # of their own, in the family of another


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_recipes(family):
    models = {cfg.model.name: cfg.data.name for cfg in RUNS.values()}
    found = {
        data
        for name, data in models.items()
        if (name.startswith(family) if family in PAPERS else model_family(name) == family)
    }
    assert found >= FAMILIES[family]


def test_every_preset_has_its_recipe():
    presets = {name for family in families() if family.name in FAMILIES for name in family.presets}
    trained = {cfg.model.name for cfg in RUNS.values()}
    assert trained & presets == presets


@pytest.mark.parametrize("name", RUNS)
def test_model_and_data_of_a_recipe_fit(name):
    cfg, data = RUNS[name], DATA[RUNS[name].data.name]
    with torch.device("meta"):
        net = create_model(cfg.model.name, **cfg.model.overrides)
    if data.name == "sequences":
        return  # those of the user, of any shape
    if not any(data.shape):  # texts; how many words there are only they say
        assert (
            cfg.loss.name == "next_token"
            or not data.classes
            or (net.config.num_classes == len(data.classes))
        )
        return
    classes = 1000 if data.name == "imagenet" else len(data.classes)
    assert (net.config.channels, net.config.num_classes) == (data.shape[0], classes)
    side = cfg.data.options.get("size", data.shape[1])
    assert net.config.image_size == cfg.augment.resized_crop or net.config.image_size == side
    assert len(cfg.data.mean) in (0, data.shape[0])
    assert cfg.data.options.get("frames", net.T) == net.T
    if data.name == "imagenet":
        assert cfg.augment.resized_crop == side, "training and test pictures are of one size"
