"""Masked Spiking Transformer: the released code's size, its neuron, and its conversion."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mst_by_hand import ByHand, Integrating, quantised

from rheobase.convert import Spiking, convert
from rheobase.layers.ann_activations import QCFS
from rheobase.models.mst import PRESETS, MaskedSpikingTransformer, MstConfig
from rheobase.neurons import RateIF

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parents[1] / "goldens"))
CODES = FOLDER / "language" / "conversion_neurons.npz"
SMALL = MstConfig(
    image_size=32,
    dim=8,
    depths=(2, 1),
    heads=(2, 2),
    window=4,
    num_classes=5,
    levels=4,
    threshold=0.25,
)


def small(**changes: float) -> MaskedSpikingTransformer:
    """With weights large enough that every layer is active."""
    torch.manual_seed(0)
    net = MaskedSpikingTransformer(dataclasses.replace(SMALL, **changes)).eval()  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.3)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.3)
    return net


def test_size_of_the_released_code():
    net = MaskedSpikingTransformer(dataclasses.replace(PRESETS["mst_swin_t"], levels=None))
    assert sum(p.numel() for p in net.parameters()) == 28_332_514
    assert sum(b.numel() for b in net.buffers()) == 317_148
    assert sum(isinstance(m, torch.nn.ReLU) for m in net.modules()) == 124


@pytest.mark.golden
def test_the_neuron_is_that_of_the_released_code():
    if not CODES.exists():
        pytest.skip(f"no {CODES.name} in this folder")
    with np.load(CODES) as file:
        arrays = {n: torch.from_numpy(file[n]) for n in file.files if n.startswith("qcfs/")}
    x = arrays["qcfs/x"]
    torch.testing.assert_close(QCFS(16, 2.0)(x).detach(), arrays["qcfs/floor_L16_lambda2"])
    for name in [n for n in arrays if n.startswith("qcfs/if_rate_T")]:
        steps = int(name.rsplit("T", 1)[1])
        neuron = RateIF(torch.tensor(1.0), start=torch.tensor(0.5))
        rate = neuron((x / 2.0).expand(steps, *x.shape)).mean(0) * 2.0
        torch.testing.assert_close(rate.detach(), arrays[name])
    for name in [n for n in arrays if n.startswith("qcfs/trace_out_scale")]:
        scale = float(name.rsplit("scale", 1)[1])
        spikes = RateIF(torch.tensor(1.0), start=torch.tensor(0.5))(arrays["qcfs/trace_x"] / scale)
        torch.testing.assert_close(spikes * scale, arrays[name])


@torch.no_grad()
def test_conversion_puts_a_neuron_everywhere_and_a_step_on_its_own():
    net, x = small(), torch.randn(2, 3, 32, 32)
    snn = convert(net, x, recipe="mst", T=4)
    neurons = [m for m in snn.modules() if isinstance(m, Spiking)]
    assert len(neurons) == sum(isinstance(m, QCFS) for m in net.modules())
    assert snn(x).shape == (4, 2, 5)
    # The patches' activation meets the same current at every step: its rate at T = L is QCFS.
    (first,) = [m for m in neurons if m.site.name == "patch_embed.proj_if"]
    sent: list[torch.Tensor] = []
    snn.at_once = 1000
    first.register_forward_hook(lambda m, _, out: sent.append(out))
    snn(x)
    torch.testing.assert_close(sent[0].unflatten(0, (4, -1)).mean(0), net.patch_embed(x))


@torch.no_grad()
def test_masking_is_random_in_evaluation_too():
    net, x = small(masking=0.5), torch.randn(2, 3, 32, 32)
    snn = convert(net, x, recipe="mst", T=16)
    assert not torch.equal(snn(x), snn(x))
    with pytest.raises(ValueError, match="masking"):
        MstConfig(masking=1.0)


def exact(**changes: float) -> MaskedSpikingTransformer:
    """In float64, whose batch norms have seen something and whose thresholds differ."""
    net = small(**changes).double()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.6, 1.4)
            torch.nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.6, 1.4)  # type: ignore[union-attr]
        if isinstance(module, QCFS):
            torch.nn.init.uniform_(module.threshold, 0.6, 1.8)
    return net


@pytest.mark.parametrize("mlp_norm", [True, False])
def test_the_ann_is_that_of_the_released_code(mlp_norm):
    """Outputs, and gradients of the image, of all weights and of all thresholds."""
    net = exact(mlp_norm=mlp_norm)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    hand = ByHand(net, quantised(net))
    y, z = net(x), torch.stack([hand(image) for image in other])
    torch.testing.assert_close(y, z)
    names, weights = zip(*net.named_parameters(), strict=True)
    ours = torch.autograd.grad((y * y).sum(), [x, *weights])
    theirs = torch.autograd.grad((z * z).sum(), [other, *weights])
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two)
    silent = [name for name, found in zip(names, ours[1:], strict=True) if not found.any()]
    assert not silent, f"shows nothing of {silent}"


@torch.no_grad()
def test_every_step_of_the_converted_network():
    net, x = exact(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = []
    for image in x:
        hand = ByHand(net, Integrating(net))
        expected.append(torch.stack([hand(image) for _ in range(6)]))
    snn = convert(net, x, recipe="mst", T=6)
    torch.testing.assert_close(snn(x), torch.stack(expected, 1))
