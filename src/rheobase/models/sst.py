"""SST: human pose from events, by a spiking ResNet and a spiking spatiotemporal transformer.

Zou et al. 2023, "Event-based Human Pose Tracking by Spiking Spatiotemporal Transformer", arXiv
2303.09681; released code: JimmyZou/HumanPoseTracking_SNN. Attention is softmax over how alike
queries and keys are, spike by spike (a normalised Hamming similarity), of all pixels of all steps.

The network gives the parameters of a body of SMPL for the ends of every step: rotations, place and
shape. The body model itself, which makes joints and skin of them, has a licence of its own and is
not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool1d,
    adaptive_max_pool2d,
    normalize,
    scaled_dot_product_attention,
)

from rheobase.data import Events, event_slices
from rheobase.layers import ConvNormNeuron, over_time, sew_join
from rheobase.layers.dropout import DropoutOverTime
from rheobase.models._inputs import as_sequence, check_choice, check_divides, check_positive
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.sew_resnet import SEWResNet, SEWResNetConfig
from rheobase.neurons import IF, PLIF, neuron_factory
from rheobase.surrogate import ATan

__all__ = [
    "FAMILY", "JOINTS", "PRESETS", "SST", "BodyPose", "SSTConfig", "SSTLayer", "SSTLayerConfig",
    "event_channels",
]  # fmt: skip

JOINTS = 24
_SHAPE = 10

Connect = Literal["ADD", "AND", "IAND"]


@dataclass(frozen=True)
class _Common:
    """What a layer and the whole network are told."""

    hidden: int = 1024
    heads: int = 1
    connect: Connect = "ADD"
    dropout: float = 0.1
    learn_tau: bool = True

    def __post_init__(self) -> None:
        check_choice("connect", self.connect, ("ADD", "AND", "IAND"))
        check_divides("heads", self.heads, self.hidden, f"hidden={self.hidden}")
        check_divides("4", 4, self.hidden, f"hidden={self.hidden}")

    @property
    def neuron_options(self) -> dict[str, Any]:
        """Of the paper's neuron."""
        return {"learn_tau": self.learn_tau}


@dataclass(frozen=True)
class SSTLayerConfig(_Common):
    """One layer of the transformer.

    Args:
        hidden: channels of queries, keys, values, and between the layers of the MLP; a multiple
            of 4 and of ``heads``.
        heads: of the attention.
        connect: how a branch joins the stream, as in SEW-ResNet; IAND lets the branch through
            where the stream is silent.
        dropout: before the layers of the MLP, at all steps of a sample alike.
        learn_tau: PLIF neurons; else IF.
        dim: channels.

    Raises:
        ValueError: sizes that do not divide each other; an unknown join.
    """

    dim: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(dim=self.dim)


@dataclass(frozen=True)
class SSTConfig(_Common):
    """One SST: the fields of `SSTLayerConfig` but ``dim``, and more.

    Args:
        T: steps of events it is meant for; others work.
        depth: of the SEW-ResNet: 18, 34 or 50.
        layers: of the transformer.
        channels: slices of events of a step.
        image_size: side of the frames it is meant for; others of 32 pixels or more work.

    Raises:
        ValueError: sizes that do not divide each other; an unknown depth or join.
    """

    T: int = 64
    depth: int = 34
    layers: int = 2
    channels: int = 4
    image_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("depth", self.depth, (18, 34, 50))
        check_positive(T=self.T, layers=self.layers, channels=self.channels)

    @property
    def layer(self) -> SSTLayerConfig:
        """Of the transformer."""
        common = {field.name: getattr(self, field.name) for field in fields(_Common)}
        return SSTLayerConfig(**common, dim=2048 if self.depth == 50 else 512)


def sst_neuron(learn_tau: bool = True, **kwargs: Any) -> MakeNeuron:
    """The paper's neuron: PLIF from tau 2 (or IF), soft reset, arctangent surrogate (alpha 2)."""
    options = {"v_reset": None, "surrogate": ATan(2.0)} | kwargs
    return neuron_factory(PLIF if learn_tau else IF, **options)


class HammingAttention(nn.Module):
    r"""Attention by how many dimensions of two spike vectors agree.

    .. math:: \mathrm{softmax}\Big(\tfrac12 \big(1 + \tfrac{(2Q-1)(2K-1)^\top}{d}\big)\Big) V

    Q and K are spikes, V is real-valued. Source: the paper's eq. for normalised Hamming similarity.
    """

    # Every token sees those of all steps.
    causal = False

    def __init__(self, config: SSTLayerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, hidden, self.heads = config.dim, config.hidden, config.heads
        self.q = ConvNormNeuron(dim, hidden, make_neuron())
        self.k = ConvNormNeuron(dim, hidden, make_neuron())
        self.v = ConvNormNeuron(dim, hidden, make_neuron(), bias=True)  # its norm comes after
        self.proj = ConvNormNeuron(hidden, dim, make_neuron(), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W]`` to spikes of the same shape."""
        steps, batch, _, height, width = x.shape
        place = _places(steps, self.v.norm.num_features, height, width).to(x)
        q, k = (
            over_time(over_time(x, unit.conv) + place, unit.norm, unit.neuron)
            for unit in (self.q, self.k)
        )
        v = over_time(x, self.v.conv) + place
        q, k, v = (self._tokens(z) for z in (2.0 * q - 1.0, 2.0 * k - 1.0, v))
        # Half of 1 is the same for all keys: softmax does not see it.
        y = scaled_dot_product_attention(q, k, v, scale=0.5 / q.shape[-1])
        y = y.unflatten(2, (steps, height, width))  # type: ignore[no-untyped-call]
        y = y.permute(2, 0, 1, 5, 3, 4).reshape(steps, batch, -1, height, width)
        spikes: Tensor = self.proj(over_time(y, self.v.norm, self.v.neuron))
        return spikes

    def _tokens(self, x: Tensor) -> Tensor:
        """``[T, N, C, H, W] -> [N, heads, T * H * W, d]``."""
        x = x.unflatten(2, (self.heads, -1))  # type: ignore[no-untyped-call]
        return x.permute(1, 2, 0, 4, 5, 3).flatten(2, 4)


def _places(steps: int, channels: int, height: int, width: int) -> Tensor:
    """Sines and cosines of row and column, over the number of steps: ``[1, 1, C, H, W]``.

    In float32 whatever the network has, as in the released code. A map of one row or column, of
    which that makes 0 / 0, has place 0 here.
    """
    period = 10000.0 ** (torch.arange(0, channels, 2).float() / channels)
    halves = []
    for size in (height, width):
        at = torch.arange(size) / max(size - 1, 1) * (2 * math.pi)
        angle = at[:, None] / period
        halves.append(torch.cat([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 1).T)
    rows, columns = halves
    wide = rows[:, :, None].expand(-1, -1, width), columns[:, None, :].expand(-1, height, -1)
    return (torch.cat(wide) / steps)[None, None]


class SSTLayer(nn.Module):
    """Attention, then MLP, each joined to the stream.

    >>> layer = SSTLayer(SSTLayerConfig(dim=8, hidden=16))
    >>> layer(torch.randint(0, 2, (4, 1, 8, 3, 3)).float()).shape
    torch.Size([4, 1, 8, 3, 3])
    """

    def __init__(self, config: SSTLayerConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or sst_neuron(**config.neuron_options)
        self.config = config
        self.attention = HammingAttention(config, make_neuron)
        self.dropout = DropoutOverTime(config.dropout)
        self.fc1 = ConvNormNeuron(config.dim, config.hidden, make_neuron())
        self.fc2 = ConvNormNeuron(config.hidden, config.dim, make_neuron())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for unit in (self.attention.proj, self.fc2):  # branches begin silent
            nn.init.zeros_(unit.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (or small integers) ``[T, N, C, H, W]`` to the same shape."""
        x = sew_join(x, self.attention(x), self.config.connect)
        y = self.fc2(self.dropout(self.fc1(self.dropout(x))))
        return sew_join(x, y, self.config.connect)


class BodyPose(NamedTuple):
    """Parameters of SMPL, at the T + 1 ends of the steps.

    Attributes:
        rotation: of each joint by its parent, matrices ``[T + 1, N, 24, 3, 3]``.
        translation: metres, ``[T + 1, N, 3]``.
        shape: ``[T + 1, N, 10]``.
    """

    rotation: Tensor
    translation: Tensor
    shape: Tensor


class SST(nn.Module):
    """SST.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> net = SST(SSTConfig(T=2, depth=18, layers=1, hidden=16))
    >>> net(torch.randint(0, 2, (2, 1, 4, 64, 64)).float()).rotation.shape
    torch.Size([3, 1, 24, 3, 3])
    """

    causal = False

    def __init__(self, config: SSTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or sst_neuron(**config.neuron_options)
        self.config = config
        self.T = config.T
        resnet = SEWResNetConfig(config.depth, config.connect, channels=config.channels, T=config.T)
        self.backbone = SEWResNet(resnet, make_neuron)
        del self.backbone.fc
        self.layers = nn.Sequential(
            *(SSTLayer(config.layer, make_neuron) for _ in range(config.layers))
        )
        dim = config.layer.dim
        self.rotation = nn.Linear(dim, 6 * JOINTS)
        self.translation = nn.Linear(dim, 3)
        self.shape = nn.Linear(dim, _SHAPE)

    def forward(self, x: Tensor) -> BodyPose:
        """The pose at the ends of every step.

        Args:
            x: events ``[T, N, channels, H, W]``, 0 or 1: see `event_channels`.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or frames below 32 pixels.
        """
        if x.dim() != 5 or min(x.shape[-2:]) < 32:
            raise ValueError(
                "the network takes events [T, N, C, H, W] of 32 pixels a side or more; got "
                f"{list(x.shape)}"
            )
        x = self.backbone.features(as_sequence(x, steps=len(x), channels=self.config.channels))
        # The mean over pixels, then over windows of steps, of which there is one more.
        y = self.layers(x).mean((-2, -1)).permute(1, 2, 0)
        y = adaptive_avg_pool1d(y, len(x) + 1).permute(2, 0, 1)
        turned = _rotations(self.rotation(y).unflatten(-1, (JOINTS, 6)))
        return BodyPose(turned, self.translation(y), self.shape(y))


def _rotations(six: Tensor) -> Tensor:
    """Matrices ``[..., 3, 3]`` of two directions each ``[..., 6]``.

    The first becomes the first column, what of the second is at right angles to it the second.
    Source: Zhou et al. 2019, arXiv 1812.07035.
    """
    x = normalize(six[..., :3], dim=-1, eps=1e-8)
    z = normalize(torch.linalg.cross(x, six[..., 3:]), dim=-1, eps=1e-8)
    return torch.stack([x, torch.linalg.cross(z, x), z], -1)


def event_channels(
    events: Events, start: int, length: int, config: SSTConfig, *, shape: tuple[int, int]
) -> Tensor:
    """The input of a network for a stretch of a recording.

    Each step is cut into ``channels`` slices of time; a pixel is 1 where it saw any event, as the
    released data set has it (that its channels are slices of time is read from its names only).

    Args:
        events: the recording, in order of time.
        start: of the stretch, in microseconds.
        length: of it.
        config: of the network, which says steps, channels and side.
        shape: ``(H, W)`` of the camera.

    Returns:
        ``[T, 1, channels, image_size, image_size]``, 0 or 1.

    Raises:
        ValueError: see `rheobase.data.event_slices`.
    """
    slices = event_slices(events, start, length, config.T * config.channels, shape=shape)
    seen = adaptive_max_pool2d(slices.amax(1, keepdim=True), config.image_size).gt(0.0).float()
    return seen.unflatten(0, (config.T, config.channels)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]


Config = SSTConfig | SSTLayerConfig


def _network(config: Config, make_neuron: MakeNeuron | None = None) -> nn.Module:
    """The network, or a layer alone."""
    if isinstance(config, SSTLayerConfig):
        return SSTLayer(config, make_neuron)
    return SST(config, make_neuron)


PRESETS = {"sst_34_t8": SSTConfig(T=8), "sst_34_t64": SSTConfig()}


_PART = {"linear": "conv", "bn": "norm", "sn": "neuron"}
_OURS: Replacements = {
    r"^backbone\.body\.": "backbone.",
    r"^(backbone\..*)\.downsample\.2\.": r"\1.downsample_sn.",
    r"^tranformer_encoder\.encoder\.": "layers.",
    r"(^|\.)attention\.(linear|bn|sn)_([qkv]|out)(?=\.|$)": (
        lambda m: f"{m[1]}attention.{m[3].replace('out', 'proj')}.{_PART[m[2]]}"
    ),
    r"(^|\.)ffn\.(linear|bn|sn)([12])(?=\.|$)": lambda m: f"{m[1]}fc{m[3]}.{_PART[m[2]]}",
    r"^regressor\.decpose\.": "rotation.",
    r"^regressor\.dectrans\.": "translation.",
    r"^regressor\.decbeta\.": "shape.",
}


def _rename(key: str) -> str | None:
    return None if key.startswith("smpl.") else replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> Config:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    whole = "rotation.weight" in ours
    first = "layers.0." if whole else ""
    need_layers(ours, "an SST", f"{first}attention.q.conv", f"{first}fc1.conv")
    hidden, dim = ours[f"{first}attention.q.conv.weight"].shape[:2]
    common: dict[str, Any] = {
        "hidden": hidden,
        "heads": kwargs.get("n_head", 1),
        "connect": kwargs.get("cnf", "ADD"),
        "dropout": kwargs.get("drop_prob", 0.1),
        "learn_tau": f"{first}fc1.neuron.w" in ours,
    }
    if not whole:
        return SSTLayerConfig(**common, dim=dim)
    depth = 50 if dim == 2048 else 34 if depth_of(ours, "backbone.layer1") == 3 else 18
    return SSTConfig(
        **common,
        T=kwargs.get("num_frames", 64),
        depth=depth,
        layers=depth_of(ours, "layers"),
        channels=ours["backbone.conv1.weight"].shape[1],
    )


FAMILY = Family(
    "sst",
    network=_network,
    presets=PRESETS,
    neuron=sst_neuron,
    official={"sst": Official(_config, _rename)},
)
