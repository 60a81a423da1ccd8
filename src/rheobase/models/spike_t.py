"""Spike-T: depth from the binary stream of a spike camera, by a Swin transformer.

Zhang et al. 2022, "Spike Transformer: Monocular Depth Estimation for Spiking Camera", ECCV 2022;
released code: Leozhangjiyuan/MDE-SpikingCamera. The camera gives spikes; the network has no spiking
neurons: a Video Swin transformer on blocks of the stream, and a decoder with skips.

`rheobase.data.read_spike_camera` reads a recording, `metres` what the output means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rheobase.layers.swin import SwinStages
from rheobase.models._inputs import check_divides, check_positive
from rheobase.models._names import SWIN, Replacements, need_layers, replace_in_turn, swin_sizes
from rheobase.models.registry import Family, Official

__all__ = ["FAMILY", "PRESETS", "SpikeT", "SpikeTConfig", "metres"]

PATCH = 2  # pixels to a token's side
_WINDOW_DEPTH = 2


@dataclass(frozen=True)
class SpikeTConfig:
    """One Spike-T.

    Args:
        frames: binary frames that it sees at once.
        block: frames of a block, each a step of the transformer; divides ``frames``.
        dim: channels of the first stage, twice as many in each later one; even.
        depths: blocks of each stage.
        heads: of its attention, in each stage.
        window: side of its windows, which are two steps deep.
        residual_blocks: between encoder and decoder.
        drop_path: stochastic depth of the last block.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    frames: int = 128
    block: int = 32
    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6)
    heads: tuple[int, ...] = (3, 6, 12)
    window: int = 7
    residual_blocks: int = 2
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        check_positive(
            frames=self.frames, dim=self.dim, window=self.window, depths=min(self.depths)
        )
        check_divides("block", self.block, self.frames, f"frames={self.frames}")
        check_divides("steps", self.steps, self.dim, f"dim={self.dim}")
        check_divides("2", 2, self.dim, f"dim={self.dim}")
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths={self.depths} and heads={self.heads} differ in length")
        for stage, heads in enumerate(self.heads):
            check_divides("heads", heads, self.dim << stage, f"the width {self.dim << stage}")

    @property
    def steps(self) -> int:
        """Blocks of the stream."""
        return self.frames // self.block


class Residual(nn.Module):
    """Two convolutions beside the identity, with batch norms or without."""

    def __init__(self, width: int, normed: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=not normed)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=not normed)
        self.norm1 = nn.BatchNorm2d(width) if normed else nn.Identity()
        self.norm2 = nn.BatchNorm2d(width) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape."""
        y = self.norm1(self.conv1(x)).relu()
        out: Tensor = (self.norm2(self.conv2(y)) + x).relu()
        return out


def _embedding(channels: int, width: int) -> nn.Sequential:
    """Frames to tokens."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        *(Residual(width, normed=True) for _ in range(4)),
        nn.Conv2d(width, width, 3, stride=PATCH, padding=1),
    )


class SpikeT(nn.Module):
    """Spike-T.

    Args:
        config: sizes.

    >>> net = SpikeT(SpikeTConfig(frames=8, block=4, dim=8, depths=(1, 1), heads=(1, 2)))
    >>> net(torch.randint(0, 2, (1, 8, 16, 24)).float()).shape
    torch.Size([1, 1, 16, 24])
    """

    def __init__(self, config: SpikeTConfig) -> None:
        super().__init__()
        self.config = config
        dim, half = config.dim, config.dim // 2
        self.local_embedding = _embedding(config.block, half)
        self.global_embedding = _embedding(config.frames, half)
        window = (_WINDOW_DEPTH, config.window, config.window)
        self.swin = SwinStages(dim, config.depths, config.heads, window, config.drop_path)
        widths = self.swin.widths
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.mixes = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, width // config.steps, 1) for _ in range(config.steps))
            for width in widths
        )
        self.residuals = nn.Sequential(
            *(Residual(widths[-1], normed=False) for _ in range(config.residual_blocks))
        )
        self.decoders = nn.ModuleList(
            nn.Conv2d(width, width // 2, 5, padding=2) for width in reversed(widths)
        )
        self.head = nn.Conv2d(half, 1, 1)
        for module in self.swin.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Relative depth, from 0 (near) to 1 (far): see `metres`.

        Args:
            x: a stream of binary frames, ``[N, frames, H, W]``, 0 or 1.

        Returns:
            ``[N, 1, H, W]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: another number of frames, or sides that do not halve often enough.
        """
        self._check(x)
        y, *skips = reversed(self._encoded(x))
        y = self.residuals(y)
        for number, decoder in enumerate(self.decoders):
            y = y + skips[number - 1] if number else y
            y = interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = decoder(y).relu()
        depth: Tensor = self.head(y).sigmoid()
        return depth

    def _encoded(self, x: Tensor) -> list[Tensor]:
        """A map of each stage, ``[N, C, H', W']``: a share of its channels from every block."""
        overview = self.global_embedding(x)
        # Block by block: in training each has statistics of its own, as in the released code.
        blocks = [self.local_embedding(block) for block in x.chunk(self.config.steps, dim=1)]
        tokens = torch.stack([torch.cat([block, overview], 1) for block in blocks])
        maps = []
        for y, norm, mixes in zip(
            self.swin(tokens.movedim(2, -1)), self.norms, self.mixes, strict=True
        ):
            assert isinstance(mixes, nn.ModuleList)
            steps = norm(y).movedim(-1, 2).unbind(0)
            maps.append(torch.cat([mix(s) for mix, s in zip(mixes, steps, strict=True)], 1))
        return maps

    def _check(self, x: Tensor) -> None:
        frames, of = self.config.frames, PATCH << (len(self.config.depths) - 1)
        if not x.is_floating_point():
            raise TypeError(f"the network takes floating point, got {x.dtype}; call x.float()")
        if x.dim() != 4 or x.shape[1] != frames or 0 in x.shape:
            raise ValueError(
                f"the network takes streams [N, {frames}, H, W] of {frames} binary frames, got "
                f"{list(x.shape)}"
            )
        if x.shape[2] % of or x.shape[3] % of:
            raise ValueError(
                f"sides must be multiples of {of}, got {list(x.shape)}; crop or pad the frames"
            )


def metres(depth: Tensor, furthest: float = 1000.0, factor: float = 5.7) -> Tensor:
    r"""What the network's relative depth means.

    .. math:: z = z_{max} e^{f (d - 1)}

    Args:
        depth: of `SpikeT`.
        furthest: :math:`z_{max}`, at which depth was clipped for training; DENSE's here.
        factor: f; with it 0 is ``furthest / exp(f)``.

    >>> metres(torch.tensor([0.0, 1.0]))
    tensor([   3.3460, 1000.0000])
    """
    return furthest * ((depth - 1.0) * factor).exp()


PRESETS = {"spike_t": SpikeTConfig()}


_NEVER_USED = re.compile(r".*relative_position_index$")
_OURS: Replacements = {
    r"^encoder\.swin3d\.patch_embed\.global_": "global_embedding.",
    r"^encoder\.swin3d\.patch_embed\.": "local_embedding.",
    r"_embedding\.head\.": "_embedding.0.",
    r"_embedding\.residual_encoding\.resblock(\d)\.": r"_embedding.\1.",
    r"_embedding\.proj\.": "_embedding.5.",
    r"\.bn([12])\.": r".norm\1.",
    r"^encoder\.swin3d\.layers\.": "swin.layers.",
    **SWIN,
    r"^encoder\.swin3d\.norm(\d)\.": r"norms.\1.",
    r"^encoder\.conv_layers\.": "mixes.",
    r"^resblocks\.": "residuals.",
    r"^decoders\.(\d)\.conv2d\.": r"decoders.\1.",
    r"^pred\.conv2d\.": "head.",
}


def _rename(key: str) -> str | None:
    return None if _NEVER_USED.match(key) else replace_in_turn(key, _OURS)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SpikeTConfig:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    need_layers(
        ours, "a Spike-T", "local_embedding.0", "global_embedding.0", "norms.0", "head",
        "swin.stages.0.0.attn.bias",
    )  # fmt: skip
    if list(kwargs.get("swin_patch_size", ())[1:]) not in ([], [PATCH, PATCH]):
        raise ValueError(
            f"Spike-T has patches of {PATCH} x {PATCH} pixels, swin_patch_size says "
            f"{kwargs['swin_patch_size']}"
        )
    depths, heads, offsets = swin_sizes(ours, "swin.stages")
    return SpikeTConfig(
        frames=ours["global_embedding.0.weight"].shape[1],
        block=ours["local_embedding.0.weight"].shape[1],
        dim=len(ours["norms.0.weight"]),
        depths=depths,
        heads=heads,
        window=(math.isqrt(offsets // (2 * _WINDOW_DEPTH - 1)) + 1) // 2,
        residual_blocks=sum(name.startswith("residuals.") for name in ours) // 4,
    )


FAMILY = Family(
    "spike_t",
    network=SpikeT,
    presets=PRESETS,
    official={"spike_t": Official(_config, _rename)},
)
