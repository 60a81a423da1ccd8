"""SSTFormer: frames by a memory transformer, events by a spiking network, for recognition.

Wang et al. 2023, "SSTFormer: Bridging Spiking Neural Network and Memory Support Transformer for
Frame-Event based Recognition", arXiv 2308.04369; released code: Event-AHU/SSTFormer. A hybrid: only
the event branch spikes. Its parts, `EventEncoder` and `MemoryTransformer`, are networks of their
own, with configs of their own.

Frames and events of the same steps go in as one sequence, the frames' channels first: `beside` lays
the two so, and resizes the events as the released network does inside.

With ``compat="official"`` four slips of the released code are repeated: the event branch takes
snnTorch's (spike, membrane) for (membrane, spike); queries are cut into heads, and frames into
tokens, without moving axes; attention is scaled for heads of 128 channels whatever they have.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase.layers._checks import check_steps
from rheobase.models._inputs import check_choice, check_divides, check_sizes
from rheobase.models._names import Replacements, replace_in_turn
from rheobase.models._vision import VisionNetwork
from rheobase.models.registry import Family, Official
from rheobase.models.sew_resnet import SEWResNet, SEWResNetConfig
from rheobase.models.sstformer_parts import (
    EventEncoder,
    EventEncoderConfig,
    MemoryConfig,
    MemoryTransformer,
    beside,
    conv_norm,
    deconv_norm,
    fusion,
)

__all__ = [
    "FAMILY", "PRESETS", "EventEncoder", "EventEncoderConfig", "MemoryConfig", "MemoryTransformer",
    "SSTFormer", "SSTFormerConfig", "beside",
]  # fmt: skip

Compat = Literal["official"] | None

_FUSED = 16  # channels of the learnt map, and of what goes to each branch


@dataclass(frozen=True)
class SSTFormerConfig:
    """One SSTFormer.

    Args:
        num_classes: outputs.
        T: frames, and steps of events; every fourth frame is a query, the others support it.
        image_size: side of frames and events; a multiple of 16.
        channels: of frames and events together; the first three are the frame's.
        dim: width of the memory transformer; a multiple of its tokens (one for each 32 x 32 pixels,
            begun ones too) and of the tokens of events (``side_of_events`` squared).
        heads: of its attention; divides ``dim``.
        widths: channels of the event branch's stages, each half the size of the one before.
        compat: "official": what the released code computes, see the module; None: the paper.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    num_classes: int = 114
    T: int = 16
    image_size: int = 240
    channels: int = 15
    dim: int = 4096
    heads: int = 8
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    compat: Compat = None

    def __post_init__(self) -> None:
        side = self.image_size
        check_sizes(
            dim=self.dim, dim_multiple=1, heads=self.heads, image_size=side, patch_size=16,
            num_classes=self.num_classes, channels=self.channels, T=self.T,
        )  # fmt: skip
        if side < 64 or self.channels < 4 or self.T % 4:
            raise ValueError(
                "SSTFormer takes images of 64 pixels or more, with a frame's 3 channels and one of "
                f"events or more, in fours of steps, got {self}"
            )
        check_divides("tokens", self.tokens, self.dim, f"dim={self.dim}")
        events = self.side_of_events**2
        check_divides("tokens of events", events, self.dim, f"dim={self.dim}")
        check_choice("compat", self.compat, (None, "official"))

    @property
    def tokens(self) -> int:
        """Of a frame, behind ResNet-18."""
        side: int = -(-self.image_size // 32)
        return side * side

    @property
    def side_of_fusion(self) -> int:
        """Of what the fusion gives to each branch: two poolings behind a quarter of the image."""
        side = self.image_size // 4
        for _ in range(2):
            side = (side - 3) // 2 + 1
        return side

    @property
    def side_of_events(self) -> int:
        """Of the map that becomes the events' token."""
        return (self.side_of_fusion - 3) // 3 + 1


class SSTFormer(VisionNetwork):
    """SSTFormer: both branches, their fusion and the classifier (625.8 M without ResNet-18).

    Args:
        config: sizes.

    >>> config = SSTFormerConfig(10, T=8, image_size=64, dim=16, heads=2, widths=(2, 4, 4, 8))
    >>> SSTFormer(config)(torch.rand(8, 1, 15, 64, 64)).shape
    torch.Size([1, 1, 10])
    """

    causal = False

    def __init__(self, config: SSTFormerConfig) -> None:
        super().__init__(config, divisor=16)
        dim, compat = config.dim, config.compat
        resnet = SEWResNetConfig(18, connect=None, image_size=config.image_size)
        self.resnet = SEWResNet(resnet, lambda **_: nn.ReLU())
        del self.resnet.fc
        widths = config.widths
        self.events = EventEncoder(EventEncoderConfig(config.channels - 3, widths, compat=compat))
        self.deconv3 = deconv_norm(widths[3], widths[2])
        self.deconv2 = deconv_norm(2 * widths[2], widths[1])
        self.concat = conv_norm(2 * widths[1], _FUSED)
        quarter = config.image_size // 4
        self.fusion_map = nn.Parameter(torch.randn(1, _FUSED, quarter, quarter))
        self.fusion = fusion(2 * _FUSED)
        wide = dim // config.side_of_events**2
        self.bottleneck = nn.Conv2d(_FUSED, wide, 5, stride=3, padding=1)
        self.query = nn.Conv2d(512, dim, 1)
        self.support = nn.Conv2d(512, dim // config.tokens, 1)
        self.memory = MemoryTransformer(
            MemoryConfig(dim, config.heads, tokens=config.tokens, compat=compat)
        )
        fused = dim + _FUSED * config.side_of_fusion**2
        self.features = nn.Sequential(nn.Linear(fused, dim), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(dim, config.num_classes)

    def logits(self, x: Tensor) -> Tensor:
        """``[1, N, num_classes]`` of frames and events ``[T, N, channels, H, W]`` (see `beside`).

        Raises:
            ValueError: another number of steps, or images of another size.
        """
        side = self.config.image_size
        check_steps(self, len(x), self.T)
        if x.shape[-2:] != (side, side):
            raise ValueError(
                f"SSTFormer was made for frames and events of side {side}, got {list(x.shape)}; "
                "resize them, or build the network with another image_size"
            )
        frames, events = x.tensor_split([3], dim=2)
        spiking, token = self._event_features(events)
        features = torch.cat([self._frame_features(frames, token), spiking], dim=-1)
        logits: Tensor = self.head(self.features(features)).unsqueeze(0)
        return logits

    def _event_features(self, events: Tensor) -> tuple[Tensor, Tensor]:
        """For the classifier, ``[N, features]``, and for the frame branch, ``[N, dim]``."""
        _, two, three, four = self.events(events)
        x = torch.cat([two, self.deconv2(torch.cat([three, self.deconv3(four)], 1))], 1)
        x = self.concat(x)
        x = self.fusion(torch.cat([self.fusion_map.expand_as(x), x], 1))
        to_frames, to_head = x.chunk(2, dim=1)
        return to_head.flatten(1), self.bottleneck(to_frames).flatten(1)

    def _frame_features(self, frames: Tensor, token: Tensor) -> Tensor:
        """Every fourth frame is a query, the others are its supports: ``[N, dim]``."""
        x = self.resnet.features(frames)
        clips = x.movedim(0, 1).unflatten(1, (-1, 4))  # type: ignore[no-untyped-call]
        batch, count, dim = len(clips), clips.shape[1], self.config.dim
        query = self.query(clips[:, :, 3].flatten(0, 1)).flatten(2)
        tokens = query if self.config.compat == "official" else query.mT
        support = self.support(clips[:, :, :3].flatten(0, 2))
        parts = [
            support.reshape(batch, 3 * count, dim),
            tokens.reshape(batch, count * self.config.tokens, dim),
        ]
        memory: Tensor = self.memory(torch.cat([*parts, token.unsqueeze(1)], dim=1))
        return memory.squeeze(0)


Config = SSTFormerConfig | EventEncoderConfig | MemoryConfig


def _network(config: Config) -> nn.Module:
    """The network, or a part under the name that it has there."""
    if isinstance(config, EventEncoderConfig):
        return nn.Sequential(OrderedDict(events=EventEncoder(config)))
    if isinstance(config, MemoryConfig):
        return nn.Sequential(OrderedDict(memory=MemoryTransformer(config)))
    return SSTFormer(config)


PRESETS = {
    "sstformer_poker": SSTFormerConfig(114),
    "sstformer_hardvs": SSTFormerConfig(300),
}


_NEVER_USED = re.compile(
    r"deconv1\.|former_out\.|.*\.norm[34]\.|resnet18_feature_extractor\.fc\.|snn_lif\d\.(?!C$)"
)
_FUSION = {"conv1": 0, "dcn_conv2": 4, "dcn_conv3": 8, "dcn_conv4": 11, "dcn_conv5": 14}
_OURS: Replacements = {
    r"^GRU_Transformer\.|^t\.": "memory.",
    r"^memory\.linear\.": "memory.memory.",
    r"^memory\.pos_embed$": "memory.position",
    r"\.GRU_Attention(\d)\.": r".attention\1.",
    r"\.GRU\.": ".gru.",
    r"\.attn\.(kv|proj)\.": r".\1.",
    r"\.ls(\d)\.gamma$": r".scale\1",
    r"\.mlp\.fc1\.": ".mlp.0.",
    r"\.mlp\.fc2\.": ".mlp.2.",
    r"^fu_concat_1\.": "concat.",
    r"^fu_concat_2\.": "bottleneck.",
    r"^fusion_feature_map$": "fusion_map",
    r"^snn_former_fc\.": "features.",
    r"^conv2d_(query|support)\.": r"\1.",
    r"^resnet18_feature_extractor\.": "resnet.",
    r"^cls_head\.fc_cls\.": "head.",
}


def _rename(key: str) -> str | None:
    key = key.removeprefix("backbone.")
    if _NEVER_USED.match(key):
        return None
    if match := re.match(r"batchNorm(\d)\.", key):
        return f"events.stages.{int(match[1]) - 1}.norm.{key[match.end() :]}"
    if match := re.match(r"(conv|snn_lif)(\d)(?=\.|$)", key):
        stage, second = divmod(int(match[2]) - 1, 2)
        unit = ("first", "second")[second] + ("" if match[1] == "conv" else "_neuron")
        return f"events.stages.{stage}.{unit}{key[match.end() :]}".replace(".C", ".capacitance")
    if match := re.match(r"dcnfeat_layers\.(\w+)\.(\d)\.", key):
        rest = key[match.end() :].replace("conv_offset", "offset")
        return f"fusion.{_FUSION[match[1]] + int(match[2])}.{rest}"
    return replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> Config:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    if "head.weight" in ours:
        return SSTFormerConfig(ours["head.weight"].shape[0])
    if "fusion_map" in ours:
        raise ValueError(
            "the SSTFormer checkpoint is a backbone alone: it has no classifier "
            "(cls_head.fc_cls.weight), which tells the number of classes; give the whole "
            "recogniser's weights, resnet18_feature_extractor.* among them"
        )
    if "memory.position" in ours:
        _, tokens, dim = ours["memory.position"].shape
        heads, clip = kwargs.get("num_heads", 8), kwargs.get("clip_n", 3)
        return MemoryConfig(dim, heads, clip, tokens)
    if "events.stages.0.first.0.weight" in ours:
        first = ours["events.stages.0.first.0.weight"]
        stages = sum(re.fullmatch(r"events\.stages\.\d\.norm\.weight", n) is not None for n in ours)
        return EventEncoderConfig(
            channels=first.shape[1],
            widths=tuple(ours[f"events.stages.{i}.norm.weight"].shape[0] for i in range(stages)),
            beta=float(weights["snn_lif1.beta"]),
            v_threshold=float(weights["snn_lif1.threshold"]),
        )
    raise ValueError(
        "not an SSTFormer checkpoint: nothing in it is cls_head.fc_cls, GRU_Transformer or conv1"
    )


FAMILY = Family(
    "sstformer",
    network=_network,
    presets=PRESETS,
    official={"sstformer": Official(_config, _rename)},
)
