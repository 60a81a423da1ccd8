"""The vision transformer of 2021: its ANN and its conversion, by hand; and on real digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rheobase.convert import convert
from rheobase.data import MNISTSample
from rheobase.models.rate_coded_vit import (
    PRESETS,
    RateCodedViT,
    RateCodedViTConfig,
    rate_coded_vit_mnist,
)

SMALL = {"image_size": 6, "patch_size": 2, "dim": 8, "depth": 2, "heads": 2, "hidden": 12}
STEPS = 9


def small(**changes: object) -> RateCodedViT:
    """A small one whose biases are not 0."""
    torch.manual_seed(0)
    net = RateCodedViT(RateCodedViTConfig(**(SMALL | changes))).double().eval()  # type: ignore[arg-type]
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return net


class Hand:
    """The network as the released code has it, image by image and token by token.

    ``fire(name, z)`` is what a ReLU does: itself, or the spikes of a step.
    """

    def __init__(self, net: RateCodedViT, fire) -> None:
        self.w = dict(net.named_parameters())
        self.config, self.fire = net.config, fire

    def dense(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def __call__(self, image: Tensor) -> Tensor:
        """``[1, H, W]`` to ``[classes]``."""
        size, patch = self.config.image_size, self.config.patch_size
        starts = range(0, size, patch)
        patches = [image[0, i : i + patch, j : j + patch].flatten() for i in starts for j in starts]
        tokens = [self.w["class_token"][0, 0], *(self.dense("embed", p) for p in patches)]
        embedded = x = torch.stack(tokens) + self.w["positions"][0]
        for number in range(self.config.depth):
            shortcut = embedded if self.config.compat == "official" else x
            x = self.attention(f"blocks.{number}.attention", x) + shortcut
            z = self.dense(f"blocks.{number}.fc1", x)
            x = x + self.dense(f"blocks.{number}.fc2", self.fire(f"blocks.{number}.fc1", z))
        return self.dense("head", self.fire("fc", self.dense("fc", x.flatten())))

    def attention(self, name: str, x: Tensor) -> Tensor:
        weights = self.w[f"{name}.in_proj_weight"].chunk(3)
        biases = self.w[f"{name}.in_proj_bias"].chunk(3)
        q, k, v = (x @ w.T + b for w, b in zip(weights, biases, strict=True))
        width = self.config.dim // self.config.heads
        heads = []
        for head in range(self.config.heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / width**0.5
            heads.append((scores.exp() / scores.exp().sum(1, keepdim=True)) @ v[:, part])
        return self.dense(f"{name}.out_proj", torch.cat(heads, 1))


def relu(_: str, z: Tensor) -> Tensor:
    return z * (z > 0)


@pytest.mark.parametrize("compat", [None, "official"])
def test_the_ann_is_that_of_the_released_code(compat):
    net = small(compat=compat)
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    y, z = net(x), torch.stack([Hand(net, relu)(image) for image in other])
    torch.testing.assert_close(y, z)
    weights = list(net.parameters())
    ours = torch.autograd.grad((y * y).sum(), [x, *weights])
    theirs = torch.autograd.grad((z * z).sum(), [other, *weights])
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two)


def test_sizes_of_the_released_code():
    """The classes of the released code, weight by weight, for 50 tokens of 28 x 28 pixels."""
    dim, hidden, tokens = 64, 128, 50
    embedding = 16 * dim + dim + tokens * dim + dim
    block = 4 * (dim * dim + dim) + dim * hidden + hidden + hidden * dim + dim
    readout = tokens * dim * hidden + hidden + hidden * 10 + 10
    net = rate_coded_vit_mnist()
    assert sum(p.numel() for p in net.parameters()) == embedding + 4 * block + readout
    assert PRESETS["rate_coded_vit_mnist"].tokens == tokens


@torch.no_grad()
@pytest.mark.parametrize("compat", [None, "official"])
def test_every_step_of_the_converted_network(compat):
    """IF with subtraction behind every ReLU, all of the rest analog, at every step anew."""
    net = small(compat=compat)
    x = torch.randn(5, 1, 6, 6, dtype=torch.float64)
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str, z: Tensor) -> Tensor:
        seen.setdefault(name, []).append(relu(name, z).view(-1, z.shape[-1]))
        return relu(name, z)

    for image in x:
        Hand(net, watch)(image)
    unit = {name: threshold(net, name, torch.cat(values)) for name, values in seen.items()}
    sums: dict[str, Tensor] = {}

    def fire(name: str, z: Tensor) -> Tensor:
        v = sums.get(name, torch.zeros_like(z)) + z / unit[name]
        spikes = (v > 1.0).double()
        sums[name] = v - spikes
        return spikes * unit[name]

    expected = []
    for image in x:
        sums.clear()
        expected.append(torch.stack([Hand(net, fire)(image) for _ in range(STEPS)]))
    snn = convert(net, x, recipe="spiking_transformer_2021", T=STEPS)
    torch.testing.assert_close(snn(x), torch.stack(expected, 1))


def threshold(net: RateCodedViT, name: str, values: Tensor) -> float:
    """The 99th percentile of the units' maxima; no less than any weight or bias."""
    maxima = sorted(values.amax(0).tolist())
    percentile = maxima[int(0.99 * (len(maxima) - 1))]
    layer = net.get_submodule(name)
    return max(percentile, float(layer.weight.max()), float(layer.bias.max()))


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="no multiple of patch_size=4"):
        RateCodedViTConfig(image_size=30)
    with pytest.raises(ValueError, match="no multiple of heads=5"):
        RateCodedViTConfig(heads=5)
    with pytest.raises(ValueError, match="compat must be one of"):
        RateCodedViTConfig(compat="paper")  # type: ignore[arg-type]


@pytest.mark.long
def test_it_reads_digits_and_goes_on_when_it_spikes(tmp_path: Path):
    """On the digits that come with the package, by the recipe of ``configs/``."""
    from rheobase.models import create_model
    from rheobase.train import load_config, train

    config = Path(__file__).parents[2] / "configs" / "rate_coded_vit_mnist.yaml"
    settings = [f"run={tmp_path}", "data.name=mnist_sample", "epochs=6", "log.progress=never"]
    net = create_model("rate_coded_vit_mnist")
    train(load_config(config, settings), net)
    ann = rate_coded_vit_mnist()
    ann.load_state_dict(net.state_dict())
    ann.eval()
    training, test = MNISTSample(train=True), MNISTSample(train=False)
    calibration = torch.stack([training[i][0] for i in range(500)])
    images = torch.stack([test[i][0] for i in range(300)])
    labels = torch.tensor([test[i][1] for i in range(300)])
    snn = convert(ann, calibration, recipe="spiking_transformer_2021", T=50)
    with torch.no_grad():
        before = (ann(images).argmax(1) == labels).double().mean().item()
        after = (snn.mean_output(images).argmax(1) == labels).double().mean().item()
    assert before > 0.93
    assert after > before - 0.02
