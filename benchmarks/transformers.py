"""Spiking transformers at CIFAR size, against SpikingJelly's own, of the same weights and outputs.

SpikingJelly's networks differ from the released ones in small things, and ours follow them here:

- Spikformer: it pools before firing (our ``cml``), and its layers on tokens have no biases (ours
  are built without those of Q, K and V, ``token_layers="conv"``, and the others are zero).
- Spike-driven Transformer, QKFormer: its convolutions have biases before batch norm, which are set
  to zero; the neurons of its QKFormer detach their reset only if told to; of QKFormer it has the
  ImageNet layout only, which takes 64×64 images here. Its last layer in an attention has no bias.

Both are then the same function, which is checked in float64, where rounding flips no spike: outputs
in training and evaluation, and gradients.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rheobase
from benchmarks.harness import Record, claim, interleave, spread
from rheobase.models import create_model

__all__ = [
    "LARGE",
    "PAIRS",
    "SYSTEMS",
    "Pair",
    "assert_same_function",
    "data",
    "forward",
    "inference",
    "networks_of",
    "training",
    "training_step",
    "wake",
    "zoo_inference",
    "zoo_training",
]

SYSTEMS = ("rheobase", "SpikingJelly")
CLASSES = 10

Forward = Callable[[Tensor], Tensor]
# Our pattern -> theirs, one after another.
Spellings = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """One network in both libraries.

    Attributes:
        title: what the tables call it.
        ours: overrides of the preset ``preset``.
        their_class: of SpikingJelly's ``model``, "module:name"; or of another module, in full.
        theirs: its keyword arguments.
        spellings: from our parameters' names to theirs.
        joined: where Q, K and V (or Q and K) are one layer there, and which: pattern -> "qkv".
        side: of the images.
        batches: that are measured.
    """

    title: str
    preset: str
    ours: Mapping[str, Any]
    their_class: str
    theirs: Mapping[str, Any]
    spellings: Spellings
    joined: Spellings = field(default_factory=dict)
    side: int = 32
    batches: tuple[int, ...] = (16,)

    def build(self, system: str) -> nn.Module:
        """The network of one system, with PyTorch's drawing of the weights."""
        if system == "rheobase":
            return create_model(self.preset, **self.ours)
        module, name = self.their_class.split(":")
        if "." not in module:
            module = f"spikingjelly.activation_based.model.{module}"
        found = importlib.import_module(module)
        net: nn.Module = getattr(found, name)(num_classes=CLASSES, **self.theirs)
        return net

    def their_name(self, name: str) -> tuple[str, int, int]:
        """Their name of one of our tensors, and which part of it, of how many."""
        for pattern, joined in self.joined.items():
            for part, letter in enumerate(joined):
                if re.search(pattern, name) and f"attn.{letter}." in name:
                    name = name.replace(f"attn.{letter}.", f"attn.{joined}.")
                    return self._spelt(name), part, len(joined)
        return self._spelt(name), 0, 1

    def _spelt(self, name: str) -> str:
        for ours, theirs in self.spellings.items():
            name = re.sub(ours, theirs, name)
        return name


_SPIKFORMER: Spellings = {
    r"^stem\.position\.": "patch_embed.positional_encoding.",
    r"^stem\.": "patch_embed.",
    r"^(patch_embed\..*)\.conv\.": r"\1.conv_bn.block.0.",
    r"^(patch_embed\..*)\.norm\.": r"\1.conv_bn.block.1.",
    r"attn\.(qkv|proj)\.": r"attn.\1_conv_bn.",
    r"\.conv\.": ".0.",
    r"\.norm\.": ".1.",
}
_SPIKE_DRIVEN: Spellings = {
    r"^stem\.stages\.3\.": "patch_embed.final_stage.",
    r"^stem\.stages\.": "patch_embed.stages.",
    r"^stem\.position\.conv\.": "patch_embed.rpe_conv.",
    r"^stem\.position\.norm\.": "patch_embed.rpe_bn.",
    r"^(patch_embed\..*stage.*)\.conv\.": r"\1.0.",
    r"^(patch_embed\..*stage.*)\.norm\.": r"\1.1.",
    r"attn\.(q|k|v|proj)\.conv\.": r"attn.\1_conv.",
    r"attn\.(q|k|v|proj)\.norm\.": r"attn.\1_bn.",
    r"mlp\.fc(\d)\.conv\.": r"mlp.fc\1.",
    r"mlp\.fc(\d)\.norm\.": r"mlp.bn\1.",
}


def _numbered(match: re.Match[str]) -> str:
    part = {"conv": "conv", "norm": "bn"}[match[3]]
    return f"patch_embed{int(match[1]) + 1}.{part}{int(match[2]) + 1}."


_QKFORMER: Spellings = {
    r"^embeds\.(\d)\.units\.(\d)\.(conv|norm)\.": _numbered,
    r"^embeds\.(\d)\.shortcut\.": lambda m: f"patch_embed{int(m[1]) + 1}.shortcut.",
    r"^stages\.(\d)\.": lambda m: f"stage{int(m[1]) + 1}.",
    r"\.shortcut\.conv\.": ".shortcut.0.",
    r"\.shortcut\.norm\.": ".shortcut.1.",
    r"attn\.(qkv|qk|proj)\.conv\.": r"attn.\1_conv_bn.0.",
    r"attn\.(qkv|qk|proj)\.norm\.": r"attn.\1_conv_bn.1.",
    r"mlp\.fc(\d)\.conv\.": r"mlp.fc\1.",
    r"mlp\.fc(\d)\.norm\.": r"mlp.bn\1.",
}


def _spikformer(
    depth: int, dim: int, heads: int, side: int = 32, patch: int = 4, **options: Any
) -> Pair:
    return Pair(
        f"Spikformer-{depth}-{dim}",
        "cml_spikformer_cifar10_4_256",
        {
            "depth": depth, "dim": dim, "heads": heads, "token_layers": "conv", "image_size": side,
            "patch_size": patch,
        },
        "spikformer:Spikformer",
        {
            "T": 4, "img_size_h": side, "img_size_w": side, "patch_size": patch,
            "embed_dims": dim, "num_heads": heads, "depths": depth,
        },
        _SPIKFORMER,
        {"attn": "qkv"},
        side,
        **options,
    )  # fmt: skip


def _qkformer(title: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], side: int) -> Pair:
    return Pair(
        title,
        "qkformer_10_384",
        {"image_size": side, "num_classes": CLASSES, **ours},
        "qkformer:QKFormer",
        {"T": 4, "detach_reset": True, **theirs},
        _QKFORMER,
        {r"^stages\.[01]": "qk", r"^stages\.2": "qkv"},
        side,
    )


def spikingjelly_sew_resnet50(num_classes: int) -> nn.Module:
    """SpikingJelly's, on static images, with the paper's neuron."""
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model.sew_resnet import sew_resnet50

    net: nn.Module = sew_resnet50(
        num_classes=num_classes, cnf="ADD", spiking_neuron=neuron.IFNode, detach_reset=True,
        surrogate_function=surrogate.ATan(),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    net.register_forward_pre_hook(lambda _, inputs: inputs[0].expand(4, *inputs[0].shape))
    return net


SMALL = _spikformer(2, 256, 8, batches=(4, 16))
PAIRS = {
    "spikformer_2_256": SMALL,
    "spikformer_4_384": _spikformer(4, 384, 12),
    "spike_driven_transformer_2_512": Pair(
        "Spike-driven Transformer-2-512",
        "spike_driven_transformer_cifar10_2_512",
        {},
        "spike_driven_transformer:SpikeDrivenTransformer",
        {
            "T": 4, "embed_dims": 512, "num_heads": 8, "depths": 2, "pooling_stat": "0011",
            "detach_reset": True,
        },
        _SPIKE_DRIVEN,
    ),
    "qkformer_5_384": _qkformer(
        "QKFormer-5-384 (64×64)",
        {"depth": 5, "heads": 6},
        {"embed_dims": 384, "num_heads": (6, 6, 6), "depths": (1, 2, 2)},
        side=64,
    ),
}  # fmt: skip
# At ImageNet's size, for a GPU (`benchmarks.gpu`).
LARGE = [
    _spikformer(8, 512, 8, side=224, patch=16),
    _qkformer(
        "QKFormer-10-512",
        {"depth": 10, "dim": 512, "heads": 8},
        {"embed_dims": 512, "num_heads": (8, 8, 8), "depths": (1, 2, 7)},
        side=224,
    ),
    Pair(
        "SEW-ResNet-50",
        "sew_resnet50",
        {"num_classes": CLASSES},
        f"{__name__}:spikingjelly_sew_resnet50",
        {},
        {},
        side=224,
    ),
]
_ZOO = [pair for pair in PAIRS.values() if pair is not SMALL]


def training(rounds: int) -> list[Record]:
    """Forward, cross entropy of the mean over T, backward, AdamW, of the small Spikformer."""
    return [
        _training(SMALL, batch, rounds, goal, low)
        for low, goal in ((False, 1.6), (True, 2.1))
        for batch in SMALL.batches
    ]


def inference(rounds: int) -> list[Record]:
    """Evaluation mode under `torch.inference_mode`, of the small Spikformer."""
    return [_inference(SMALL, batch, rounds, goal=2.2) for batch in SMALL.batches]


def zoo_training(rounds: int) -> list[Record]:
    """Training steps of the networks in their published sizes."""
    return [_training(pair, batch, rounds, goal=1.5) for pair in _ZOO for batch in pair.batches]


def zoo_inference(rounds: int) -> list[Record]:
    """Inference of the networks in their published sizes."""
    return [_inference(pair, batch, rounds, goal=1.7) for pair in _ZOO for batch in pair.batches]


def _training(pair: Pair, batch: int, rounds: int, goal: float, low: bool = False) -> Record:
    """In float32, or by autocast in bfloat16."""
    networks = networks_of(pair)
    assert_same_function(pair, networks)
    images, labels = data(pair, batch)
    steps = {name: training_step(net, images, labels, low) for name, net in networks.items()}
    times = interleave(steps, rounds)
    return Record(
        f"{pair.title} training step, batch {batch}" + ", bfloat16" * low,
        "ms",
        {name: spread(values) for name, values in times.items()},
        [claim(times, "SpikingJelly", "rheobase", at_least=goal)],
    )


def _inference(pair: Pair, batch: int, rounds: int, goal: float) -> Record:
    """Our network as it is, and with the same weights as `rheobase.optimize` makes it."""
    networks = networks_of(pair)
    assert_same_function(pair, networks)
    images, _ = data(pair, batch)
    fast = rheobase.optimize(networks["rheobase"].eval(), images)
    _assert_still_the_same(networks["rheobase"], fast.net, data(pair, 2)[0].double())
    with torch.inference_mode():
        forwards = {name: forward(net.eval()) for name, net in networks.items()}
        forwards["rheobase, optimised"] = forward(fast)
        logits = {name: run(images) for name, run in forwards.items()}
        times = interleave({n: partial(f, images) for n, f in forwards.items()}, rounds)
    theirs = logits.pop("SpikingJelly")
    return Record(
        f"{pair.title} inference, batch {batch}",
        "ms",
        {name: spread(values) for name, values in times.items()},
        [
            claim(times, "SpikingJelly", "rheobase"),
            claim(times, "SpikingJelly", "rheobase, optimised", at_least=goal),
        ],
        [
            f"{name}: float32 logits differ by at most {float((ours - theirs).abs().max()):.1e}"
            for name, ours in logits.items()
        ],
    )


@torch.inference_mode()
def _assert_still_the_same(net: nn.Module, optimised: nn.Module, images: Tensor) -> None:
    """In float64, where rounding flips no spike."""
    outputs = [forward(copy.deepcopy(each).double())(images) for each in (net, optimised)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)


def training_step(
    net: nn.Module, images: Tensor, labels: Tensor, low: bool = False
) -> Callable[[], None]:
    """A full step, the optimiser's included; ``low``: by autocast in bfloat16."""
    network = forward(net.train())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return run


def data(pair: Pair, batch: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Images ``[N, 3, side, side]`` and labels ``[N]``."""
    torch.manual_seed(1)
    images = torch.randn(batch, 3, pair.side, pair.side, device=device)
    return images, torch.randint(CLASSES, (batch,), device=device)


def forward(net: nn.Module) -> Forward:
    """From images to logits ``[N, classes]``: SpikingJelly's must forget its last call first."""
    if not type(net).__module__.startswith("spikingjelly"):
        return lambda images: net(images).mean(0)  # type: ignore[no-any-return]
    from spikingjelly.activation_based import functional

    def run(images: Tensor) -> Tensor:
        functional.reset_net(net)
        logits: Tensor = net(images)
        return logits.mean(0) if logits.dim() == 3 else logits

    return run


def networks_of(pair: Pair, device: str = "cpu") -> dict[str, nn.Module]:
    """Both networks with the same weights, norms drawn so that every layer fires."""
    torch.manual_seed(0)
    theirs = pair.build("SpikingJelly").to(device)
    ours = pair.build("rheobase").to(device)
    kept = {pair.their_name(name)[0] for name in ours.state_dict()}
    for name, parameter in theirs.named_parameters():
        if name not in kept:  # a bias before batch norm, which subtracts it
            nn.init.zeros_(parameter)
    wake(theirs, lambda: forward(theirs)(data(pair, 16, device)[0]))
    ours.load_state_dict(translate(pair, theirs.state_dict(), ours))
    return {"rheobase": ours, "SpikingJelly": theirs}


def wake(net: nn.Module, run: Callable[[], object], least_gain: float = 1.0) -> None:
    """Draw the norms' gains and shifts so that every layer fires, and take their statistics."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, least_gain, least_gain + 1.0)
        nn.init.normal_(norm.bias, 0.0, 0.5)
        norm.momentum = 1.0
    net.train()
    with torch.no_grad():
        run()
    for norm in norms:
        norm.momentum = 0.1


def translate(pair: Pair, theirs: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """SpikingJelly's tensors (weights or their gradients) under our names; missing biases zero."""
    translated = {}
    for name, like in net.state_dict().items():
        key, part, parts = pair.their_name(name)
        if key in theirs:
            value = theirs[key]
            value = value.chunk(parts)[part] if value.dim() else value
            translated[name] = value.reshape(like.shape)
        elif name.endswith(".conv.bias"):
            translated[name] = torch.zeros_like(like)
    return translated


def assert_same_function(pair: Pair, networks: Mapping[str, nn.Module]) -> None:
    """Same outputs in training and evaluation, and same gradients, all in float64."""
    ours, theirs = (copy.deepcopy(networks[name]).double() for name in SYSTEMS)
    device = next(networks["rheobase"].parameters()).device.type
    images, labels = data(pair, 2, device)
    for training in (True, False):
        outputs = [forward(net.train(training))(images.double()) for net in (ours, theirs)]
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
        if training:
            for logits in outputs:
                F.cross_entropy(logits, labels).backward()
    expected = translate(pair, _gradients(theirs), ours)
    for name, gradient in _gradients(ours).items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-6, atol=1e-9, msg=partial("{}: {}".format, name)
        )


def _gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
