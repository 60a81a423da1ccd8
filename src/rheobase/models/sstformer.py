"""SSTFormer: frames by a memory transformer, events by a spiking network, for recognition.

Wang et al. 2023, "SSTFormer: Bridging Spiking Neural Network and Memory Support Transformer for
Frame-Event based Recognition", arXiv 2308.04369; released code: Event-AHU/SSTFormer. A hybrid: only
the event branch spikes. Its parts, `EventEncoder` and `MemoryTransformer`, are networks of their
own, with configs of their own.

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
from torch.nn.functional import interpolate

from rheobase.layers import over_time
from rheobase.layers.deformable import DeformableConv2d
from rheobase.models._inputs import check_choice, check_positive
from rheobase.models.registry import Family, Official
from rheobase.models.sew_resnet import SEWResNet, SEWResNetConfig
from rheobase.models.sstformer_parts import (
    EventEncoder,
    EventEncoderConfig,
    MemoryConfig,
    MemoryTransformer,
    conv_norm,
)

__all__ = [
    "FAMILY", "PRESETS", "EventEncoder", "EventEncoderConfig", "MemoryConfig", "MemoryTransformer",
    "SSTFormer", "SSTFormerConfig",
]  # fmt: skip

Compat = Literal["official"] | None


@dataclass(frozen=True)
class SSTFormerConfig:
    """One SSTFormer, for clips of 16 frames and 16 steps of events at 240 x 240 pixels.

    Args:
        num_classes: outputs.
        T: frames, and steps of events; 16.
        compat: "official": what the released code computes, see the module; None: the paper.
    """

    num_classes: int = 114
    T: int = 16
    compat: Compat = None

    def __post_init__(self) -> None:
        check_positive(num_classes=self.num_classes)
        check_choice("T", self.T, (16,))
        check_choice("compat", self.compat, (None, "official"))


class SSTFormer(nn.Module):
    """SSTFormer: both branches, their fusion and the classifier (625.8 M without ResNet-18).

    Args:
        config: number of classes.
    """

    size = 240
    causal = False

    def __init__(self, config: SSTFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        resnet = SEWResNetConfig(18, connect=None, image_size=self.size)
        self.resnet = SEWResNet(resnet, lambda **_: nn.ReLU())
        del self.resnet.fc
        self.events = EventEncoder(EventEncoderConfig(compat=config.compat))
        self.deconv3, self.deconv2 = _deconv_norm(512, 256), _deconv_norm(512, 128)
        self.concat = conv_norm(256, 16)
        self.fusion_map = nn.Parameter(torch.randn(1, 16, 60, 60))
        self.fusion = _fusion()
        self.bottleneck = nn.Conv2d(16, 256, 5, stride=3, padding=1)
        self.query, self.support = nn.Conv2d(512, 4096, 1), nn.Conv2d(512, 64, 1)
        self.memory = MemoryTransformer(MemoryConfig(compat=config.compat))
        self.features = nn.Sequential(nn.Linear(7232, 4096), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4096, config.num_classes)

    def forward(self, frames: Tensor, events: Tensor) -> Tensor:
        """Logits ``[1, N, num_classes]``.

        Args:
            frames: ``[16, N, 3, 240, 240]``.
            events: voxels ``[16, N, 12, H, W]``, resized to 240 x 240.

        Raises:
            ValueError: other shapes.
        """
        n = frames.shape[1:2]
        if frames.shape != (16, *n, 3, self.size, self.size) or events.shape[:-2] != (16, *n, 12):
            raise ValueError(
                "SSTFormer takes frames [16, N, 3, 240, 240] and events [16, N, 12, H, W], got "
                f"{list(frames.shape)} and {list(events.shape)}; sample 16 steps, resize the frames"
            )
        spiking, token = self._event_features(events)
        features = torch.cat([self._frame_features(frames, token), spiking], dim=-1)
        logits: Tensor = self.head(self.features(features)).unsqueeze(0)
        return logits

    def _event_features(self, events: Tensor) -> tuple[Tensor, Tensor]:
        """``[N, 3136]`` for the classifier and ``[N, 4096]`` for the frame branch."""
        x = over_time(events, lambda e: interpolate(e, [self.size, self.size]))
        _, two, three, four = self.events(x)
        x = torch.cat([two, self.deconv2(torch.cat([three, self.deconv3(four)], 1))], 1)
        x = self.concat(x)
        x = self.fusion(torch.cat([self.fusion_map.expand_as(x), x], 1))
        to_frames, to_head = x.chunk(2, dim=1)
        return to_head.flatten(1), self.bottleneck(to_frames).flatten(1)

    def _frame_features(self, frames: Tensor, token: Tensor) -> Tensor:
        """Every fourth frame is a query, the others are its supports: ``[N, 4096]``."""
        net = self.resnet
        x = over_time(frames, net.conv1, net.bn1, net.sn1, net.maxpool)
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
        clips = x.movedim(0, 1).unflatten(1, (4, 4))  # type: ignore[no-untyped-call]
        batch = len(clips)
        query = self.query(clips[:, :, 3].flatten(0, 1)).flatten(2)
        tokens = query if self.config.compat == "official" else query.mT
        support = self.support(clips[:, :, :3].flatten(0, 2))
        parts = [support.reshape(batch, 12, -1), tokens.reshape(batch, 256, 4096)]
        memory: Tensor = self.memory(torch.cat([*parts, token.unsqueeze(1)], dim=1))
        return memory.squeeze(0)


def _deconv_norm(channels: int, width: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.1))


def _fusion() -> nn.Sequential:
    """Five convolutions, all but the first deformable, from 60 x 60 to 14 x 14."""
    layers: list[nn.Module] = []
    for i in range(5):
        layers.append(DeformableConv2d(32, 32) if i else nn.Conv2d(32, 32, 3, padding=1))
        layers.append(nn.ReLU())
        layers += [nn.GroupNorm(32, 32)] if i < 4 else []
        layers += [nn.MaxPool2d(3, stride=2)] if i < 2 else []
    return nn.Sequential(*layers)


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
_RULES = (
    (r"^GRU_Transformer\.|^t\.", "memory."),
    (r"^memory\.linear\.", "memory.memory."),
    (r"^memory\.pos_embed$", "memory.position"),
    (r"\.GRU_Attention(\d)\.", r".attention\1."),
    (r"\.GRU\.", ".gru."),
    (r"\.attn\.(kv|proj)\.", r".\1."),
    (r"\.ls(\d)\.gamma$", r".scale\1"),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
    (r"^fu_concat_1\.", "concat."),
    (r"^fu_concat_2\.", "bottleneck."),
    (r"^fusion_feature_map$", "fusion_map"),
    (r"^snn_former_fc\.", "features."),
    (r"^conv2d_(query|support)\.", r"\1."),
    (r"^resnet18_feature_extractor\.", "resnet."),
    (r"^cls_head\.fc_cls\.", "head."),
)


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
    for pattern, ours in _RULES:
        key = re.sub(pattern, ours, key)
    return key


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
