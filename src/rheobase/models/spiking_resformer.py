"""SpikingResformer: a ResNet of stages whose blocks attend with a dual product of spikes.

Shi et al. 2024, "SpikingResformer: Bridging ResNet and Vision Transformer in Spiking Neural
Networks", arXiv 2403.14302. Released code: xyshi2000/SpikingResformer. Membranes in every
shortcut; attention (DSSA) multiplies spikes with a convolution of themselves, so it needs neither
keys nor values, and its scales follow from how often the neurons fire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers import ConvNormNeuron, NeuronConvNorm, over_time, split_heads
from rheobase.models._initialise import initialise_layers
from rheobase.models._inputs import check_choice, check_divides, check_sizes
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LIF, PLIF, neuron_factory
from rheobase.surrogate import ATan

__all__ = [
    "FAMILY", "PRESETS", "DualSpikeSelfAttention", "SpikingResformer", "SpikingResformerConfig",
]  # fmt: skip


@dataclass(frozen=True)
class SpikingResformerConfig:
    """One SpikingResformer.

    Args:
        widths: channels of each stage; each but the first begins by halving the image.
        heads: attention heads of each stage.
        depths: pairs of attention and MLP in each stage.
        patch_sizes: side of the patches that the convolution of the attention sees, by stage.
        stem: "imagenet" (7x7 convolution and pooling, a quarter of the image's side) or "cifar"
            (3x3 convolution, the whole).
        group_size: channels to a group of the 3x3 convolution in the MLP.
        image_size: side of the images it is meant for; others that its patches divide work.
        channels: input channels.
        num_classes: outputs.
        T: time steps a static image is repeated for.
        learn_tau: the paper's neuron is PLIF instead of LIF.

    Raises:
        ValueError: sizes that do not divide each other, or stages that differ in number.
    """

    widths: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...] = (1, 2, 3)
    patch_sizes: tuple[int, ...] = (4, 2, 1)
    stem: Literal["imagenet", "cifar"] = "imagenet"
    group_size: int = 64
    image_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    T: int = 4
    learn_tau: bool = False

    def __post_init__(self) -> None:
        stages = (self.widths, self.heads, self.depths, self.patch_sizes)
        if len({len(values) for values in stages}) != 1 or not self.widths:
            raise ValueError(
                f"widths, heads, depths and patch_sizes give one number a stage, got {stages}"
            )
        check_choice("stem", self.stem, ("imagenet", "cifar"))
        for width, heads, depth in zip(self.widths, self.heads, self.depths, strict=True):
            check_sizes(
                dim=width, dim_multiple=1, heads=heads, image_size=self.image_size,
                patch_size=self.divisor, depth=depth, group_size=self.group_size,
                channels=self.channels, num_classes=self.num_classes, T=self.T,
            )  # fmt: skip
            hidden = 4 * width
            check_divides("group_size", self.group_size, hidden, f"the MLP's {hidden} channels")

    @property
    def divisor(self) -> int:
        """What the image's side must be a multiple of."""
        first = 4 if self.stem == "imagenet" else 1
        return first * max(patch << i for i, patch in enumerate(self.patch_sizes))

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"learn_tau": self.learn_tau}


def spiking_resformer_neuron(*, learn_tau: bool = False, **kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF (or PLIF), tau 2, reset detached, arctangent surrogate, alpha 2."""
    defaults = {"tau": 2.0, "detach_reset": True, "surrogate": ATan(2.0)}
    return neuron_factory(PLIF if learn_tau else LIF, **(defaults | kwargs))


class DualSpikeSelfAttention(nn.Module):
    r"""Dual spike self-attention (DSSA) on membranes ``[T, N, C, H, W]``.

    .. math:: s = \mathrm{SN}(x), \quad y_1, y_2 = \mathrm{BN}(W s), \quad
       A = \mathrm{SN}(y_1^\top s \cdot c_1), \quad
       \mathrm{DSSA}(x) = \mathrm{BN}(W' \, \mathrm{SN}(y_2 A \cdot c_2))

    :math:`W` is a convolution of patches. The scales :math:`c_1 = 1/\sqrt{f_s d}` and
    :math:`c_2 = 1/\sqrt{f_A L}` (d channels in a head, L patches at hand; in the released code, of
    the image size it was built for) keep the variance; the firing rates f of each head are running
    means. One that no training has set yet is taken from the batch (the code divides by it, 0).
    Source: arXiv 2403.14302.
    """

    momentum = 0.999
    firing_rate_x: Tensor
    firing_rate_attn: Tensor

    def __init__(self, dim: int, heads: int, patch_size: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.heads = heads
        self.input = make_neuron()
        self.conv = nn.Conv2d(dim, 2 * dim, patch_size, patch_size, bias=False)
        self.norm = nn.BatchNorm2d(2 * dim)
        self.attn = make_neuron()
        self.proj = NeuronConvNorm(dim, dim, make_neuron())
        self.register_buffer("firing_rate_x", torch.zeros(1, 1, heads, 1, 1))
        self.register_buffer("firing_rate_attn", torch.zeros(1, 1, heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        spikes = self.input(x)
        y1, y2 = split_heads(over_time(spikes, self.conv, self.norm), self.heads).chunk(2, dim=-2)
        s = split_heads(spikes, self.heads)
        d, patches = y1.shape[-2:]
        attn = self.attn(y1.mT @ s * self._scale(s, self.firing_rate_x, d))
        y = y2 @ attn * self._scale(attn, self.firing_rate_attn, patches)
        membrane: Tensor = self.proj(y.reshape(x.shape))
        return membrane

    def _scale(self, spikes: Tensor, running: Tensor, count: int) -> Tensor:
        """One over the root of ``count`` times each head's rate, of the spikes' dtype.

        The rate is the running mean, which training updates first.
        """
        now = spikes.detach().mean((0, 1, 3, 4), keepdim=True)
        rate = torch.where(running > 0, running, now)
        if self.training:
            rate = rate * self.momentum + now * (1 - self.momentum)
            running.copy_(rate)
        # Silent neurons: the product is 0, whatever it is scaled by.
        rate = rate.clamp_min(torch.finfo(rate.dtype).tiny)
        return (rate * count).rsqrt().to(spikes.dtype)


class GroupWiseMlp(nn.Module):
    """Group-wise spiking feed-forward network (GWFFN): an MLP with a 3x3 convolution inside."""

    def __init__(self, dim: int, group_size: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        hidden = 4 * dim
        groups = hidden // group_size
        self.up = NeuronConvNorm(dim, hidden, make_neuron())
        self.mix = NeuronConvNorm(hidden, hidden, make_neuron(), kernel_size=3, groups=groups)
        self.down = NeuronConvNorm(hidden, dim, make_neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, H, W]`` to membranes of the same shape."""
        y = self.up(x)
        membrane: Tensor = self.down(self.mix(y) + y)
        return membrane


class Residual(nn.Module):
    """``x + branch(x)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Membranes to membranes of the same shape."""
        y: Tensor = x + self.branch(x)
        return y


class SpikingResformer(VisionNetwork):
    """SpikingResformer.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> config = SpikingResformerConfig((8, 16), (1, 2), (1, 1), (2, 1), stem="cifar",
    ...     group_size=8, image_size=32, num_classes=10)
    >>> SpikingResformer(config)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(
        self, config: SpikingResformerConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__(config, config.divisor)
        make_neuron = make_neuron or spiking_resformer_neuron(**config.neuron_options)
        large = config.stem == "imagenet"
        self.stem = ConvNormNeuron(
            config.channels, config.widths[0], nn.Identity(),
            kernel_size=7 if large else 3, stride=2 if large else 1, pool=large,
        )  # fmt: skip
        self.stages = nn.ModuleList(
            _stage(config, i, make_neuron) for i in range(len(config.widths))
        )
        self.head = nn.Linear(config.widths[-1], config.num_classes, bias=False)
        initialise_layers(self, nn.Linear, nn.Conv2d)

    def logits(self, x: Tensor) -> Tensor:
        """Of every step of a sequence ``[T, N, C, H, W]``: ``[T, N, num_classes]``."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


def _stage(config: SpikingResformerConfig, i: int, make_neuron: MakeNeuron) -> nn.Sequential:
    """Stage i: a convolution that halves the image if i > 0, then attention and MLP by turns."""
    width = config.widths[i]
    layers = nn.Sequential()
    if i > 0:
        before = config.widths[i - 1]
        layers.append(NeuronConvNorm(before, width, make_neuron(), kernel_size=3, stride=2))
    for _ in range(config.depths[i]):
        patch = config.patch_sizes[i]
        layers.append(Residual(DualSpikeSelfAttention(width, config.heads[i], patch, make_neuron)))
        layers.append(Residual(GroupWiseMlp(width, config.group_size, make_neuron)))
    return layers


_CIFAR10 = SpikingResformerConfig(
    (64, 192, 384), (1, 3, 6), stem="cifar", image_size=32, num_classes=10
)

PRESETS: dict[str, SpikingResformerConfig] = {
    "spiking_resformer_ti": SpikingResformerConfig((64, 192, 384), (1, 3, 6)),
    "spiking_resformer_s": SpikingResformerConfig((64, 256, 512), (1, 4, 8)),
    "spiking_resformer_m": SpikingResformerConfig((64, 384, 768), (1, 6, 12)),
    "spiking_resformer_l": SpikingResformerConfig((128, 512, 1024), (2, 8, 16)),
    "spiking_resformer_cifar10": _CIFAR10,
    "spiking_resformer_cifar100": replace(_CIFAR10, num_classes=100),
    "spiking_resformer_cifar10dvs": replace(_CIFAR10, image_size=64, T=16),
    "spiking_resformer_dvs128": SpikingResformerConfig(
        (32, 96, 192), (1, 3, 6), stem="cifar", group_size=32, image_size=64, num_classes=11, T=16,
        learn_tau=True,
    ),
}  # fmt: skip

_OURS: Replacements = {
    r"^prologue\.0": "stem.conv",
    r"^prologue\.1\.bn": "stem.norm",
    r"^classifier": "head",
    r"^layers\.([1-9]\d*)\.0\.": r"stages.\1.0.",  # the convolution between stages
    r"^layers\.(\d+)\.(\d+)\.": r"stages.\1.\2.branch.",
    r"\.activation(?=\.|$)": ".neuron",
    r"\.activation_in": ".input",
    r"\.activation_attn": ".attn",
    r"\.activation_out": ".proj.neuron",
    r"\.W\.": ".conv.",
    r"\.Wproj\.": ".proj.conv.",
    r"\.norm_proj\.bn\.": ".proj.norm.",
    r"\.conv\.0\.(\d)": r".mix.\1",
    r"\.(up|mix|down)\.0": r".\1.neuron",
    r"\.(up|mix|down)\.1\.": r".\1.conv.",
    r"\.(up|mix|down)\.2\.bn\.": r".\1.norm.",
    r"\.norm\.bn\.": ".norm.",
}


def _rename(key: str) -> str:
    return replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikingResformerConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "a SpikingResformer", "stem.conv", "stages.0.0.branch.firing_rate_x", "head")
    stages = range(depth_of(ours, "stages"))
    first = ["stages.0.0.branch"] + [f"stages.{i}.1.branch" for i in stages[1:]]
    large = ours["stem.conv.weight"].shape[-1] == 7
    return SpikingResformerConfig(
        widths=tuple(ours[f"{name}.conv.weight"].shape[1] for name in first),
        heads=tuple(ours[f"{name}.firing_rate_x"].numel() for name in first),
        depths=tuple(depth_of(ours, f"stages.{i}") // 2 for i in stages),
        patch_sizes=tuple(ours[f"{name}.conv.weight"].shape[-1] for name in first),
        stem="imagenet" if large else "cifar",
        group_size=ours["stages.0.1.branch.mix.conv.weight"].shape[1],
        image_size=kwargs.get("img_size", 224 if large else 32),
        channels=ours["stem.conv.weight"].shape[1],
        num_classes=ours["head.weight"].shape[0],
        T=kwargs.get("T", 4),
        learn_tau="stages.0.0.branch.input.w" in ours,
    )


FAMILY = Family(
    "spiking_resformer",
    network=SpikingResformer,
    presets=PRESETS,
    neuron=spiking_resformer_neuron,
    official={"spiking_resformer": Official(_config, _rename)},
)
