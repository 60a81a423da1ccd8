"""RevSResNet: a spiking ResNet whose blocks are reversible, so that depth costs no memory.

Zhang & Zhang 2024, "Memory-Efficient Reversible Spiking Neural Networks", arXiv 2312.07922;
released code: mi804/RevSNN. Every stage is a `rheobase.layers.ReversibleSequence`, so what is kept
for the backward pass are the outputs of the stages and what lies between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from rheobase.layers import ConvNormNeuron, NeuronConvNorm, ReversibleSequence, over_time
from rheobase.models._inputs import as_sequence, check_choice, check_positive
from rheobase.models._names import need_layers
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import IF, LIF, neuron_factory
from rheobase.surrogate import ATan, Sigmoid

__all__ = ["FAMILY", "PRESETS", "RevSResNet", "RevSResNetConfig"]


@dataclass(frozen=True)
class RevSResNetConfig:
    """One RevSResNet.

    Args:
        depths: number of blocks of each stage.
        widths: channels of each half in each stage.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images it is meant for; others work.
        T: time steps a static image is repeated for.
        stem: one convolution ("image"), or one of stride 2 and an average pool ("event").
        tau: time constant of the paper's neuron, LIF on event data; None: IF, on images.
        compat: "official": batch norms update their running statistics in the second run of a
            block too, as in the released code; None: only in the first.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 448)
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 4
    stem: Literal["image", "event"] = "image"
    tau: float | None = None
    compat: Literal["official"] | None = None

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths):
            raise ValueError(
                f"depths and widths are of the same stages, got {self.depths} and {self.widths}"
            )
        check_positive(
            depths=min(self.depths), widths=min(self.widths), num_classes=self.num_classes,
            channels=self.channels, image_size=self.image_size, T=self.T,
        )  # fmt: skip
        check_choice("stem", self.stem, ("image", "event"))
        check_choice("compat", self.compat, (None, "official"))

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"tau": self.tau}


def revs_resnet_neuron(tau: float | None = None, **kwargs: Any) -> MakeNeuron:
    """The paper's neuron, reset detached: IF with ATan as surrogate, or LIF with Sigmoid."""
    if tau is None:
        return neuron_factory(IF, **({"detach_reset": True, "surrogate": ATan(2.0)} | kwargs))
    defaults = {"tau": tau, "detach_reset": True, "surrogate": Sigmoid(4.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class Downsample(nn.Module):
    """Spikes, averaged over pixels, to the channels of the next stage."""

    def __init__(self, channels: int, width: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.neuron = make_neuron()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, channels, H, W] -> [T, N, width, H / 2, W / 2]``."""
        return over_time(self.neuron(x), self.pool, self.conv, self.norm)


class RevSResNet(nn.Module):
    """RevSResNet.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = RevSResNet(RevSResNetConfig(depths=(1, 1), widths=(8, 16)))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([4, 2, 10])
    """

    def __init__(self, config: RevSResNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or revs_resnet_neuron(**config.neuron_options)
        self.config = config
        self.T = config.T
        event = config.stem == "event"
        self.stem = ConvNormNeuron(
            config.channels, 2 * config.widths[0], nn.Identity(), kernel_size=3,
            stride=2 if event else 1,
        )  # fmt: skip
        self.stem_pool = nn.AvgPool2d(3, stride=2, padding=1) if event else nn.Identity()
        self.stages = nn.ModuleList(
            _stage(config, depth, width, make_neuron)
            for depth, width in zip(config.depths, config.widths, strict=True)
        )
        self.downs = nn.ModuleList(
            Downsample(2 * a, 2 * b, make_neuron) for a, b in pairwise(config.widths)
        )
        self.neuron = make_neuron()
        self.head = nn.Linear(2 * config.widths[-1], config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over T is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or an empty input.
        """
        x = as_sequence(x, steps=self.T, channels=self.config.channels)
        x = over_time(self.stem(x), self.stem_pool)
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.downs[i - 1](x))
        logits: Tensor = self.head(self.neuron(x).mean((-2, -1)))
        return logits


def _stage(
    config: RevSResNetConfig, depth: int, width: int, make_neuron: MakeNeuron
) -> ReversibleSequence:
    def branch() -> nn.Sequential:
        return nn.Sequential(
            NeuronConvNorm(width, width, make_neuron(), kernel_size=3),
            NeuronConvNorm(width, width, make_neuron(), kernel_size=3),
        )

    pairs = [(branch(), branch()) for _ in range(depth)]
    return ReversibleSequence(pairs, update_twice=config.compat == "official")


_DEPTHS = {21: (1, 1, 1, 1), 37: (1, 2, 3, 2), 109: (2, 4, 16, 4)}


def _events(num_classes: int) -> RevSResNetConfig:
    return RevSResNetConfig(
        depths=(1, 2, 2), widths=(16, 32, 48), num_classes=num_classes, channels=2,
        image_size=128, T=16, stem="event", tau=1.5,
    )  # fmt: skip


PRESETS: dict[str, RevSResNetConfig] = {
    **{
        f"revs_resnet{name}_cifar{n}": RevSResNetConfig(depths, num_classes=n)
        for name, depths in _DEPTHS.items()
        for n in (10, 100)
    },
    "revs_resnet24_cifar10dvs": _events(10),
    "revs_resnet24_dvs128": _events(11),
}


_PARTS = {"conv1.0": "0.conv", "conv1.1": "0.norm", "sn1": "0.neuron"}
_PARTS |= {"conv2.0": "1.conv", "conv2.1": "1.norm", "sn2": "1.neuron"}
_DOWN_PARTS = {"0": "neuron", "1.1": "conv", "1.2": "norm"}


def _rename(key: str) -> str:
    key = re.sub(
        r"^layer(\d)\.reversible_blocks\.(\d+)\.([fg])_block\.(conv\d\.\d|sn\d)",
        lambda m: f"stages.{int(m[1]) - 1}.{m[3]}.{m[2]}.{_PARTS[m[4]]}",
        key,
    )
    key = re.sub(
        r"^ds(\d)\.(0|1\.[12])", lambda m: f"downs.{int(m[1]) - 1}.{_DOWN_PARTS[m[2]]}", key
    )
    key = re.sub(r"^conv1\.(0\.)?", "stem.conv.", key)
    key = re.sub(r"^bn1\.(0\.)?", "stem.norm.", key)
    return re.sub(r"^sn1$", "neuron", key).replace("fc.", "head.")


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> RevSResNetConfig:
    ours = {_rename(key): value for key, value in weights.items()}
    need_layers(ours, "a RevSResNet", "stem.conv", "stages.0.f.0.0.conv", "head")
    firsts = [name for name in ours if re.fullmatch(r"stages\.\d\.f\.\d+\.0\.conv\.weight", name)]
    stages = 1 + max(int(name.split(".")[1]) for name in firsts)
    channels = ours["stem.conv.weight"].shape[1]
    event = channels == 2
    return RevSResNetConfig(
        depths=tuple(sum(n.startswith(f"stages.{i}.") for n in firsts) for i in range(stages)),
        widths=tuple(ours[f"stages.{i}.f.0.0.conv.weight"].shape[0] for i in range(stages)),
        num_classes=ours["head.weight"].shape[0],
        channels=channels,
        image_size=128 if event else 32,
        T=kwargs.get("T", 16 if event else 4),
        stem="event" if event else "image",
        tau=kwargs.get("tau", 1.5 if event else None),
    )


FAMILY = Family(
    "revs_resnet",
    network=RevSResNet,
    presets=PRESETS,
    neuron=revs_resnet_neuron,
    official={"rev_sresnet": Official(_config, _rename, mark="fc.weight")},
)
