"""Spikformer as its equations have it, step by step; what mixes tokens is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Mixer = Callable[["ByHand", str, Tensor], Tensor]
Gate = Callable[["ByHand", str, Tensor], Tensor]


class _Fire(torch.autograd.Function):
    """1 at 0 and above; the gradient is that of a sigmoid of four times as much."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        share = 1 / (1 + (-4 * x).exp())
        return gradient * 4 * share * (1 - share)


class ByHand:
    """Spikformer for CIFAR with the weights of ours, in evaluation mode.

    Args:
        net: has the weights.
        mixer: what stands in attention's place: given this, its name and ``[T, N, C, H, W]``.
        gate: what becomes of a neuron's spikes: given this, its name and the spikes.
    """

    def __init__(self, net: torch.nn.Module, mixer: Mixer, gate: Gate | None = None) -> None:
        self.config: Any = net.config
        self.w = dict(net.named_parameters()) | dict(net.named_buffers())
        self.mixer, self.gate = mixer, gate

    def __call__(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` to logits ``[T, N, classes]``."""
        x = torch.stack([images] * self.config.T)
        for i in range(4):
            x = self.unit(f"stem.stages.{i}", x)
            if i >= 2:
                x = torch.stack([F.max_pool2d(step, 3, 2, 1) for step in x])
        x = x + self.unit("stem.position", x)
        for i in range(self.config.depth):
            x = x + self.mixer(self, f"blocks.{i}.attn", x)
            x = x + self.unit(f"blocks.{i}.mlp.fc2", self.unit(f"blocks.{i}.mlp.fc1", x))
        return x.mean((3, 4)) @ self.w["head.weight"].T + self.w["head.bias"]

    def unit(self, name: str, x: Tensor) -> Tensor:
        """Convolution, batch norm, neuron."""
        kernel, bias = self.w[f"{name}.conv.weight"], self.w.get(f"{name}.conv.bias")
        pad = kernel.shape[-1] // 2
        x = torch.stack([F.conv2d(step, kernel, bias, padding=pad) for step in x])
        return self.neuron(f"{name}.neuron", self.norm(f"{name}.norm", x))

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, spread, gain, shift = (
            self.w[f"{name}.{part}"].view(-1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (spread + 1e-5).sqrt() * gain + shift

    def neuron(self, name: str, x: Tensor, threshold: float = 1.0) -> Tensor:
        """Leaky, tau 2 or learnt, hard reset whose spike has no gradient."""
        learnt = self.w.get(f"{name}.w")
        rate = 0.5 if learnt is None else 1 / (1 + (-learnt).exp())
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            h = v + (step - v) * rate
            spikes.append(_Fire.apply(h - threshold))
            v = h * (1 - spikes[-1].detach())
        fired = torch.stack(spikes)
        return fired if self.gate is None else self.gate(self, name, fired)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, noise: float = 0.0) -> Tensor:
        """Scaled products of each head, those below ``noise`` left out; no softmax."""
        heads, scale = self.config.heads, self.config.scale
        steps, images, dim, height, width = q.shape
        size = dim // heads
        outputs = torch.zeros_like(q).flatten(3)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            queries, keys, values = (x.flatten(3)[:, :, part] for x in (q, k, v))
            scores = torch.einsum("tndi,tndj->tnij", queries, keys) * scale
            scores = scores * (scores >= noise).to(scores.dtype)
            mixed = torch.einsum("tnij,tndj->tndi", scores, values)
            outputs = torch.cat([outputs[:, :, : part.start], mixed, outputs[:, :, part.stop :]], 2)
        return outputs.reshape(steps, images, dim, height, width)


def lively(net: Any) -> Any:
    """In float64 and evaluation mode, with maps and batch norms that let neurons fire."""
    torch.manual_seed(3)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1):
            torch.nn.init.normal_(module.weight, std=0.15)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.6)
            torch.nn.init.normal_(module.bias, 0.6, 0.4)
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.1, 0.4)  # type: ignore[union-attr]
    return net.double().eval()


def assert_same(net: Any, hand: ByHand, images: Tensor) -> None:
    """Outputs, and gradients of images and of every weight, which all are reached."""
    ours = images.clone().requires_grad_()
    theirs = images.clone().requires_grad_()
    y, z = net(ours), hand(theirs)
    torch.testing.assert_close(y, z, rtol=1e-9, atol=1e-11)
    names, weights = zip(*net.named_parameters(), strict=True)
    one = torch.autograd.grad((y * y).sum(), [ours, *weights])
    two = torch.autograd.grad((z * z).sum(), [theirs, *weights])
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    silent = [name for name, found in zip(names, one[1:], strict=True) if not found.any()]
    assert not silent, f"shows nothing of {silent}"
