"""STNet on a recording: the object that a box names in the first frame, followed frame by frame.

Cropping, and what is made of scores and boxes, are those of SiamFC++ (Xu et al. 2020, arXiv
1911.06188) with the numbers of Jee-King/CVPR2022_STNet. How its event images were drawn is not
published. Chosen here: a pixel is 255 where it saw an event of its kind in a slice, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rheobase.data import Events, event_slices
from rheobase.models.stnet import State, STNet

__all__ = ["Tracking", "event_images", "track"]

Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the frame."""


@dataclass(frozen=True)
class Tracking:
    """How scores become a box.

    Args:
        context: what is cropped around the object, over its mean side.
        penalty: on boxes of another size or shape than the last.
        window: share of a cosine window around the last place.
        rate: how fast the size follows.
        smallest: side of a box.
    """

    context: float = 0.5
    penalty: float = 0.04
    window: float = 0.21
    rate: float = 0.52
    smallest: float = 10.0


def event_images(
    events: Events, frame: int, *, shape: tuple[int, int], slices: int = 5
) -> Iterator[Tensor]:
    """The frames that STNet takes, of a recording from its first event on.

    Args:
        events: the recording, in order of time, such as `rheobase.data.read_aedat3` gives.
        frame: microseconds a frame.
        shape: ``(H, W)`` of the camera.
        slices: T.

    Yields:
        ``[T, 6, H, W]``, 0 or 255: three equal channels of brighter, three of darker events.

    Raises:
        ValueError: the recording is shorter than a frame, or has pixels outside ``shape``.

    >>> import numpy as np
    >>> t = np.arange(20)
    >>> frames = list(event_images(Events(t, t % 4, t % 3, t % 2), 10, shape=(3, 4)))
    >>> [tuple(frame.shape) for frame in frames]
    [(5, 6, 3, 4), (5, 6, 3, 4)]
    """
    length = int(events.t[-1] - events.t[0]) + 1 if len(events) else 0
    if length < frame:
        raise ValueError(f"the recording lasts {length} microseconds, less than a frame of {frame}")
    for number in range(length // frame):
        start = int(events.t[0]) + number * frame
        seen = event_slices(events, start, frame, slices, shape=shape).gt(0.0) * 255.0
        yield seen.flip(1).repeat_interleave(3, dim=1)


@torch.no_grad()
def track(
    net: STNet, frames: Iterable[Tensor], box: Box, settings: Tracking | None = None
) -> Tensor:
    """Follow an object.

    Args:
        net: with trained weights; it is put into evaluation mode.
        frames: each ``[T, 6, H, W]``, as `event_images` gives.
        box: the object in the first of them: left, top, width, height.
        settings: how scores become a box; default the published ones.

    Returns:
        a box for every frame, ``[frames, 4]`` of float64; the first is the one given.

    Raises:
        ValueError: there is no frame, or the box has no area.
    """
    if len(box) != 4 or min(box[2:]) <= 0:
        raise ValueError(f"the box is left, top, width and height, of some area; got {box}")
    settings = settings or Tracking()
    net.eval()
    like = next(net.parameters())
    follower = None
    boxes = []
    for frame in frames:
        frame = frame.to(like)
        if follower is None:
            follower = _Follower(net, settings, frame, box)
        else:
            follower.follow(frame)
        boxes.append(follower.box())
    if not boxes:
        raise ValueError("there is no frame to find the object in")
    return torch.tensor(boxes, dtype=torch.float64)


class _Follower:
    """Where the object is, and how big; what it looks like; the membranes of the network."""

    def __init__(self, net: STNet, settings: Tracking, frame: Tensor, box: Box) -> None:
        self.net, self.settings = net, settings
        left, top, self.width, self.height = map(float, box)
        self.x, self.y = left + (self.width - 1) / 2, top + (self.height - 1) / 2
        # Beyond the frame's edge the last slice's mean is seen, cut to an integer.
        self.outside = frame[-1, :3].mean((-2, -1)).trunc()
        side = net.config.template_size
        self.template = net.remember(self._crop(frame, side, side / self._scale()))
        self.state: State | None = None
        hann = torch.hann_window(net.config.scores, periodic=False).to(frame)
        self.window = hann.outer(hann).flatten()

    def box(self) -> Box:
        """Left, top, width and height."""
        return (
            self.x - (self.width - 1) / 2, self.y - (self.height - 1) / 2, self.width, self.height
        )  # fmt: skip

    def follow(self, frame: Tensor) -> None:
        """Find the object in the next frame."""
        side, scale = self.net.config.search_size, self._scale()
        crop = self._crop(frame, side, side / scale)
        found, self.state = self.net.find(self.template, crop, self.state)
        score, box = found.probability()[0], found.box[0]
        sizes = box[:, 2:] - box[:, :2] + 1
        centres = (box[:, 2:] + box[:, :2]) / 2
        penalty = self._penalty(sizes, scale)
        share = self.settings.window
        best = int((score * penalty * (1 - share) + self.window * share).argmax())
        rate = float(penalty[best] * score[best]) * self.settings.rate
        x, y = (centres[best] / scale - side // 2 / scale).tolist()
        w, h = (sizes[best] / scale).tolist()
        rows, columns = frame.shape[-2:]
        least = self.settings.smallest
        self.x = min(max(self.x + x, 0.0), columns)
        self.y = min(max(self.y + y, 0.0), rows)
        self.width = min(max(self.width * (1 - rate) + w * rate, least), columns)
        self.height = min(max(self.height * (1 - rate) + h * rate, least), rows)

    def _penalty(self, sizes: Tensor, scale: float) -> Tensor:
        """1 for a box as big and as wide as the last, less for others."""
        last = sizes.new_tensor([self.width, self.height]) * scale
        size = _more(_padded(sizes) / _padded(last))
        ratio = _more((last[0] / last[1]) / (sizes[:, 0] / sizes[:, 1]))
        return (-(size * ratio - 1) * self.settings.penalty).exp()

    def _scale(self) -> float:
        """Pixels of the crop to one of the frame."""
        more = self.settings.context * (self.width + self.height)
        return self.net.config.template_size / math.sqrt((self.width + more) * (self.height + more))

    def _crop(self, frame: Tensor, side: int, extent: float) -> Tensor:
        """A square of ``extent`` pixels around the object, scaled: ``[T, 1, 6, side, side]``."""
        rows, columns = frame.shape[-2:]
        reach = (round(extent) - 1) / 2
        steps = torch.linspace(-reach, reach, side, dtype=frame.dtype, device=frame.device)
        # `grid_sample` counts the frame from -1 to 1.
        x = (self.x + steps) * 2 / (columns - 1) - 1
        y = (self.y + steps) * 2 / (rows - 1) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(len(frame), -1, -1, -1)
        outside = self.outside.repeat(2)[:, None, None]
        crop = grid_sample(frame - outside, grid, align_corners=True) + outside
        return crop.unsqueeze(1)


def _padded(size: Tensor) -> Tensor:
    """The side of the square that is cropped around boxes ``[..., 2]``."""
    pad = size.sum(-1) / 2
    return ((size[..., 0] + pad) * (size[..., 1] + pad)).sqrt()


def _more(ratio: Tensor) -> Tensor:
    """By how many times two sizes differ, 1 or more."""
    return torch.maximum(ratio, 1 / ratio)
