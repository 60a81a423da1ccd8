"""Spikformer at CIFAR size, against SpikingJelly's own, with the same weights and outputs.

SpikingJelly's Spikformer differs from the released one in two places, and ours follows it here: it
pools before firing, not after (``cml``), and its layers on tokens have no biases (ours are built
without those of Q, K and V, ``token_layers="conv"``, and compute the others with zeros). Both are
then the
same function, which is checked in float64, where rounding flips no spike: outputs in training and
evaluation, and gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Record, claim, interleave, spread
from rheobase.models import create_model

__all__ = ["SYSTEMS", "build", "data", "forward", "inference", "training", "training_step"]

SYSTEMS = ("rheobase", "SpikingJelly")
BATCHES = (4, 16)
_DIM, _DEPTH, _HEADS, _T, _CLASSES = 256, 2, 8, 4, 10
_SIZE = f"dim {_DIM}, depth {_DEPTH}, {_HEADS} heads, T {_T}, 32×32"

Forward = Callable[[Tensor], Tensor]


def training(rounds: int) -> list[Record]:
    """Forward, cross entropy of the mean over T, backward, AdamW."""
    return [_training(batch, rounds) for batch in BATCHES]


def inference(rounds: int) -> list[Record]:
    """Evaluation mode under `torch.inference_mode`."""
    return [_inference(batch, rounds) for batch in BATCHES]


def _training(batch: int, rounds: int) -> Record:
    networks = _networks()
    assert_same_function(networks)
    images, labels = data(batch)
    steps = {name: training_step(net, images, labels) for name, net in networks.items()}
    times = interleave(steps, rounds)
    return Record(
        f"Spikformer ({_SIZE}) training step, batch {batch}",
        "ms",
        {name: spread(values) for name, values in times.items()},
        [claim(times, "SpikingJelly", "rheobase", at_least=1.5)],
    )


def _inference(batch: int, rounds: int) -> Record:
    networks = _networks()
    assert_same_function(networks)
    images, _ = data(batch)
    with torch.inference_mode():
        forwards = {name: forward(net.eval()) for name, net in networks.items()}
        ours, theirs = (forwards[name](images) for name in SYSTEMS)
        times = interleave({n: partial(f, images) for n, f in forwards.items()}, rounds)
    return Record(
        f"Spikformer ({_SIZE}) inference, batch {batch}",
        "ms",
        {name: spread(values) for name, values in times.items()},
        [claim(times, "SpikingJelly", "rheobase", at_least=1.7)],
        [f"float32 logits differ by at most {float((ours - theirs).abs().max()):.1e}"],
    )


def training_step(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """A full step, the optimiser's included."""
    network = forward(net.train())
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images).mean(0), labels).backward()
        optimizer.step()

    return run


def data(batch: int) -> tuple[Tensor, Tensor]:
    """Images ``[N, 3, 32, 32]`` and labels ``[N]``."""
    torch.manual_seed(1)
    return torch.randn(batch, 3, 32, 32), torch.randint(_CLASSES, (batch,))


def build(system: str) -> nn.Module:
    """The network of one system, with PyTorch's drawing of the weights."""
    if system == "rheobase":
        return create_model(
            "cml_spikformer_cifar10_4_256", depth=_DEPTH, heads=_HEADS, T=_T, token_layers="conv"
        )
    from spikingjelly.activation_based.model.spikformer import Spikformer

    net: nn.Module = Spikformer(
        T=_T, img_size_h=32, img_size_w=32, patch_size=4, num_classes=_CLASSES,
        embed_dims=_DIM, num_heads=_HEADS, depths=_DEPTH,
    )  # fmt: skip
    return net


def forward(net: nn.Module) -> Forward:
    """The network as a function of images: SpikingJelly's must forget its last call first."""
    if not type(net).__module__.startswith("spikingjelly"):
        return net
    from spikingjelly.activation_based import functional

    def run(images: Tensor) -> Tensor:
        functional.reset_net(net)
        logits: Tensor = net(images)
        return logits

    return run


def _networks() -> dict[str, nn.Module]:
    """Both networks with the same weights, norms drawn so that every layer fires."""
    torch.manual_seed(0)
    theirs = build("SpikingJelly")
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1.0, 2.0)
            nn.init.normal_(module.bias, 0.0, 0.5)
            module.momentum = 1.0
    with torch.no_grad():
        forward(theirs.train())(data(16)[0])
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.1
    ours = build("rheobase")
    ours.load_state_dict(translate(theirs.state_dict(), ours))
    return {"rheobase": ours, "SpikingJelly": theirs}


def translate(theirs: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """SpikingJelly's tensors (weights or their gradients) under our names; missing biases zero."""
    translated = {}
    for name, like in net.state_dict().items():
        if name.endswith(".conv.bias"):
            translated[name] = torch.zeros_like(like)
            continue
        key, third = _their_name(name)
        if key not in theirs:  # the gradients of buffers
            continue
        value = theirs[key]
        if third is not None and value.dim():
            value = value.chunk(3)[third]
        translated[name] = value.reshape(like.shape)
    return translated


def _their_name(name: str) -> tuple[str, int | None]:
    """Their key of one of our tensors, and which third of it (Q, K and V are one layer there)."""
    name = name.replace("stem.position", "patch_embed.positional_encoding")
    name = name.replace("stem.", "patch_embed.")
    container = ".conv_bn.block" if name.startswith("patch_embed") else ""
    name = name.replace(".conv.", f"{container}.0.").replace(".norm.", f"{container}.1.")
    name = name.replace("attn.proj.", "attn.proj_conv_bn.")
    for third, letter in enumerate("qkv"):
        if f"attn.{letter}." in name:
            return name.replace(f"attn.{letter}.", "attn.qkv_conv_bn."), third
    return name, None


def assert_same_function(networks: Mapping[str, nn.Module]) -> None:
    """Same outputs in training and evaluation, and same gradients, all in float64."""
    ours, theirs = (copy.deepcopy(networks[name]).double() for name in SYSTEMS)
    images, labels = data(2)
    for training in (True, False):
        outputs = [forward(net.train(training))(images.double()) for net in (ours, theirs)]
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
        if training:
            for logits in outputs:
                F.cross_entropy(logits.mean(0), labels).backward()
    expected = translate(_gradients(theirs), ours)
    for name, gradient in _gradients(ours).items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-6, atol=1e-9, msg=partial("{}: {}".format, name)
        )


def _gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
