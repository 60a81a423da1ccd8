"""STNet: follows one object through the events of a camera, a hybrid of spikes and transformer.

Zhang et al. 2022, "Spiking Transformers for Event-based Single Object Tracking", CVPR 2022;
released code: Jee-King/CVPR2022_STNet (tests only). A Siamese network: what it sees around the
object in the first frame (the template) is searched for in later ones. A frame is T slices of
events. Three spiking layers read the slices one by one, a small Swin transformer all of them at
once; what the transformer sees sets the spiking layers' threshold. Both are fused, and a SiamFC++
head finds the box. `rheobase.models.stnet_tracking` runs it on a recording.

No gradient flows through the threshold, as in the released code, whose backward pass takes the last
call's threshold for both crops; here each has its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import conv2d

from rheobase.layers.swin import SwinStages
from rheobase.models._inputs import check_divides, check_positive
from rheobase.models._names import SWIN, Replacements, need_layers, replace_in_turn, swin_sizes
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.stnet_parts import (
    CHANNELS,
    HEAD,
    KERNELS,
    PATCH,
    Found,
    Fusion,
    Head,
    SpikingBranch,
    SpikingBranchConfig,
    State,
    TransformerBranch,
    branch_side,
    conv_norm,
    stnet_neuron,
)

__all__ = [
    "FAMILY", "PRESETS", "Found", "STNet", "STNetConfig", "SpikingBranch", "SpikingBranchConfig",
    "State",
]  # fmt: skip

_CROP = 13  # kernel that takes the transformer's map to the size of a template's


@dataclass(frozen=True)
class STNetConfig:
    """One STNet.

    Args:
        T: slices of events to a frame.
        template_size: side of the crop around the object.
        search_size: side of the crop in which it is searched for.
        transformer_size: side to which the transformer scales either crop.
        widths: channels of the spiking layers; the last is that of all maps behind.
        dim: channels of the transformer's first stage, twice as many in each later one.
        depths: blocks of the transformer's stages.
        heads: of its attention, in each stage.
        window: side of its windows.
        drop_path: its stochastic depth, of the last block.

    Raises:
        ValueError: sizes that do not divide each other, or branches whose maps differ in size.
    """

    T: int = 5
    template_size: int = 127
    search_size: int = 303
    transformer_size: int = 280
    widths: tuple[int, int, int] = (64, 128, 256)
    dim: int = 96
    depths: tuple[int, ...] = (2, 2)
    heads: tuple[int, ...] = (3, 6)
    window: int = 7
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        check_positive(T=self.T, dim=self.dim, window=self.window, widths=min(self.widths))
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths={self.depths} and heads={self.heads} differ in length")
        for stage, heads in enumerate(self.heads):
            check_divides("heads", heads, self.dim << stage, f"the width {self.dim << stage}")
        for name, size, of in (
            ("widths[2]", self.widths[2], 16),
            ("transformer_size", self.transformer_size, PATCH),
        ):
            if size % of:
                raise ValueError(f"{name} must be a multiple of {of}, got {size}")
        of_search = math.ceil(self.transformer_size // PATCH / 2 ** (len(self.depths) - 1)) - 2
        of_template = (of_search - _CROP) // 2 + 1
        ours = branch_side(self.search_size), branch_side(self.template_size)
        if ours != (of_search, of_template) or self.scores < 1:
            raise ValueError(
                f"the spiking branch's maps of search and template have sides {ours}, the "
                f"transformer's {(of_search, of_template)}, and {self.scores} scores are left; "
                "change search_size, template_size or transformer_size until they agree"
            )

    @property
    def scores(self) -> int:
        """Places a side at which the object may be found."""
        return branch_side(self.search_size) - branch_side(self.template_size) + 1 - 2 * HEAD


class STNet(nn.Module):
    """STNet.

    Args:
        config: sizes.
        make_neuron: makes each neuron of the spiking branch; default the paper's.

    >>> import torch
    >>> small = STNetConfig(T=2, template_size=59, search_size=171, transformer_size=152,
    ...                     widths=(2, 4, 16), dim=6, heads=(1, 2))
    >>> found = STNet(small)(torch.rand(2, 2, 6, 59, 59), torch.rand(2, 2, 6, 171, 171))
    >>> found.box.shape
    torch.Size([2, 81, 4])
    """

    causal = False

    def __init__(self, config: STNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        width = config.widths[2]
        self.spiking = SpikingBranch(SpikingBranchConfig(config.widths), make_neuron)
        window = (1, config.window, config.window)
        swin = SwinStages(config.dim, config.depths, config.heads, window, config.drop_path)
        self.transformer = TransformerBranch(swin, width, config.T, config.transformer_size)
        self.crop, self.crop_norm = nn.Conv2d(width, width, _CROP, 2), nn.BatchNorm2d(width)
        self.fusion = Fusion(width)
        self.template_score, self.template_box = (conv_norm(width, width, 3) for _ in range(2))
        self.search_score, self.search_box = (conv_norm(width, width, 3) for _ in range(2))
        self.head = Head(width, config.scores, config.search_size)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1e-4)
        score = self.head.score[0]
        assert isinstance(score, nn.Conv2d) and score.bias is not None
        nn.init.constant_(score.bias, -math.log(99.0))  # one place in a hundred is the object's
        for unit in (self.template_score, self.template_box, self.search_score, self.search_box):
            assert isinstance(unit, nn.Sequential) and isinstance(unit[0], nn.Conv2d)
            nn.init.normal_(unit[0].weight, std=0.01)

    def forward(self, template: Tensor, search: Tensor) -> Found:
        """Find the object of one crop in another.

        Args:
            template: slices around the object, ``[T, N, 6, template_size, template_size]``: three
                channels of brighter and three of darker events, from 0 to 255.
            search: of a later frame, ``[T, N, 6, search_size, search_size]``.

        Raises:
            TypeError: not floating point.
            ValueError: another number of slices or channels, or another size.
        """
        return self.find(self.remember(template), search)[0]

    def remember(self, template: Tensor) -> tuple[Tensor, Tensor]:
        """What `find` searches for, of a template as `forward` takes it."""
        self._check(template, self.config.template_size, "template")
        features = self.transformer(template)
        temporal, _ = self.spiking.frame(template, features)
        fused = self.fusion(temporal, self.crop_norm(self.crop(features)).relu())
        return self.template_score(fused), self.template_box(fused)

    def find(
        self, template: tuple[Tensor, Tensor], search: Tensor, state: State | None = None
    ) -> tuple[Found, State]:
        """Search a frame for what `remember` gave; ``state`` is that of the frame before."""
        self._check(search, self.config.search_size, "search crop")
        features = self.transformer(search)
        temporal, after = self.spiking.frame(search, features, state)
        fused = self.fusion(temporal, features)
        score = _correlate(self.search_score(fused), template[0])
        box = _correlate(self.search_box(fused), template[1])
        return self.head(score, box), after

    def _check(self, x: Tensor, side: int, what: str) -> None:
        wanted = (self.T, CHANNELS, side, side)
        if x.dim() != 5 or (x.shape[0], *x.shape[2:]) != wanted:
            raise ValueError(
                f"the {what} is [{self.T}, N, {CHANNELS}, {side}, {side}], slices of events; got "
                f"{list(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(f"the {what} is floating point, got {x.dtype}; call x.float()")


def _correlate(search: Tensor, template: Tensor) -> Tensor:
    """Every channel of every sample with its own template, ``[N, C, H, W]``."""
    kernel = template.flatten(0, 1).unsqueeze(1)
    y = conv2d(search.flatten(0, 1).unsqueeze(0), kernel, groups=len(kernel))
    return y.view(*search.shape[:2], *y.shape[2:])


Config = STNetConfig | SpikingBranchConfig


def _network(config: Config, make_neuron: MakeNeuron | None = None) -> nn.Module:
    """The network, or its spiking branch alone."""
    if isinstance(config, SpikingBranchConfig):
        return SpikingBranch(config, make_neuron)
    return STNet(config, make_neuron)


PRESETS = {"stnet": STNetConfig()}


_NEVER_USED = re.compile(
    r"(.*\.)?(thre_w|fuse_snn_transfor|conv_cat)\.|transfor\.norm0\.|.*relative_position_index$"
    # The spiking branch alone keeps what crops the transformer's map.
    r"|(m\.)?(conv33_11|bn_spa)\."
)
_KIND = {"c": "score", "cls": "score", "r": "box", "bbox": "box"}
_CROPS = {"z_k": "template", "x": "search"}
_LAST = {"cls_score": "score", "ctr_score": "centre", "bbox_offsets": "offsets"}
_PART = {"conv": 0, "bn": 1}
_OURS: Replacements = {
    r"^basemodel\.conv33_11\.": "crop.",
    r"^basemodel\.bn_spa\.": "crop_norm.",
    r"^basemodel\.": "spiking.",
    r"^m\.": "",
    r"^(spiking\.)?conv(\d)\.": lambda m: f"{m[1] or ''}convs.{int(m[2]) - 1}.",
    r"^(spiking\.)?bn_tem\.": lambda m: f"{m[1] or ''}norm.",
    r"^eval(\d+)$": lambda m: f"neurons.{int(m[1]) % len(KERNELS)}",
    r"^thresh$": "threshold",
    r"^atten\.": "fusion.",
    r"inter_attention\.filter\.fc\.": "gate.",
    r"tem_attention\.gamma$": "temporal_scale",
    r"spa_attention\.gamma$": "spatial_scale",
    r"^transfor\.convert_3\.": "transformer.mix.",
    r"^transfor\.patch_embed\.proj\.": "transformer.patches.",
    r"^transfor\.patch_embed\.norm\.": "transformer.patch_norm.",
    r"^transfor\.layers\.": "transformer.swin.layers.",
    **SWIN,
    r"^transfor\.norm\d\.": "transformer.out_norm.",
    r"^transfor\.conv8\.": "transformer.conv.",
    r"^transfor\.bn\.": "transformer.norm.",
    r"^([cr])_(z_k|x)\.(conv|bn)\.": (lambda m: f"{_CROPS[m[2]]}_{_KIND[m[1]]}.{_PART[m[3]]}."),
    r"^head\.si$": "head.scale",
    r"^head\.bi$": "head.shift",
    r"^head\.(cls|bbox)_p5_conv(\d)\.(conv|bn)\.": (
        lambda m: f"head.{_KIND[m[1]]}_convs.{2 * int(m[2]) - 2 + _PART[m[3]]}."
    ),
    r"^head\.(cls_score|ctr_score|bbox_offsets)_p5\.(conv|bn)\.": (
        lambda m: f"head.{_LAST[m[1]]}.{_PART[m[2]]}."
    ),
}


def _rename(key: str) -> str | None:
    return None if _NEVER_USED.match(key) else replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> Config:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    branch = "" if "convs.0.weight" in ours else "spiking."
    need_layers(ours, "an STNet", *(f"{branch}convs.{i}" for i in range(3)))
    a, b, c = (len(ours[f"{branch}convs.{i}.weight"]) for i in range(3))
    if not branch:
        return SpikingBranchConfig((a, b, c))
    need_layers(ours, "an STNet", "transformer.mix", "transformer.patches", "head.score.0")
    depths, heads, offsets = swin_sizes(ours, "transformer.swin.stages")
    return STNetConfig(
        T=ours["transformer.mix.weight"].shape[1] // CHANNELS,
        widths=(a, b, c),
        dim=len(ours["transformer.patches.weight"]),
        depths=depths,
        heads=heads,
        window=(math.isqrt(offsets) + 1) // 2,
        template_size=kwargs.get("z_size", 127),
        search_size=kwargs.get("x_size", 303),
        transformer_size=kwargs.get("pretrain_img_size", 280),
    )


FAMILY = Family(
    "stnet",
    network=_network,
    presets=PRESETS,
    neuron=stnet_neuron,
    official={"stnet": Official(_config, _rename)},
)
