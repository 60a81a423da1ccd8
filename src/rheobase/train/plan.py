"""What a run will need, before it starts: peak memory and step time, from a probe of seconds.

Two training steps on few images are measured; memory and time grow with the number of images in a
straight line, from what weights, optimiser and program take.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rheobase.data.registry import frames_of, words_of_sample
from rheobase.data.sequences import Sequences
from rheobase.models import create_model
from rheobase.train.config import TrainConfig
from rheobase.train.evaluate import autocast
from rheobase.train.losses import build_objective
from rheobase.train.memory import keep_within_memory
from rheobase.train.optim import build_optimizer
from rheobase.train.parallel import start_world

__all__ = ["Plan", "plan"]

_PROBE = 4  # images; the second probe takes twice as many
_TIMES, _LONG = 5, 1.0  # a step is timed so often, or until that many seconds are gone
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Plan:
    """What one process will need.

    Attributes:
        images: Images of one forward pass.
        probed: Images of the measured steps.
        peak_bytes: Largest memory of the process (on a GPU, of its tensors).
        image_bytes: What one image adds to it.
        step_seconds: One optimiser step, data loading and the exchange of gradients not included.
        parameters: Number of trained parameters.
    """

    images: int
    probed: tuple[int, int]
    peak_bytes: float
    image_bytes: float
    step_seconds: float
    parameters: int

    def fits(self, memory: float) -> int:
        """The most images of one forward pass that fit into so many bytes; 0 if none does."""
        fixed = self.peak_bytes - self.images * self.image_bytes
        return max(0, int((memory - fixed) / self.image_bytes))


def plan(cfg: TrainConfig, processes: int = 1) -> Plan:
    """Predict what a run needs.

    Args:
        cfg: The run. Its data is not read: random images of the network's size stand for it,
            sequences of them where it is recordings, or random words.
        processes: How many will share a batch.

    Raises:
        ValueError: A batch that cannot be cut evenly; the network does not say what it takes.
        OSError: The system does not tell the peak memory of a process.
    """
    pieces = processes * cfg.optim.accumulate
    if cfg.data.batch_size % pieces:
        raise ValueError(
            f"data.batch_size={cfg.data.batch_size} cannot be cut evenly among {processes} "
            f"processes x optim.accumulate={cfg.optim.accumulate}; use a multiple of {pieces}"
        )
    images = cfg.data.batch_size // pieces
    device = start_world(cfg.device).device
    torch.manual_seed(cfg.seed)
    net = create_model(cfg.model.name, **cfg.model.overrides).to(device).train()
    keep_within_memory(cfg, net, partial(_drawn, cfg, net, device), images)
    probed = (_PROBE, 2 * _PROBE)
    step = _Step(cfg, net, device)
    step.run(1)  # kernels compiled, optimiser state there
    (few_bytes, few_seconds), (more_bytes, more_seconds) = (step.measured(n) for n in probed)
    per_image, seconds = ((b - a) / _PROBE for a, b in (
        (few_bytes, more_bytes), (few_seconds, more_seconds)))  # fmt: skip
    beyond = images - probed[1]
    # More images never take less time: what says so is noise.
    once = max(more_seconds + beyond * max(seconds, 0.0), 0.0)
    return Plan(
        images,
        probed,
        more_bytes + beyond * per_image,
        per_image,
        once * cfg.optim.accumulate,
        sum(p.numel() for p in net.parameters() if p.requires_grad),
    )


class _Step:
    """A training step on random images."""

    def __init__(self, cfg: TrainConfig, net: nn.Module, device: torch.device) -> None:
        self.cfg, self.net, self.device = cfg, net, device
        self.objective = build_objective(cfg.loss, device)
        self.optimizer = build_optimizer(net, cfg.optim)

    def run(self, count: int) -> None:
        images = _drawn(self.cfg, self.net, self.device, count)
        # A language model has a label at every word.
        shape = images.shape if self.cfg.loss.name == "next_token" else (count,)
        labels = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self.optimizer.zero_grad()
        loss = self.objective(self.net, self._logits, images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.cfg.precision):
            logits: Tensor = self.net(images)
        return logits.float()

    def measured(self, count: int) -> tuple[float, float]:
        """Peak bytes and seconds of a step; short ones are timed several times, the least counts.

        What two of them differ by is small beside what else goes on in a machine.
        """
        _reset_peak(self.device)
        self.run(count)
        peak = _peak(self.device)
        seconds: list[float] = []
        while len(seconds) < _TIMES and sum(seconds) < _LONG:
            start = time.perf_counter()
            self.run(count)
            seconds.append(time.perf_counter() - start)
        return peak, min(seconds)


def _drawn(cfg: TrainConfig, net: nn.Module, device: torch.device, count: int) -> Tensor:
    """What stands for so many samples: images, recordings (time first) or texts."""
    words = words_of_sample(cfg.data.name, **cfg.data.options)
    if words is not None:
        shape = (words, count) if cfg.loss.name == "next_token" else (count, words)
        return torch.randint(_vocabulary(net), shape, device=device)
    image = _image_shape(net)
    if cfg.data.name == Sequences.info.name:
        frames = getattr(net.config, "T", None)  # their files say how many; the network is for T
    else:
        frames = frames_of(cfg.data.name, **cfg.data.options)
    steps = () if frames is None else (int(frames),)
    return torch.rand(*steps, count, *image, device=device)


def _vocabulary(net: nn.Module) -> int:
    vocabulary = getattr(getattr(net, "config", None), "vocabulary", None)
    if vocabulary is None:
        raise ValueError(
            f"{type(net).__name__} does not say how many words it knows (config.vocabulary), so it "
            "takes no texts: give another data.name"
        )
    return int(vocabulary)


def _image_shape(net: nn.Module) -> tuple[int, int, int]:
    config = getattr(net, "config", None)
    size, channels = getattr(config, "image_size", None), getattr(config, "channels", None)
    if size is None or channels is None:
        raise ValueError(
            f"{type(net).__name__} does not say the size of its images (config.image_size and "
            "config.channels), so there is nothing to probe it with; if it takes texts, give their "
            "data.name"
        )
    return channels, size, size


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("this system does not tell the peak memory of a process (VmHWM)")
    return int(found[1]) * 1024.0
