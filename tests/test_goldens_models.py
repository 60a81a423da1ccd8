"""Models held to the numbers of their official implementations.

``RHEOBASE_GOLDENS`` names another folder of goldens; what the library does not have yet is
skipped, with the reason, never passed.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rheobase.layers import over_time, repeat
from rheobase.models import create_model, list_models, model_family
from rheobase.models.registry import families
from rheobase.models.sew_resnet import BasicBlock, Bottleneck, ResidualBlock, sew_neuron
from rheobase.verify import verify

pytestmark = pytest.mark.golden

GOLDENS = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens"))


def files(pattern: str) -> list:
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDENS.glob(pattern))]


@pytest.mark.parametrize("path", files("models/*.npz"))
def test_model_gives_the_official_outputs_rates_and_gradients(path):
    report = verify(path)
    if report.status == "not built":
        pytest.skip(f"not yet built: {report.system} ({report.notes[0]})")
    assert report.holds, str(report)


# Where our presets are not called as the files of shapes.
SPELLINGS = {
    "sdt_v1_": "spike_driven_transformer_",
    "sglformer_ima_8_384": "sglformer_8_384_early",
    "sglformer_ima2_8_768": "sglformer_8_768_late",
    "sglformer_ima_8_512": "sglformer_8_512_early",
    "sglformer_ima_8_768": "sglformer_8_768",
    "sglformer_ima2_8_384": "sglformer_8_384",
    "sglformer_ima2_8_512": "sglformer_8_512",
    "tim_spikformer_dvs": "tim_cifar10dvs",
    "sdt_v3_spikformer": "spike_driven_transformer_v3_",
    "sdt_v3_Efficient_Spiking_Transformer_": "spike_driven_transformer_v3_",
    "sdt_v2_metaspikformer_": "spike_driven_transformer_v2_",
    "_imagenet_": "_",
    "spikingresformer_cifar_10_32": "spiking_resformer_cifar10",
    "spikingresformer_cifar_10_64": "spiking_resformer_cifar10dvs",
    "spikingresformer_cifar_100_32": "spiking_resformer_cifar100",
    "spikingresformer_dvsg_11_64": "spiking_resformer_dvs128",
    "spikingresformer_": "spiking_resformer_",
    "QKFormer_": "",
    "cifar10-dvs": "cifar10dvs",
    "dvs128-gesture": "dvs128",
    "gesture": "dvs128",
    # Less-known spiking transformers.
    "swformer_6_512_fl4": "swformer_6_512",
    "swformer_8_512_fl4": "swformer_8_512",
    "swformer_cifar_4_384_fl16": "swformer_cifar10_4_384",
    "swformer_cifar_4_512_fl16": "swformer_cifar10_4_512",
    "swformer_event_2_256_fl4": "swformer_cifar10dvs_2_256",
    "ost_cifar_4_384": "ost_cifar10_4_384",
    "ost_dvscifar10_2_256": "ost_cifar10dvs_2_256",
    "spikeformer_ct_PLIAF_spikeformer_7_3x2x4": "spikeformer_ct_7_3x2x4",
    "spikeformer_ct_PLIF_spikeformer_7_3x2x3": "spikeformer_ct_cifar10dvs_7_3x2x3",
    "spikeformer_ct_PLIF_spikeformer_7_5x3x1": "spikeformer_ct_dvs128_7_5x3x1",
    "autost_uniform_4_384": "autost_cifar10_uniform_4_384",
    "sts_transformer_dvs128": "sts_transformer_dvs128_2_256",
    "revs_resnet24_dvs": "revs_resnet24_cifar10dvs",
    "revs_resnet109": "revs_resnet109_cifar10",
    "revs_resnet21": "revs_resnet21_cifar10",
    "revs_resnet37": "revs_resnet37_cifar10",
    "revsformer_dvs_2_256": "revsformer_dvs128_2_256",
    "sstformer_without_resnet18": "sstformer_poker",
    "stnet_snn3": "stnet",
    "stnet_interatten": "stnet",
    "spiket_depth": "spike_t",
    "sst_encoder_layer_512_1024": "sst_34_t64",
    "spikeclip_language": "spike_clip",
    "spikeclip_vision_4_384": "spike_clip",
}

# Files of a part: what of our network they hold, and under which prefix.
PARTS = {
    "sstformer_without_resnet18": re.compile(r"()(?!resnet\.|head\.)"),
    "stnet_snn3": re.compile(r"(spiking\.)"),
    "stnet_interatten": re.compile(r"(fusion\.)"),
    "sst_encoder_layer_512_1024": re.compile(r"(layers\.0\.)"),
    "spikeclip_language": re.compile(r"(text\.)"),
    "spikeclip_vision_4_384": re.compile(r"(image\.)"),
}


def preset_of(stem: str) -> str:
    for theirs, ours in SPELLINGS.items():
        stem = stem.replace(theirs, ours)
    return stem


@pytest.mark.parametrize("path", files("shapes/*.json"))
def test_preset_has_the_official_shapes(path):
    name = preset_of(path.stem)
    if name not in list_models():
        pytest.skip(f"not yet built: {path.stem}")
    (family,) = (f for f in families() if f.name == model_family(name))
    content = json.loads(path.read_text())
    keys = content.get("keys", content)
    renames = [o.rename for o in family.official.values() if o.mark is None or o.mark in keys]
    official = {renames[0](key): shape for key, shape in keys.items()}
    official.pop(None, None)  # parameters that the official code never uses
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in create_model(name).state_dict().items()}
    if path.stem in PARTS:
        found = ((PARTS[path.stem].match(key), key, shape) for key, shape in ours.items())
        ours = {key[match.end(1) :]: shape for match, key, shape in found if match}
    assert {key: _linear(shape) for key, shape in ours.items()} == {
        key: _linear(shape) for key, shape in official.items()
    }


def _linear(shape: list[int]) -> list[int]:
    """One linear map is [C, K], [C, K, 1] or [C, K, 1, 1]."""
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


class SmallResNet(nn.Module):
    """The network of the block-level goldens, of our public blocks."""

    def __init__(self, connect: str | None, T: int, block: type[ResidualBlock]) -> None:
        super().__init__()
        self.T, narrow = T, block.expansion
        make = sew_neuron()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.sn1 = make()
        self.b1 = block(8, 8 // narrow, 1, connect, make)
        self.b2 = block(8, 16 // narrow, 2, connect, make)
        if connect is not None:
            # The official block ends its downsample in a neuron, and the network it was run in
            # put one more there: spikes pass it unchanged, gradients do not.
            self.b2.downsample_sn = nn.Sequential(make(), make())
        self.fc = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.sn1(over_time(repeat(image, self.T), self.conv1, self.bn1))
        return self.fc(self.b2(self.b1(x)).mean((-2, -1))).mean(0)


@pytest.mark.parametrize("path", files("direct/model_s*.npz"))
def test_residual_blocks(path):
    golden = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    facts = json.loads(path.with_suffix(".json").read_text())
    block = Bottleneck if "sd__b1.conv3.weight" in golden else BasicBlock
    net = SmallResNet(facts.get("connect_f"), facts["T"], block)
    weights = {k.removeprefix("sd__"): v for k, v in golden.items() if k.startswith("sd__")}
    net.load_state_dict(weights)

    rates = {}

    def record(name):
        def hook(module, inputs, spikes):
            rates[name] = float(spikes.detach().mean())

        return hook

    for name in facts["firing_rates_eval"]:
        ours = name.replace("downsample_sn", "downsample_sn.1")
        ours = ours.replace("downsample.2", "downsample_sn.0")
        net.get_submodule(ours).register_forward_hook(record(name))
    with torch.no_grad():
        y = net.eval()(golden["x"])
    torch.testing.assert_close(y, golden["y_eval"], rtol=1e-5, atol=1e-6)
    assert rates == pytest.approx(facts["firing_rates_eval"], abs=1e-7)

    x = golden["x"].requires_grad_()
    y = net.train()(x)
    torch.testing.assert_close(y, golden["y_train"], rtol=1e-5, atol=1e-6)
    (y * golden["w"]).sum().backward()
    assert_gradient(x.grad, golden["grad_x"])
    for name, parameter in net.named_parameters():
        assert_gradient(parameter.grad, golden[f"grad__{name}"])


def assert_gradient(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 2e-5
