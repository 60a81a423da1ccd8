"""Converted transformers held to official code through `convert`: every step, every spike."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.convert import ConvertedNetwork, NeuronRule, Spiking, Statistic, convert
from rheobase.models.bert import encoder_from_spikezip
from rheobase.models.vit import VisionTransformer, VitConfig, from_spikezip

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parents[1] / "goldens"))


def files(kind: str) -> list[Path]:
    return sorted((FOLDER / "language").glob(f"{kind}*.npz"))


def each(kind: str) -> Callable[..., Any]:
    return pytest.mark.parametrize("path", files(kind), ids=lambda p: p.stem)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path) as file:
        config = json.loads(str(file["config_json"]))
        names = [name for name in file.files if name != "config_json"]
        return {n: torch.from_numpy(np.asarray(file[n])).double() for n in names}, config


def state_dict(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def spikes_of(net: ConvertedNetwork) -> dict[str, Tensor]:
    """Filled by a run: site -> what it sends, in thresholds, ``[T * N, ...]``."""
    sent: dict[str, Tensor] = {}
    net.at_once = net.T
    for module in net.modules():
        if isinstance(module, Spiking):

            def keep(module: Spiking, _: Any, out: Tensor) -> None:
                sent[module.site.name] = out / module.size

            module.register_forward_hook(keep)
    return sent


# Sites of a block in the order of our graph; names of the official code.
BLOCK = (
    "attn.x_in_test", "attn.q_out_test", "attn.v_out_test", "attn.k_out_test",
    "attn.attn_out_test", "attn.x_out_test", "mlp.x1_in_test", "mlp.x2_in_test",
)  # fmt: skip


@torch.no_grad()
@each("ecmt_vit")
def test_ecmt_vision_transformer(path: Path) -> None:
    arrays, config = load(path)
    net = VisionTransformer(
        VitConfig(
            image_size=config["img"],
            patch_size=config["patch"],
            dim=config["dim"],
            depth=config["depth"],
            heads=config["heads"],
            hidden=arrays["sd/blocks.0.mlp.fc1.weight"].shape[0],
            num_classes=config["classes"],
        )
    ).double()
    net.load_state_dict(state_dict(arrays, "sd/"))
    x = arrays["input"]
    torch.testing.assert_close(net.eval()(x), arrays["ann_logits"], rtol=1e-5, atol=1e-5)
    names = [f"blocks.{b}.{name}" for b in range(config["depth"]) for name in BLOCK]
    cases = [n.rsplit("N", 1)[1] for n in arrays if n.startswith("snn_cum_logits_N")]
    assert cases
    for case in cases:
        snn = convert(
            net,
            arrays["calib"],
            recipe="ecmt_released",
            T=config["T"],
            batch_size=len(arrays["calib"]) // 2,  # the official thresholds average two batches
            neuron=NeuronRule("multi_threshold", levels=int(case)),
            statistic=Statistic("released_ecmt", percentile=100.0 * config["percent"]),
        )
        sites = [m for m in snn.modules() if isinstance(m, Spiking)]
        for name, site in zip(names, sites, strict=True):
            positive, negative, *_ = arrays[f"neuron_N{case}/{name}"].tolist()
            ours = site.neuron.v_threshold, site.neuron.v_negative
            assert ours == pytest.approx((positive, negative), rel=1e-5), name
        sent = spikes_of(snn)
        y = snn(x).cumsum(0)
        expected = arrays[f"snn_cum_logits_N{case}"]
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        for name, spikes in zip(names, sent.values(), strict=True):
            rates = spikes.unflatten(0, (config["T"], -1)).ne(0.0).double().flatten(1).mean(1)
            torch.testing.assert_close(rates, arrays[f"rate_N{case}/{name}"], rtol=0.0, atol=5e-3)


@torch.no_grad()
@each("spikezip_vit")
def test_spikezip_vision_transformer(path: Path) -> None:
    arrays, config = load(path)
    net = from_spikezip(
        state_dict(arrays, "sd/"), heads=config["heads"], levels=config["level"]
    ).eval()
    x, steps = arrays["input"], int(arrays["T_converged"])
    quantised = net(x)
    torch.testing.assert_close(quantised, arrays["qann_logits"], rtol=1e-5, atol=1e-5)
    snn = convert(net, x, recipe="spikezip_tf", T=steps)
    sent = spikes_of(snn)
    y = snn(x)
    torch.testing.assert_close(y.cumsum(0), arrays["snn_logits_per_t"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y.sum(0), quantised, rtol=1e-10, atol=1e-10)
    official = [a for name, a in arrays.items() if name.startswith("spk/")]
    for (name, spikes), expected in zip(sent.items(), official, strict=True):
        assert torch.equal(spikes.unflatten(0, (steps, -1)).round(), expected), name


class _WithMask(nn.Module):
    """An encoder whose mask comes as one more channel."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.encoder(x[..., :-1], x[..., -1][:, None, None, :])
        return y


@torch.no_grad()
@pytest.mark.parametrize("case", ["nomask", "mask"])
@each("spikezip_roberta")
def test_spikezip_roberta(path: Path, case: str) -> None:
    arrays, config = load(path)
    if f"{case}/T" not in arrays:
        pytest.skip(f"{path.name} has no case {case}")
    state = state_dict(arrays, f"{case}/sd/")
    encoder = encoder_from_spikezip(state, heads=config["heads"], levels=config["level"])
    net, x, steps = _WithMask(encoder).eval(), arrays["x"], int(arrays[f"{case}/T"])
    mask = arrays["mask"][:, 0, 0] if case == "mask" else torch.zeros_like(x[..., 0])
    x = torch.cat([x, mask.unsqueeze(-1)], -1)
    quantised = net(x)
    torch.testing.assert_close(quantised, arrays[f"{case}/qann_out"], rtol=1e-5, atol=1e-5)
    snn = convert(
        net,
        x,
        recipe="spikezip_tf_language",
        T=steps,
        neuron=NeuronRule("st_bif", levels=config["level"]),
    )
    sent = spikes_of(snn)
    y = snn(x).cumsum(0)
    torch.testing.assert_close(y, arrays[f"{case}/snn_cum"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y[-1], quantised, rtol=1e-9, atol=1e-9)
    counts = [a for name, a in arrays.items() if name.startswith(f"{case}/spikes_per_neuron/")]
    for (name, spikes), expected in zip(sent.items(), counts, strict=True):
        ours = spikes.round().abs().mean() * steps
        assert ours.item() == pytest.approx(expected.item(), abs=1e-9), name
