"""SDiT: images out of noise, by a spiking diffusion transformer with RWKV in attention's place.

Yang et al. 2024, "SDiT: Spiking Diffusion Model with Transformer", arXiv 2402.11588, has no public
code. Of it were at hand the abstract and public reviews, which tell: a transformer in place of the
U-net, RWKV's time mixing (of tokens, each mixed with the one before) in place of attention, its
channel mixing in place of the MLP, and a reconstruction module that is to make up for what is lost
when neurons fire; MNIST, Fashion-MNIST and CIFAR-10. A reconstruction. All of the rest is chosen
here: that the reconstruction module is a linear layer beside each mixing, which sees the neuron's
input; layer norms; sizes; how the noise's level is told; DDPM (Ho et al. 2020, arXiv 2006.11239)
with its linear schedule. No published number holds it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad

from rheobase.layers import over_time, repeat
from rheobase.layers.wkv import weighted_key_values
from rheobase.models._initialise import initialise_layers
from rheobase.models._inputs import check_sizes
from rheobase.models.registry import Family, MakeNeuron
from rheobase.models.spikformer import spikformer_neuron

__all__ = ["FAMILY", "PRESETS", "SDiT", "SDiTConfig", "denoising_loss", "generate"]

_LEAST, _MOST = 1e-4, 0.02  # what the first and the last of 1000 levels add


@dataclass(frozen=True)
class SDiTConfig:
    """One SDiT.

    Args:
        depth: blocks.
        dim: channels of a token, even.
        image_size: side of the images.
        channels: of the images.
        patch_size: pixels to a token's side; divides ``image_size``.
        T: time steps of the neurons.
        levels: steps of noise, from none to nothing else; more than 20.
        mlp_ratio: hidden width of the channel mixing over ``dim``.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    depth: int = 8
    dim: int = 384
    image_size: int = 28
    channels: int = 1
    patch_size: int = 4
    T: int = 4
    levels: int = 1000
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        check_sizes(
            dim=self.dim, dim_multiple=2, heads=1, image_size=self.image_size,
            patch_size=self.patch_size, depth=self.depth, channels=self.channels, T=self.T,
            levels=self.levels, mlp_ratio=self.mlp_ratio,
        )  # fmt: skip
        if self.levels <= 1000 * _MOST:
            raise ValueError(
                f"levels={self.levels} are too few: the last would add more noise than there is; "
                f"take more than {1000 * _MOST:g}"
            )


class Mixing(nn.Module):
    """Norm and neuron, what mixes their spikes, and the reconstruction module beside it."""

    def __init__(self, config: SDiTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        dim = config.dim
        self.norm, self.neuron = nn.LayerNorm(dim), make_neuron()
        self.reconstruction = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, tokens, dim]`` to the same shape."""
        current = over_time(x, self.norm)
        spikes = self.neuron(current)
        before = pad(spikes, (0, 0, 1, -1))  # the token before; of the first there is none
        y: Tensor = self.mixed(spikes, before) + self.reconstruction(current)
        return y

    def mixed(self, x: Tensor, before: Tensor) -> Tensor:
        """Spikes, and those of the token before each."""
        raise NotImplementedError


def _share(dim: int) -> nn.Parameter:
    """How much of a token, and how little of the one before, each channel sees."""
    return nn.Parameter(torch.full((dim,), 0.5))


class TimeMixing(Mixing):
    """RWKV's attention over tokens, gated by the receptance."""

    def __init__(self, config: SDiTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__(config, make_neuron)
        dim = config.dim
        self.share_r, self.share_k, self.share_v = (_share(dim) for _ in range(3))
        self.receptance, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.decay = nn.Parameter(torch.linspace(-5.0, 3.0, dim))  # of which the exponential is w
        self.first = nn.Parameter(torch.full((dim,), math.log(0.3)))
        self.proj = nn.Linear(dim, dim, bias=False)

    def mixed(self, x: Tensor, before: Tensor) -> Tensor:
        """See `Mixing`."""
        r, k, v = (
            layer(before + share * (x - before))
            for layer, share in (
                (self.receptance, self.share_r),
                (self.key, self.share_k),
                (self.value, self.share_v),
            )
        )
        y, _ = weighted_key_values(k.movedim(2, 0), v.movedim(2, 0), self.decay.exp(), self.first)
        out: Tensor = self.proj(r.sigmoid() * y.movedim(0, 2))
        return out


class ChannelMixing(Mixing):
    """RWKV's feed-forward network, gated by the receptance."""

    def __init__(self, config: SDiTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__(config, make_neuron)
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.share_r, self.share_k = _share(dim), _share(dim)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.key, self.value = (
            nn.Linear(dim, hidden, bias=False),
            nn.Linear(hidden, dim, bias=False),
        )

    def mixed(self, x: Tensor, before: Tensor) -> Tensor:
        """See `Mixing`."""
        r = self.receptance(before + self.share_r * (x - before))
        k = self.key(before + self.share_k * (x - before))
        out: Tensor = r.sigmoid() * self.value(k.relu().square())
        return out


class SDiT(nn.Module):
    """SDiT, a reconstruction.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default Spikformer's.

    >>> import torch
    >>> net = SDiT(SDiTConfig(depth=1, dim=16))
    >>> net(torch.randn(2, 1, 28, 28), torch.tensor([0, 999])).shape
    torch.Size([2, 1, 28, 28])
    """

    causal = False  # the mean over all steps

    def __init__(self, config: SDiTConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or spikformer_neuron()
        self.config = config
        self.T = config.T
        dim, patch = config.dim, config.patch_size
        self.patches = nn.Conv2d(config.channels, dim, patch, stride=patch)
        tokens = (config.image_size // patch) ** 2
        self.position = nn.Parameter(nn.init.trunc_normal_(torch.zeros(tokens, dim), std=0.02))
        self.level = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(
            nn.ModuleList([TimeMixing(config, make_neuron), ChannelMixing(config, make_neuron)])
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, config.channels * patch * patch)
        initialise_layers(self, nn.Linear)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """The noise in images.

        Args:
            x: ``[N, C, H, W]``, of the size that the network was built for.
            level: of their noise, whole numbers from 0 to ``levels - 1``, ``[N]``.

        Returns:
            ``[N, C, H, W]``.

        Raises:
            ValueError: another shape, or a level that there is not.
        """
        config = self.config
        wanted = [config.channels, config.image_size, config.image_size]
        if x.dim() != 4 or list(x.shape[1:]) != wanted or level.shape != x.shape[:1]:
            raise ValueError(
                f"the network takes images [N, {', '.join(map(str, wanted))}] and a level for "
                f"each, got {list(x.shape)} and {list(level.shape)}"
            )
        if level.min() < 0 or level.max() >= config.levels:
            raise ValueError(f"levels of noise go from 0 to {config.levels - 1}, got {level}")
        tokens = self.patches(x).flatten(2).mT + self.position
        tokens = tokens + self.level(_waves(level, config.dim).to(x)).unsqueeze(1)
        y = repeat(tokens, self.T)
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            for mixing in block:
                y = y + mixing(y)
        side, patch = config.image_size // config.patch_size, config.patch_size
        pixels = self.head(self.norm(y.mean(0)))
        pixels = pixels.unflatten(1, (side, side)).unflatten(-1, (config.channels, patch, patch))
        noise: Tensor = pixels.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        return noise


def _waves(level: Tensor, dim: int) -> Tensor:
    """Cosines and sines of a number, ``[N, dim]``."""
    period = 10000.0 ** (torch.arange(dim // 2, device=level.device) / (dim // 2))
    angle = level.unsqueeze(1) / period
    return torch.cat([angle.cos(), angle.sin()], 1)


def _kept(levels: int, like: Tensor) -> Tensor:
    """The share of the image's power left at each level, ``[levels]``."""
    added = torch.linspace(_LEAST, _MOST, levels, dtype=torch.float64)
    return (1.0 - added * 1000.0 / levels).cumprod(0).to(like)


def denoising_loss(net: SDiT, images: Tensor) -> Tensor:
    """The mean squared error of the noise that a network sees in images, at levels drawn at random.

    Args:
        net: the network.
        images: ``[N, C, H, W]``, from -1 to 1.
    """
    level = torch.randint(net.config.levels, (len(images),), device=images.device)
    kept = _kept(net.config.levels, images)[level].view(-1, 1, 1, 1)
    noise = torch.randn_like(images)
    return mse_loss(net(kept.sqrt() * images + (1.0 - kept).sqrt() * noise, level), noise)


@torch.no_grad()
def generate(net: SDiT, number: int) -> Tensor:
    """Images out of noise, level by level (DDPM's sampling, variance of the noise added).

    Args:
        net: trained; in evaluation mode.
        number: of images.

    Returns:
        ``[number, C, H, W]``, about -1 to 1.
    """
    config = net.config
    like = net.position
    x = torch.randn(number, config.channels, config.image_size, config.image_size).to(like)
    kept = _kept(config.levels, like)
    for i in reversed(range(config.levels)):
        before = kept[i - 1] if i else torch.ones_like(kept[0])
        added = 1.0 - kept[i] / before
        noise = net(x, torch.full((number,), i, device=x.device))
        x = (x - added / (1.0 - kept[i]).sqrt() * noise) / (1.0 - added).sqrt()
        if i:
            x = x + added.sqrt() * torch.randn_like(x)
    return x


PRESETS = {
    "sdit_mnist": SDiTConfig(),
    "sdit_cifar10": SDiTConfig(image_size=32, channels=3),
}

FAMILY = Family("sdit", network=SDiT, presets=PRESETS, neuron=spikformer_neuron)
