"""Official checkpoints recognised by their names and shapes alone.

Takes every file of ``$RHEOBASE_GOLDENS/models`` and ``.../shapes`` (default: ``tests/goldens``)
whose system the library has.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from rheobase.models import create_model, list_models, load_official, recognise
from rheobase.models.golden import read_golden
from rheobase.models.registry import families
from test_goldens_models import PARTS, preset_of

pytestmark = pytest.mark.golden

GOLDENS = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens"))

# Systems of other issues whose released code asks for more than weights tell to build at all.
NEED_MORE = ("autosnn", "snasnet")
# Released models that differ in no parameter: each is named.
ALIKE = [
    {"sew_resnet", "spiking_resnet_direct"},
    {"spikingformer", "spikingformer_cml"},
    {"spikformer", "spikingformer_cml"},
    {"tdbn_resnet", "tet_resnet"},
]


def known(system):
    return any(system in family.official for family in families())


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("models/*.npz")), ids=lambda p: p.stem)
def test_model_is_recognised(path):
    golden = read_golden(path)
    if not known(golden.system) or golden.system in NEED_MORE:
        pytest.skip(f"the library has no {golden.system}, or it needs more than its weights")
    found = recognise(golden.weights())
    systems = {each.system for each in found}
    assert golden.system in systems
    assert len(found) == 1 or any(systems <= alike for alike in ALIKE), systems
    given = {"num_heads", "patch_size", "pooling_stat", "cls"}
    assert all(set(each.untold) <= given for each in found)


def weights_of(shapes):
    """Tensors of those shapes, of one number in memory."""
    return {key: torch.ones(()).expand(shape) for key, shape in shapes.items()}


def shapes_in(path):
    """The shapes of a file, and those of a whole checkpoint that it lacks."""
    content = json.loads(path.read_text())
    lacking = resnet_and_head() if path.stem == BACKBONE else {}
    return content.get("keys", content) | lacking


BACKBONE = "sstformer_without_resnet18"


@cache
def resnet_and_head():
    """The rest of an SSTFormer checkpoint; ResNet-18 has torchvision's names, as ours has."""
    with torch.device("meta"):
        ours = create_model("sstformer_poker").state_dict()
    names = {"resnet.": "resnet18_feature_extractor.", "head.": "cls_head.fc_cls."}
    return {
        name.replace(our, official, 1): list(value.shape)
        for name, value in ours.items()
        for our, official in names.items()
        if name.startswith(our)
    }


# Sizes that nobody published: their weights alone are taken for the published one's.
UNPUBLISHED = {"sglformer_8_384_early", "sglformer_8_768_late"}

SHAPES = [
    path
    for path in sorted(GOLDENS.glob("shapes/*.json"))
    if preset_of(path.stem) in list_models() and path.stem != "stnet_interatten"  # no checkpoint
]


@pytest.mark.parametrize("path", SHAPES, ids=lambda p: p.stem)
def test_published_size_is_recognised(path):
    found = recognise(weights_of(shapes_in(path)))
    systems = {each.system for each in found}
    assert len(found) == 1 or any(systems <= alike for alike in ALIKE), systems
    name = preset_of(path.stem)
    if path.stem in PARTS and path.stem != BACKBONE:
        return  # a part is of no published size
    if path.stem.startswith(("tim_", "autost_")) or found[0].untold or name in UNPUBLISHED:
        return  # told by values (TIM's thresholds), or needs an argument
    assert name in {preset for each in found for preset in each.presets}


def variants(key):
    """The key with other numbers between its dots: deeper blocks of the same network."""
    parts = re.split(r"(?<=\.)(\d+)(?=\.)", key)
    places = parts[1::2]
    if len(places) > 2:
        return [key]
    return [
        "".join(
            itertools.chain.from_iterable(zip(parts[::2], [*map(str, numbers), ""], strict=True))
        )
        for numbers in itertools.product(range(12), repeat=len(places))
    ]


@cache
def official_keys(family_name):
    """For each system of a family: our name -> the official one, as far as the files show."""
    family = next(f for f in families() if f.name == family_name)
    presets = family.presets
    names = {}
    for path in SHAPES:
        if preset_of(path.stem) not in presets:
            continue
        for system, official in family.official.items():
            for key in shapes_in(path):
                if official.mark is not None and official.mark not in shapes_in(path):
                    break
                for variant in variants(key):
                    try:
                        ours = official.rename(variant)
                    except KeyError:  # no such block
                        continue
                    if ours is not None:
                        names.setdefault((system, path.stem), {}).setdefault(ours, variant)
    return names


def inverted(family, preset):
    """The state dict of a preset under the official names of every file that shows them all.

    The file of the preset most like it comes first: released code spells each kind of network its
    own way.
    """
    with torch.device("meta"):
        ours = {k: list(v.shape) for k, v in create_model(preset).state_dict().items()}
    wanted = dataclasses.asdict(family.presets[preset])

    def likeness(stem):
        theirs = dataclasses.asdict(family.presets[preset_of(stem)])
        return sum(theirs[field] == value for field, value in wanted.items())

    known = official_keys(family.name)
    for system, stem in sorted(known, key=lambda each: likeness(each[1]), reverse=True):
        names = known[system, stem]
        if names.keys() >= ours.keys():
            content = shapes_in(next(path for path in SHAPES if path.stem == stem))
            unused = {k: v for k, v in content.items() if family.official[system].rename(k) is None}
            yield unused | {names[key]: shape for key, shape in ours.items()}


PRESETS = [
    pytest.param(family, name, id=name)
    for family in families()
    if family.official
    for name in family.presets
]


def test_a_backbone_alone_is_refused_with_what_it_lacks():
    path = GOLDENS / "shapes" / f"{BACKBONE}.json"
    if not path.exists():
        pytest.skip("the folder lacks the file")
    weights = weights_of(json.loads(path.read_text())["keys"])
    assert recognise(weights) == []
    with pytest.raises(ValueError, match=r"no classifier \(cls_head.fc_cls.weight\)"):
        load_official("sstformer", weights)
    with pytest.raises(ValueError, match="nearest are sstformer"):
        load_official(None, weights)


SYSTEMS = sorted({system for family in families() for system in family.official})


@pytest.mark.long
@pytest.mark.parametrize("path", sorted(GOLDENS.glob("models/*.npz")), ids=lambda p: p.stem)
def test_taken_for_another_system_they_are_named(path):
    """A checkpoint loaded as the next system's that it is not, with its own keywords or none."""
    golden = read_golden(path)
    theirs = {each.system for each in recognise(golden.weights())}
    if not theirs:
        pytest.skip("not recognised: see test_model_is_recognised")
    start = SYSTEMS.index(golden.system)
    other = next(s for s in SYSTEMS[start + 1 :] + SYSTEMS if s not in theirs)
    for kwargs in (golden.kwargs, {}):
        with pytest.raises(ValueError, match="|".join(sorted(theirs))):
            load_official(other, golden.weights(), kwargs)


@pytest.mark.long
@pytest.mark.parametrize(("family", "name"), PRESETS)
def test_every_preset_is_recognised_by_official_names(family, name):
    turned = inverted(family, name)
    first = next(turned, None)
    if first is None:
        pytest.skip("no file of its released code shows all its names")
    assert any(is_told(family, name, shapes) for shapes in itertools.chain([first], turned))


def is_told(family, name, shapes):
    found = recognise(weights_of(shapes))
    if family.name not in {each.family.name for each in found}:
        return False
    if any(each.untold for each in found) or family.name == "tim" or name in UNPUBLISHED:
        return True
    return name in {preset for each in found for preset in each.presets}


def test_no_system_need_be_named():
    path = GOLDENS / "models" / "qkformer_cifar.npz"
    if not path.exists():
        pytest.skip("the folder lacks the file")
    golden = read_golden(path)
    net = load_official(None, {"model": golden.weights()}, {"T": 3})
    assert (type(net).__name__, net.T, net.config.dim) == ("QKFormer", 3, 64)
