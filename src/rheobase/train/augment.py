"""Image augmentation whose randomness is a function of (seed, epoch, sample) alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.train.config import AugmentConfig, DataConfig
from rheobase.train.seeding import seed_of

__all__ = ["Augment", "mix", "normalize", "random_flip", "random_shift"]


def random_shift(image: Tensor, pixels: int, rng: torch.Generator) -> Tensor:
    """Shift `image` `[..., H, W]` by up to `pixels` in each direction, filling with zeros."""
    height, width = image.shape[-2:]
    dy, dx = torch.randint(0, 2 * pixels + 1, (2,), generator=rng).tolist()
    padded = F.pad(image, (pixels, pixels, pixels, pixels))
    return padded[..., dy : dy + height, dx : dx + width]


def random_flip(image: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Mirror `image` `[..., H, W]` left to right with the given probability."""
    flip = torch.rand((), generator=rng).item() < probability
    return image.flip(-1) if flip else image


def normalize(image: Tensor, cfg: DataConfig) -> Tensor:
    """Return `(image - mean) / std` per channel (`[..., C, H, W]`), or `image` if none is set."""
    if not cfg.mean:
        return image
    mean = torch.tensor(cfg.mean, dtype=image.dtype).view(-1, 1, 1)
    std = torch.tensor(cfg.std, dtype=image.dtype).view(-1, 1, 1)
    return (image - mean) / std


class Augment:
    """Augment and normalise one training image `[C, H, W]` with values in [0, 1].

    RandAugment, resized crop and erasing are kornia's, which draws from PyTorch's global CPU
    generator; it is set to this sample's seed for the call and put back afterwards.

    Raises:
        ImportError: The configuration needs kornia and it is not installed.
    """

    def __init__(self, cfg: AugmentConfig, data: DataConfig, seed: int) -> None:
        self.cfg, self.data, self.seed = cfg, data, seed
        self.crop: Any = None
        self.rand: Any = None
        self.erase: Any = None
        if not (cfg.resized_crop or cfg.randaugment_n or cfg.erasing):
            return
        kornia = _kornia()
        if cfg.resized_crop:
            size = (cfg.resized_crop, cfg.resized_crop)
            self.crop = kornia.RandomResizedCrop(size, scale=(0.08, 1.0))
        if cfg.randaugment_n:
            self.rand = kornia.auto.RandAugment(cfg.randaugment_n, cfg.randaugment_m)  # type: ignore[arg-type,unused-ignore]
        if cfg.erasing:
            self.erase = kornia.RandomErasing(p=cfg.erasing, scale=(0.02, 1 / 3), ratio=(0.3, 3.3))

    def __call__(self, image: Tensor, epoch: int, sample: int) -> Tensor:
        """Return the image as epoch `epoch` sees sample `sample`."""
        rng = torch.Generator().manual_seed(seed_of(self.seed, "augment", epoch, sample))
        if self.cfg.shift:
            image = random_shift(image, self.cfg.shift, rng)
        if self.cfg.flip:
            image = random_flip(image, self.cfg.flip, rng)
        if self.crop or self.rand or self.erase:
            return self._library(image, int(torch.randint(2**62, (), generator=rng)))
        return normalize(image, self.data)

    def _library(self, image: Tensor, seed: int) -> Tensor:
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(seed)
        batch = image.unsqueeze(0)
        if self.crop:
            batch = self.crop(batch)
        if self.rand:
            magnitude = self.cfg.randaugment_m + self.cfg.randaugment_std * float(torch.randn(()))
            self.rand.m = min(max(magnitude, 0.0), 30.0)
            batch = self.rand(batch)
        batch = normalize(batch, self.data)
        if self.erase:
            batch = self.erase(batch)
        generator.set_state(before)
        return batch.squeeze(0)


def mix(
    images: Tensor, labels: Tensor, classes: int, cfg: AugmentConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix neighbouring images by mixup or CutMix; return images and soft targets `[N, classes]`.

    Sample 2i is paired with sample 2i+1, never with one further away: batches are cut among
    processes in contiguous even pieces, so the pairs are the same for any number of processes.
    One mixing factor (Beta distributed) and one box serve the whole batch; when both methods are
    on, a fair coin picks one.
    """
    use_cutmix = cfg.cutmix > 0 and (cfg.mixup <= 0 or torch.rand((), generator=rng).item() < 0.5)
    share = _beta(cfg.cutmix if use_cutmix else cfg.mixup, rng)
    order = torch.arange(len(images), device=images.device)
    partner = (order ^ 1).clamp(max=len(images) - 1)
    if use_cutmix:
        top, bottom, left, right = _box(images.shape[-2], images.shape[-1], share, rng)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[partner][..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
    else:
        mixed = share * images + (1 - share) * images[partner]
    target = F.one_hot(labels, classes).to(images.dtype)
    return mixed, share * target + (1 - share) * target[partner]


def _beta(alpha: float, rng: torch.Generator) -> float:
    """Draw Beta(alpha, alpha) as a ratio of Gamma draws, which alone take a generator."""
    shape = torch.full((2,), alpha, dtype=torch.float64)
    first, second = torch._standard_gamma(shape, generator=rng).tolist()
    return first / (first + second) if first + second else 0.5


def _box(height: int, width: int, share: float, rng: torch.Generator) -> tuple[int, int, int, int]:
    """Return a box of area `1 - share` around a random centre, clipped to the image."""
    side = (1 - share) ** 0.5
    y = int(torch.randint(height, (), generator=rng))
    x = int(torch.randint(width, (), generator=rng))
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    return (
        max(y - half_h, 0), min(y + half_h, height),
        max(x - half_w, 0), min(x + half_w, width),
    )  # fmt: skip


def _kornia() -> Any:
    try:
        import kornia.augmentation
        import kornia.augmentation.auto
    except ImportError as error:
        raise ImportError(
            "resized_crop, randaugment_n and erasing need kornia: pip install rheobase[augment]"
        ) from error
    return kornia.augmentation
