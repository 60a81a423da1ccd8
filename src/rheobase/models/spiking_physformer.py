"""Spiking-PhysFormer: the pulse in a video of a face, by a hybrid of PhysFormer and spiking blocks.

Liu et al. 2024, "Spiking-PhysFormer: Camera-Based Remote Photoplethysmography with Parallel
Spike-driven Transformer", arXiv 2402.04798; its repository holds no code. Of it were at hand the
abstract, and what others' reimplementations quote of the paper (its equations 5 to 8, T = 4, four
blocks, 96 channels, hard reset, arctangent surrogate). A reconstruction. Embedding and predictor
are real-valued and PhysFormer's (Yu et al. 2022, arXiv 2111.12082); in a block attention and MLP
stand side by side. Attention has no weights for values: spikes of queries and keys are multiplied
and summed over channels, and what a neuron makes of the sum masks the values.

Chosen here: kernels of 3 for queries and of 1 for keys, the share of the temporal difference (0.7),
four heads, the MLP's width, the mean over steps before the predictor; and that neurons add their
input whole: if they halved it, as SpikingJelly's do, the one behind the mask, which is given
spikes, could never fire. No published number holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import conv3d

from rheobase.layers import over_time, repeat
from rheobase.models._inputs import check_divides, check_positive
from rheobase.models.registry import Family, MakeNeuron
from rheobase.neurons import LIF, neuron_factory
from rheobase.surrogate import ATan

__all__ = ["FAMILY", "PRESETS", "SpikingPhysFormer", "SpikingPhysFormerConfig"]

_STEM = 8  # the stem's three poolings
_PATCH = 4


@dataclass(frozen=True)
class SpikingPhysFormerConfig:
    """One Spiking-PhysFormer.

    Args:
        frames: of the video it is meant for; any other multiple of 4 works.
        image_size: side of the frames it is meant for; any other multiple of 32 works.
        channels: of the video.
        dim: channels of a token; a multiple of 4.
        depth: blocks.
        heads: of the attention; divides ``dim``.
        T: time steps that the video's tokens are repeated for.
        difference: share of the temporal difference in queries, from 0 to 1.
        mlp_ratio: hidden width of the MLP over ``dim``.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    frames: int = 160
    image_size: int = 128
    channels: int = 3
    dim: int = 96
    depth: int = 4
    heads: int = 4
    T: int = 4
    difference: float = 0.7
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        check_positive(
            channels=self.channels, dim=self.dim, depth=self.depth, T=self.T,
            mlp_ratio=self.mlp_ratio,
        )  # fmt: skip
        check_divides("4", 4, self.dim, f"dim={self.dim}")
        check_divides("heads", self.heads, self.dim, f"dim={self.dim}")
        if not 0.0 <= self.difference <= 1.0:
            raise ValueError(f"difference is a share from 0 to 1, got {self.difference}")
        _check_video(self.frames, [self.image_size])


def _check_video(frames: int, sides: Sequence[int]) -> None:
    of = _STEM * _PATCH
    if frames < _PATCH or frames % _PATCH or any(side < of or side % of for side in sides):
        raise ValueError(
            f"a video's frames must be a multiple of {_PATCH} and its sides of {of}; got {frames} "
            f"frames of {' x '.join(map(str, sides))}"
        )


def physformer_neuron(**kwargs: object) -> MakeNeuron:
    """LIF that halves its membrane and adds its input whole; hard reset, arctangent surrogate."""
    defaults = {"decay_input": False, "detach_reset": True, "surrogate": ATan(2.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class TemporalDifferenceConv3d(nn.Conv3d):
    r"""A convolution that sees, beside its neighbours in time, how they differ from its centre.

    .. math:: y = w * x - \theta \, x_0 \textstyle\sum w_{\pm 1}

    the sum being over all weights of the frames before and after. Source: PhysFormer.

    Args:
        width: channels in and out.
        difference: :math:`\theta`.
    """

    def __init__(self, width: int, difference: float) -> None:
        super().__init__(width, width, 3, padding=1, bias=False)
        self.difference = difference

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C, D, H, W]`` to the same shape."""
        around = self.weight[:, :, ::2].sum((2, 3, 4), keepdim=True)
        return super().forward(input) - self.difference * conv3d(input, around)


class MaskingAttention(nn.Module):
    """Simplified spiking self-attention (S3A): queries and keys decide which values pass."""

    def __init__(self, config: SpikingPhysFormerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.q = TemporalDifferenceConv3d(dim, config.difference)
        self.k = nn.Conv3d(dim, dim, 1, bias=False)
        self.q_norm, self.k_norm, self.v_norm = (nn.BatchNorm3d(dim) for _ in range(3))
        self.q_neuron, self.k_neuron, self.v_neuron = (make_neuron() for _ in range(3))
        self.mask, self.neuron = make_neuron(), make_neuron()
        self.proj, self.proj_norm = nn.Conv3d(dim, dim, 1, bias=False), nn.BatchNorm3d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, C, D, H, W]`` to membranes of the same shape."""
        q = over_time(x, self.q, self.q_norm, self.q_neuron)
        k = over_time(x, self.k, self.k_norm, self.k_neuron)
        v = over_time(x, self.v_norm, self.v_neuron)
        q, k, v = (z.unflatten(2, (self.heads, -1)) for z in (q, k, v))  # type: ignore[no-untyped-call]
        passed = self.mask((q * k).sum(3, keepdim=True)) * v
        return over_time(self.neuron(passed.flatten(2, 3)), self.proj, self.proj_norm)


class ParallelBlock(nn.Module):
    """Attention and MLP beside each other, of the same spikes, both added to the stream."""

    def __init__(self, config: SpikingPhysFormerConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.norm, self.neuron = nn.BatchNorm3d(dim), make_neuron()
        self.attn = MaskingAttention(config, make_neuron)
        self.fc1, self.norm1 = nn.Conv3d(dim, hidden, 1, bias=False), nn.BatchNorm3d(hidden)
        self.mlp_neuron = make_neuron()
        self.fc2, self.norm2 = nn.Conv3d(hidden, dim, 1, bias=False), nn.BatchNorm3d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes ``[T, N, C, D, H, W]`` to the same shape."""
        spikes = over_time(x, self.norm, self.neuron)
        mlp = over_time(spikes, self.fc1, self.norm1, self.mlp_neuron, self.fc2, self.norm2)
        y: Tensor = x + self.attn(spikes) + mlp
        return y


def _stem(channels: int, width: int, kernel: tuple[int, int, int]) -> nn.Sequential:
    """A convolution in space and time that halves the frames."""
    conv = nn.Conv3d(
        channels, width, kernel, padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    )
    return nn.Sequential(conv, nn.BatchNorm3d(width), nn.ReLU(), nn.MaxPool3d((1, 2, 2)))


def _doubling(channels: int, width: int) -> nn.Sequential:
    """Twice as many steps of the video."""
    conv = nn.Conv3d(channels, width, (3, 1, 1), padding=(1, 0, 0))
    return nn.Sequential(nn.Upsample(scale_factor=(2, 1, 1)), conv, nn.BatchNorm3d(width), nn.ELU())


class SpikingPhysFormer(nn.Module):
    """Spiking-PhysFormer, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> import torch
    >>> net = SpikingPhysFormer(SpikingPhysFormerConfig(dim=8, depth=1))
    >>> net(torch.rand(1, 3, 8, 32, 32)).shape
    torch.Size([1, 8])
    """

    causal = False  # the mean over all steps

    def __init__(
        self, config: SpikingPhysFormerConfig, make_neuron: MakeNeuron | None = None
    ) -> None:
        super().__init__()
        make_neuron = make_neuron or physformer_neuron()
        self.config = config
        self.T = config.T
        dim = config.dim
        self.embedding = nn.Sequential(
            _stem(config.channels, dim // 4, (1, 5, 5)),
            _stem(dim // 4, dim // 2, (3, 3, 3)),
            _stem(dim // 2, dim, (3, 3, 3)),
            nn.Conv3d(dim, dim, _PATCH, stride=_PATCH),
        )
        self.blocks = nn.ModuleList(ParallelBlock(config, make_neuron) for _ in range(config.depth))
        self.predictor = nn.Sequential(_doubling(dim, dim), _doubling(dim, dim // 2))
        self.head = nn.Conv1d(dim // 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The pulse, a number for each frame.

        Args:
            x: videos of faces ``[N, channels, frames, H, W]``.

        Returns:
            ``[N, frames]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels, frames or sides, or an empty input.
        """
        channels = self.config.channels
        if not x.is_floating_point():
            raise TypeError(f"the network takes floating point, got {x.dtype}; call x.float()")
        if x.dim() != 5 or x.shape[1] != channels or not len(x):
            raise ValueError(
                f"the network takes videos [N, {channels}, frames, H, W], got {list(x.shape)}"
            )
        _check_video(x.shape[2], x.shape[3:])
        y = repeat(self.embedding(x), self.T)
        for block in self.blocks:
            y = block(y)
        pulse: Tensor = self.head(self.predictor(y.mean(0)).mean((-2, -1)))
        return pulse.squeeze(1)


PRESETS = {"spiking_physformer": SpikingPhysFormerConfig()}

FAMILY = Family(
    "spiking_physformer", network=SpikingPhysFormer, presets=PRESETS, neuron=physformer_neuron
)
