"""7B-Net and Wide-7B-Net: seven spike-element-wise blocks, each followed by max pooling.

Fang et al. 2021 (SEW-ResNet), arXiv 2102.04159, section 4.2, for event frames of side 128, with
PLIF neurons. The "7B-wideNet" of GLIF (Yao et al. 2022, arXiv 2210.13768, and its code) is the wide
one with gated neurons, for frames of side 48, of which only the last four blocks are followed by a
pooling, of averages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.layers import ConvNormNeuron, over_time, sew_join
from rheobase.layers.residual import SEW_JOINS
from rheobase.layers.sequential import TimeSequential
from rheobase.models._inputs import as_sequence, check_choice
from rheobase.models._neurons import neuron_of_channels, plif_neuron
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import GLIF, neuron_factory

__all__ = ["FAMILY", "PRESETS", "SEWBlock", "SevenBNet", "SevenBNetConfig"]


@dataclass(frozen=True)
class SevenBNetConfig:
    """One network of SEW blocks.

    Args:
        widths: channels of each block; where they change, a 1x1 convolution comes before it.
        connect: how a block joins its branch and its input: "ADD", "AND" or "IAND".
        pool: "max" or "average".
        first_pooled: number of the first block that a pooling follows, from 0 on.
        gated: the paper's neuron is GLIF, with parameters for every channel and step, instead of
            PLIF; each neuron is then told the ``channels`` of its layer.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: sizes that do not fit, or an unknown join.
    """

    widths: tuple[int, ...]
    connect: str = "ADD"
    pool: Literal["max", "average"] = "max"
    first_pooled: int = 0
    gated: bool = False
    num_classes: int = 10
    channels: int = 2
    image_size: int = 128
    T: int = 16

    def __post_init__(self) -> None:
        if self.connect not in SEW_JOINS:
            raise ValueError(unknown_name("SEW join", self.connect, SEW_JOINS))
        if not self.widths or min(*self.widths, self.num_classes, self.channels, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        check_choice("pool", self.pool, ("max", "average"))
        if not 0 <= self.first_pooled <= len(self.widths):
            raise ValueError(
                f"first_pooled={self.first_pooled}: there are blocks 0 to {len(self.widths) - 1}"
            )
        if self.image_size < 2**self.poolings:
            raise ValueError(
                f"image_size={self.image_size} is too small for {self.poolings} poolings"
            )

    @property
    def poolings(self) -> int:
        """How often the image is halved."""
        return len(self.widths) - self.first_pooled

    @property
    def neuron_options(self) -> dict[str, Any]:
        """What this config asks of the paper's neuron."""
        return {"T": self.T} if self.gated else {}


def seven_b_neuron(T: int | None = None, **kwargs: Any) -> MakeNeuron:
    """PLIF; or, for T steps, GLIF as its code starts it on event data."""
    if T is None:
        return plif_neuron(**kwargs)
    start = {"gates": (0.65, 0.35, 0.65), "tau": 0.5, "conductance": 0.9, "v_threshold": 0.99999}
    return neuron_factory(GLIF, **(start | {"T": T} | kwargs))


class SEWBlock(nn.Module):
    """Two convolutions with neurons, joined with the block's input.

    Args:
        width: channels.
        connect: "ADD", "AND" or "IAND".
        make_neuron: makes the neuron of a layer of so many channels.
    """

    def __init__(self, width: int, connect: str, make_neuron: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.connect = connect
        self.conv = nn.Sequential(
            *(ConvNormNeuron(width, width, make_neuron(width), kernel_size=3) for _ in range(2))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, width, H, W]`` to the same shape."""
        return sew_join(self.conv(x), x, self.connect)


class SevenBNet(nn.Module):
    """SEW blocks with max pooling between them.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = SevenBNet(SevenBNetConfig((8, 16), image_size=8))
    >>> net(torch.rand(5, 2, 2, 8, 8)).shape
    torch.Size([5, 2, 10])
    """

    def __init__(self, config: SevenBNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or seven_b_neuron(**config.neuron_options)
        neuron = neuron_of_channels(make_neuron, config.gated)
        pool = nn.MaxPool2d if config.pool == "max" else nn.AvgPool2d
        self.config = config
        self.T = config.T
        self.conv = TimeSequential()
        channels = config.channels
        for i, width in enumerate(config.widths):
            if width != channels:
                self.conv.append(ConvNormNeuron(channels, width, neuron(width)))
            self.conv.append(SEWBlock(width, config.connect, neuron))
            if i >= config.first_pooled:
                self.conv.append(pool(2))
            channels = width
        side = config.image_size // 2**config.poolings
        self.out = nn.Linear(channels * side**2, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over T is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or size, or an empty input.
        """
        config = self.config
        x = as_sequence(x, steps=self.T, channels=config.channels, size=config.image_size)
        return over_time(self.conv(x), nn.Flatten(), self.out)


_WIDE = (64,) * 4 + (128,) * 3

PRESETS: dict[str, SevenBNetConfig] = {
    "seven_b_net_dvs128gesture": SevenBNetConfig((32,) * 7, num_classes=11),
    "wide_7b_net_cifar10dvs": SevenBNetConfig(_WIDE),
    "glif_wide_7b_net_cifar10dvs": SevenBNetConfig(
        _WIDE, gated=True, pool="average", first_pooled=3, image_size=48
    ),
}

_PARTS = {"0.module.0": "conv", "0.module.1": "norm", "1": "neuron"}


def _rename(key: str) -> str:
    """The released code keeps convolution, norm and neuron in unnamed containers.

    >>> _rename("conv.1.conv.0.0.module.1.running_var"), _rename("conv.0.1.w")
    ('conv.1.conv.0.norm.running_var', 'conv.0.neuron.w')
    """
    pattern = r"^(conv\.\d+(?:\.conv\.\d)?)\.(0\.module\.[01]|1)(?=\.|$)"
    return re.sub(pattern, lambda match: f"{match[1]}.{_PARTS[match[2]]}", key)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SevenBNetConfig:
    """The config with these weights; the join and T are not told by them."""
    ours = {_rename(key): value for key, value in weights.items()}
    blocks = [value.shape[0] for key, value in ours.items() if key.endswith(".conv.1.conv.weight")]
    if not blocks or "out.weight" not in ours or "conv.0.conv.weight" not in ours:
        raise ValueError("not a 7B-Net checkpoint: it has no SEW blocks, or no out.weight")
    side = round((ours["out.weight"].shape[1] / blocks[-1]) ** 0.5)
    return SevenBNetConfig(
        widths=tuple(blocks),
        connect=kwargs.get("connect_f", "ADD"),
        num_classes=ours["out.weight"].shape[0],
        channels=ours["conv.0.conv.weight"].shape[1],
        image_size=side * 2 ** len(blocks),
        T=kwargs.get("T", 16),
    )


FAMILY = Family(
    "seven_b_net",
    network=SevenBNet,
    presets=PRESETS,
    neuron=seven_b_neuron,
    official={"wide_7b_net": Official(_config, _rename)},
)
