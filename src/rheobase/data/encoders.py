"""From images to spike trains: direct, rate and latency coding, time first.

Every encoder takes ``[...]`` (usually ``[N, C, H, W]``) and returns ``[T, ...]`` of the same dtype.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from rheobase.layers import repeat

__all__ = ["direct", "latency", "rate", "sample_generator"]


def direct(images: Tensor, T: int) -> Tensor:
    """Show the same image at every step; the first layer of the network makes the spikes.

    Nothing is copied: the result has stride 0 over time. Values may be of any range
    (Rueckauer et al., Frontiers in Neuroscience 2017, analogue input).

    >>> direct(torch.ones(2, 1, 4, 4), T=3).shape
    torch.Size([3, 2, 1, 4, 4])
    """
    _require_steps(T)
    return repeat(images, T)


def rate(images: Tensor, T: int, generator: Generator | None = None) -> Tensor:
    """Draw each spike by itself with the pixel as its probability (Bernoulli rate coding).

    ``generator`` makes the draw repeatable; see :func:`sample_generator`.

    >>> rate(torch.tensor([0.0, 1.0]), T=2).tolist()
    [[0.0, 1.0], [0.0, 1.0]]

    Raises:
        TypeError: ``images`` is not floating.
        ValueError: a value is outside 0..1, ``images`` is empty, or ``T`` is below 1.
    """
    _require_intensities(images)
    _require_steps(T)
    return torch.bernoulli(images.expand(T, *images.shape), generator=generator)


def latency(images: Tensor, T: int, tau: float | None = None, threshold: float = 0.01) -> Tensor:
    """Let each pixel above ``threshold`` fire once, the brighter the sooner.

    The step of the spike, rounded to the nearest, is

    - linear (``tau=None``): ``(T - 1) (1 - x)``, so that the code fills the window;
    - logarithmic: ``tau ln(x / (x - threshold))``, the time at which a membrane with time constant
      ``tau`` (in steps) charged by the constant current ``x`` reaches the threshold. Pixels that
      would fire after step ``T - 1`` stay silent.

    These are the codes of snnTorch's ``spikegen.latency`` (Eshraghian et al., Proc. IEEE 2023) with
    ``clip=True`` and ``linear=True, normalize=True`` or ``bypass=True``.

    >>> latency(torch.tensor([1.0, 0.5, 0.0]), T=3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]

    Raises:
        TypeError: ``images`` is not floating.
        ValueError: a value is outside 0..1, ``images`` is empty, ``T`` is below 1, ``tau`` is not
            positive, or ``threshold`` is outside 0..1 (0 is for the linear code alone).
    """
    _require_intensities(images)
    _require_steps(T)
    if tau is not None and not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau must be a positive number of steps, got {tau}")
    if not 0 <= threshold < 1 or (threshold == 0 and tau is not None):
        raise ValueError(
            f"threshold must lie between 0 and 1 (above 0 with tau given), got {threshold}"
        )
    if tau is None:
        time = (T - 1) * (1 - images)
    else:
        time = tau * torch.log(images / (images - threshold))
    steps = torch.arange(T, device=images.device).view(T, *[1] * images.ndim)
    return ((steps == time.round()) & (images > threshold)).to(images.dtype)


def sample_generator(seed: int, epoch: int, index: int) -> Generator:
    """Return a CPU generator keyed by (seed, epoch, sample).

    A sample's draw then never depends on rank, worker, batch or order.

    >>> rate(torch.rand(8), T=4, generator=sample_generator(0, epoch=1, index=7)).shape
    torch.Size([4, 8])

    Raises:
        ValueError: one of the three is negative.
    """
    if min(seed, epoch, index) < 0:
        raise ValueError(f"seed, epoch and index must not be negative, got {seed, epoch, index}")
    state = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _require_steps(T: int) -> None:
    if T < 1:
        raise ValueError(f"T, the number of time steps, must be at least 1, got {T}")


def _require_intensities(images: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(
            f"expected floating images in 0..1, got {images.dtype}: use x.float() / 255"
        )
    if images.numel() == 0:
        raise ValueError(f"expected at least one image, got the empty shape {list(images.shape)}")
    low, high = (bound.item() for bound in images.aminmax())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ValueError(
            f"expected values in 0..1, got {low:g}..{high:g}: rescale the images first"
        )
