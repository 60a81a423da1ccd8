"""The Masked Spiking Transformer as its released code has it, token by token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rheobase.models.mst import MaskedSpikingTransformer

Fire = Callable[[str, Tensor], Tensor]
"""What the activation of that name gives for what comes to it."""


class ByHand:
    """A network with the weights of ours, for one image ``[C, H, W]`` in evaluation mode.

    Args:
        net: has the weights.
        fire: what an activation does.
    """

    def __init__(self, net: MaskedSpikingTransformer, fire: Fire) -> None:
        self.config, self.fire = net.config, fire
        self.w = dict(net.named_parameters()) | dict(net.named_buffers())

    def __call__(self, image: Tensor) -> Tensor:
        c, patch = self.config, self.config.patch_size
        size = c.image_size // patch
        kernel, bias = self.w["patch_embed.proj.weight"], self.w["patch_embed.proj.bias"]
        grid = {}
        for i in range(size):
            for j in range(size):
                piece = image[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
                grid[i, j] = (kernel * piece).sum((1, 2, 3)) + bias
        x = self.fire("patch_embed.proj_if", self.batch_norm("patch_embed.norm", _rows(grid)))
        for stage, depth in enumerate(c.depths):
            for number in range(depth):
                x = self.block(f"layers.{stage}.blocks.{number}", x, size, stage, number)
            if stage < len(c.depths) - 1:
                x, size = self.merge(f"layers.{stage}.downsample", x, size), size // 2
        mean, spread = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        x = (x - mean) / (spread + 1e-5).sqrt() * self.w["norm.weight"] + self.w["norm.bias"]
        return self.linear("head", x.mean(0))

    def block(self, name: str, x: Tensor, size: int, stage: int, number: int) -> Tensor:
        window = min(self.config.window, size)
        shift = window // 2 if number % 2 and size > window else 0
        y = self.fire(f"{name}.shortcut1_if", self.batch_norm(f"{name}.norm1", x))
        order, inputs, masks = [], [], []
        for top in range(0, size, window):
            for left in range(0, size, window):
                places = [(top + a, left + b) for a in range(window) for b in range(window)]
                rows = [((i + shift) % size) * size + (j + shift) % size for i, j in places]
                zones = [(zone(i, size, window, shift), zone(j, size, window, shift))
                         for i, j in places]  # fmt: skip
                order += rows
                inputs.append(y[rows])
                masks.append([[0.0 if p == q else -100.0 for q in zones] for p in zones])
        attended = self.attention(f"{name}.attn", torch.stack(inputs), masks, stage, window)
        back = torch.empty_like(attended).flatten(0, 1)
        back[order] = attended.flatten(0, 1)
        x = self.batch_norm(f"{name}.norm2", x + back)
        hidden = self.fire(f"{name}.shortcut2_if", x)
        for layer in ("1", "2"):
            hidden = self.linear(f"{name}.mlp.fc{layer}", hidden)
            if self.config.mlp_norm:
                hidden = self.batch_norm(f"{name}.mlp.norm{layer}", hidden)
            hidden = self.fire(f"{name}.mlp.fc{layer}_if", hidden)
        return x + hidden

    def attention(
        self, name: str, x: Tensor, masks: list[list[list[float]]], stage: int, window: int
    ) -> Tensor:
        """Windows ``[windows, L, C]`` to the same shape."""
        heads, dim = self.config.heads[stage], x.shape[-1]
        width = dim // heads
        qkv = self.linear(f"{name}.qkv", x)
        # Activations see heads apart: [windows, heads, L, width].
        parts = [qkv[..., i * dim : (i + 1) * dim] for i in range(3)]
        apart = [p.unflatten(-1, (heads, width)).transpose(1, 2) for p in parts]
        q, k, v = (self.fire(f"{name}.{n}_if", p) for n, p in zip("qkv", apart, strict=True))
        scores = self.fire(f"{name}.attn_if", q @ k.transpose(2, 3) / width**0.5)
        table = self.w[f"{name}.relative_position_bias_table"]
        places = [(a, b) for a in range(window) for b in range(window)]
        bias = torch.stack(
            [
                torch.stack(
                    [table[(a - e + window - 1) * (2 * window - 1) + b - f + window - 1]
                     for e, f in places]
                )
                for a, b in places
            ]
        )  # fmt: skip
        scores = scores + bias.permute(2, 0, 1) + torch.tensor(masks).to(x).unsqueeze(1)
        share = scores.exp() / scores.exp().sum(-1, keepdim=True)
        context = self.fire(f"{name}.attn_v_if", (share @ v).transpose(1, 2).flatten(2))
        return self.fire(f"{name}.proj_if", self.linear(f"{name}.proj", context))

    def merge(self, name: str, x: Tensor, size: int) -> Tensor:
        half = size // 2
        rows = []
        for i in range(half):
            for j in range(half):
                four = [(2 * i, 2 * j), (2 * i + 1, 2 * j), (2 * i, 2 * j + 1)]
                four.append((2 * i + 1, 2 * j + 1))
                rows.append(torch.cat([x[a * size + b] for a, b in four]))
        y = self.batch_norm(f"{name}.norm", torch.stack(rows))
        return self.fire(f"{name}.reduction_if", y @ self.w[f"{name}.reduction.weight"].T)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        spread = (self.w[f"{name}.running_var"] + 1e-5).sqrt()
        y = (x - self.w[f"{name}.running_mean"]) / spread
        return y * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]


def zone(place: int, size: int, window: int, shift: int) -> int:
    """Which part of a shifted axis: before the last window, its first and its second piece."""
    if not shift or place < size - window:
        return 0
    return 1 if place < size - shift else 2


def _rows(grid: dict[tuple[int, int], Tensor]) -> Tensor:
    return torch.stack([grid[place] for place in sorted(grid)])


def quantised(net: MaskedSpikingTransformer) -> Fire:
    """QCFS: rounded with a gradient of 1, then clipped, in units of a trained threshold."""
    units = dict(net.named_parameters())
    levels = net.config.levels
    assert levels is not None

    def fire(name: str, z: Tensor) -> Tensor:
        unit = units[f"{name}.threshold"]
        y = z / unit * levels + 0.5
        return ((y + (y.floor() - y).detach()) / levels).clamp(0.0, 1.0) * unit

    return fire


class Integrating:
    """IF with subtraction, half full at the start, whose spikes are as large as the threshold."""

    def __init__(self, net: MaskedSpikingTransformer) -> None:
        self.units = {
            n.removesuffix(".threshold"): p.detach()
            for n, p in net.named_parameters()
            if n.endswith(".threshold")
        }
        self.membranes: dict[str, Tensor] = {}

    def __call__(self, name: str, z: Tensor) -> Tensor:
        v = self.membranes.get(name, torch.full_like(z, 0.5)) + z / self.units[name]
        spikes = (v >= 1.0).to(z.dtype)
        self.membranes[name] = v - spikes
        return spikes * self.units[name]
