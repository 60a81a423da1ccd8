"""The parts of STNet: spiking and transformer branch, their fusion, the head.

Zhang et al. 2022, CVPR 2022; see `rheobase.models.stnet`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rheobase.layers import over_time
from rheobase.layers.swin import SwinStages
from rheobase.models._inputs import as_sequence, check_positive
from rheobase.models.registry import MakeNeuron
from rheobase.neurons import LIF, Neuron, neuron_factory
from rheobase.stateful import resumed
from rheobase.surrogate import Rectangular

__all__ = [
    "CHANNELS", "HEAD", "KERNELS", "PATCH", "DynamicThreshold", "Found", "Fusion", "Head",
    "SpikingBranch", "SpikingBranchConfig", "State", "TransformerBranch", "branch_side",
    "conv_norm", "stnet_neuron",
]  # fmt: skip

CHANNELS = 6  # three of brighter events, three of darker ones
PATCH = 4
STRIDE = 8  # of the spiking branch, and so of the scores
KERNELS = (11, 9, 5)
HEAD = 3  # convolutions of the head

State = list[Tensor | None]
"""The membranes of the spiking layers behind a frame."""


@dataclass(frozen=True)
class SpikingBranchConfig:
    """The spiking branch: channels of its three layers, which halve the image."""

    widths: tuple[int, int, int] = (64, 128, 256)

    def __post_init__(self) -> None:
        check_positive(widths=min(self.widths))


def branch_side(image: int) -> int:
    """Of the spiking branch's map of an image."""
    for kernel in KERNELS:
        image = (image - kernel) // 2 + 1
    return image


def stnet_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: a fifth of the membrane stays, the input is added whole.

    It fires above 0.3 times what the transformer's features say, and is reset to 0; rectangular
    surrogate.
    """
    defaults = {
        "tau": 1.25, "decay_input": False, "v_threshold": 0.3, "strict": True,
        "surrogate": Rectangular(1.0),
    }  # fmt: skip
    return neuron_factory(LIF, **(defaults | kwargs))


class DynamicThreshold(nn.Module):
    r"""The threshold of a whole batch, by the transformer's features.

    .. math:: \theta = \theta_0 \Big(\overline{\sigma(x)} + 10\,\frac{H}{n}\Big), \qquad
       x = \tfrac{1}{C} \textstyle\sum_c F_c \overline{F_c}

    H is the entropy of a histogram of x (averaged over the batch, scaled to 256 bins), n the
    number of bins that are not empty.
    """

    def forward(self, features: Tensor | None, base: float | Tensor) -> float | Tensor:
        """``[N, C, H, W]`` to a number, without gradient; ``base`` itself if there are none."""
        if features is None:
            return base
        f = features.detach()
        x = (f * f.mean((-2, -1), keepdim=True)).mean(1)
        grey = x.mean(0)
        low, high = grey.aminmax()
        grey = (grey - low) / (high - low).clamp_min(torch.finfo(f.dtype).tiny) * 255.0
        share = torch.histc(grey, bins=256, min=0.0, max=255.0) / grey.numel()
        entropy = -(share * (share + 1e-8).log()).sum() / share.count_nonzero()
        return base * (x.sigmoid().mean() + 10.0 * entropy)


class SpikingBranch(nn.Module):
    """Three spiking convolutions over the slices of a frame.

    >>> net = SpikingBranch(SpikingBranchConfig((4, 8, 16)))
    >>> net(torch.rand(5, 2, 6, 59, 59)).shape
    torch.Size([2, 16, 3, 3])
    """

    causal = False  # its output is a mean over the steps of a call

    def __init__(self, config: SpikingBranchConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        self.config = config
        make_neuron = make_neuron or stnet_neuron()
        a, b, c = config.widths
        self.convs = nn.ModuleList(
            nn.Conv2d(before, width, kernel, stride=2)
            for before, width, kernel in zip((3, a, b), (a, b, c), KERNELS, strict=True)
        )
        self.neurons = nn.ModuleList(make_neuron() for _ in KERNELS)
        self.threshold = DynamicThreshold()
        self.norm = nn.BatchNorm2d(c)

    def forward(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """The frame's map alone, see `frame`."""
        return self.frame(x, features)[0]

    def frame(
        self, x: Tensor, features: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """One frame, and how it leaves the membranes.

        Args:
            x: slices ``[T, N, 6, H, W]``, three channels of brighter and three of darker events.
            features: the transformer's, ``[N, C, H', W']``, which set the threshold; None: 0.3.
            state: the membranes behind the frame before; None: at rest.

        Returns:
            the mean charged membrane of the last layer, normed and rectified, ``[N, C, H', W']``;
            and the state.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank or channels, or an empty input.
        """
        if x.dim() != 5:
            raise ValueError(f"expected slices of events [T, N, 6, H, W], got {list(x.shape)}")
        brighter, darker = as_sequence(x, steps=len(x), channels=CHANNELS).chunk(2, dim=2)
        x = torch.where(brighter > darker, brighter, darker)
        neurons = [cast(Neuron, neuron) for neuron in self.neurons]
        after: State = []
        h = x
        with _firing_at(neurons, self.threshold(features, neurons[0].v_threshold)):
            for conv, neuron, before in zip(
                self.convs, neurons, state or [None] * len(neurons), strict=True
            ):
                with resumed(neuron, before):
                    x, h = neuron(over_time(x, conv), tap="h")
                    after.append(neuron.carried)
        return self.norm(h.mean(0)).relu(), after


@contextmanager
def _firing_at(neurons: list[Neuron], threshold: float | Tensor) -> Iterator[None]:
    """Let neurons have this threshold within the block."""
    kept = [neuron.v_threshold for neuron in neurons]
    for neuron in neurons:
        neuron.v_threshold = threshold
    try:
        yield
    finally:
        for neuron, own in zip(neurons, kept, strict=True):
            neuron.v_threshold = own


class TransformerBranch(nn.Module):
    """A Swin transformer over all slices of a frame at once.

    Args:
        swin: its stages.
        width: channels of the map that comes out.
        T: slices of a frame.
        size: side to which a frame is scaled.
    """

    def __init__(self, swin: SwinStages, width: int, T: int, size: int) -> None:
        super().__init__()
        self.size = size
        dim, wide = swin.widths[0], swin.widths[-1]
        self.mix = nn.Conv2d(CHANNELS * T, 3, 1)
        self.patches = nn.Conv2d(3, dim, PATCH, stride=PATCH)
        self.patch_norm = nn.LayerNorm(dim)
        self.swin = swin
        self.out_norm = nn.LayerNorm(wide)
        self.conv, self.norm = nn.Conv2d(wide, width, 3), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Slices ``[T, N, 6, H, W]`` to a map ``[N, C, side, side]``."""
        slices = torch.cat([kind.transpose(0, 1).flatten(1, 2) for kind in x.chunk(2, dim=2)], 1)
        y = interpolate(self.mix(slices), (self.size,) * 2, mode="bilinear", align_corners=True)
        tokens = self.patch_norm(self.patches(y).movedim(1, -1))
        y = self.out_norm(self.swin(tokens.unsqueeze(0))[-1].squeeze(0)).movedim(-1, 1)
        out: Tensor = self.norm(self.conv(y)).relu()
        return out


class Fusion(nn.Module):
    """What the spiking branch saw, weighted, is added to what the transformer saw.

    Attention of the former to its channels, of their sum to its places; both begin at 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(2 * width, width // 16),
            nn.ReLU(),
            nn.Linear(width // 16, width),
            nn.Sigmoid(),
        )
        self.temporal_scale = nn.Parameter(torch.zeros(1))
        self.spatial_scale = nn.Parameter(torch.zeros(1))

    def forward(self, temporal: Tensor, spatial: Tensor) -> Tensor:
        """Two maps ``[N, C, H, W]`` to one."""
        x = temporal.flatten(2)
        alike = x @ x.mT
        least = (alike.amax(-1, keepdim=True) - alike).softmax(-1)
        temporal = temporal + self.temporal_scale * (least @ x).view_as(temporal)
        weight = self.gate(torch.cat([temporal, spatial], 1).mean((-2, -1)))
        spatial = spatial + weight[..., None, None] * temporal
        x = spatial.flatten(2)
        places = (x.mT @ x).softmax(-1)
        return spatial + self.spatial_scale * (x @ places.mT).view_as(spatial)


class Found(NamedTuple):
    """Where the object may be: one entry for each of S x S places of the search crop.

    Attributes:
        score: logits of the object ``[N, S * S]``.
        centre: logits of being near its centre ``[N, S * S]``.
        box: ``[N, S * S, 4]``: left, top, right, bottom, in pixels of the crop.
    """

    score: Tensor
    centre: Tensor
    box: Tensor

    def probability(self) -> Tensor:
        """Of both, ``[N, S * S]``."""
        return self.score.sigmoid() * self.centre.sigmoid()


class Head(nn.Module):
    """The SiamFC++ head: three convolutions each for score and box.

    Args:
        width: channels of its maps.
        scores: places a side.
        search_size: pixels a side of the crop.
    """

    def __init__(self, width: int, scores: int, search_size: int) -> None:
        super().__init__()
        self.scores = scores
        self.first = (search_size - 1 - (scores - 1) * STRIDE) // 2
        self.score_convs, self.box_convs = _convolutions(width), _convolutions(width)
        self.score, self.centre = conv_norm(width, 1, 1), conv_norm(width, 1, 1)
        self.offsets = conv_norm(width, 4, 1)
        self.scale, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, scores: Tensor, boxes: Tensor) -> Found:
        """Two correlations ``[N, C, H, W]`` to what is found."""
        y = self.score_convs(scores)
        grown = self.scale * self.offsets(self.box_convs(boxes)) + self.shift
        # Not `flatten(2).mT`: of one sample PyTorch 2.13's batch norm takes a gradient so laid out
        # for another.
        offsets = (grown.exp() * STRIDE).movedim(1, -1).flatten(1, 2)
        at = self.first + STRIDE * torch.arange(self.scores, device=y.device, dtype=y.dtype)
        row, column = torch.meshgrid(at, at, indexing="ij")
        place = torch.stack([column, row], -1).flatten(0, 1)
        box = torch.cat([place - offsets[..., :2], place + offsets[..., 2:]], -1)
        return Found(self.score(y).flatten(1), self.centre(y).flatten(1), box)


def conv_norm(channels: int, width: int, kernel: int) -> nn.Sequential:
    """A convolution without padding, and its norm."""
    return nn.Sequential(nn.Conv2d(channels, width, kernel), nn.BatchNorm2d(width))


def _convolutions(width: int) -> nn.Sequential:
    """Three of them; the last has a norm."""
    layers: list[nn.Module] = []
    for i in range(HEAD):
        layers += [nn.Conv2d(width, width, 3)]
        layers += [nn.BatchNorm2d(width)] if i == HEAD - 1 else []
        layers += [nn.ReLU()]
    return nn.Sequential(*layers)
