"""The converted network: what does not depend on time computed once, the rest at every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from rheobase.convert.parts import Parts
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import unfolded
from rheobase.convert.unit_spikes import send_unit_spikes
from rheobase.measure import wall_time_per_image
from rheobase.ops.eager import is_plain, is_transformed
from rheobase.stateful import Stateful

if TYPE_CHECKING:
    from rheobase.convert.report import Report
    from rheobase.convert.trace import Traced

__all__ = ["ConvertedNetwork", "Inputs", "Origin", "fast_order"]

Inputs = Tensor | tuple[Tensor, ...]

_BYTES_AT_ONCE = 1 << 25  # more steps at once save no more overhead, but leave the cache


@dataclass(frozen=True)
class Origin:
    """What a network was made from: the ANN's prepared graph, and the calibration inputs."""

    ann: Traced
    inputs: Tensor
    labels: Tensor | None


class ConvertedNetwork(nn.Module):
    """A spiking network made from an ANN: ``[N, ...]`` to ``[T, N, classes]``.

    Every step's output is the last layer's current; its mean over T (`mean_output`) is what stands
    for the ANN's output (the sum, if the recipe codes values as sums). It is an ordinary network of
    rheobase: it streams, exports, trains further and is measured.

    Attributes:
        recipe: how it was made.
        T: default number of steps, which T-dependent statistics were made for.
        parts: of an ANN of several inputs, which come as a tuple; ``parts.pack`` makes one tensor
            of them, which the network takes as well.
        at_once: how many steps go through the graph together, folded into the batch; the results
            are equal but for the rounding of convolutions. None (the default): all, and for
            inference on CPUs as many as give the first layer 32 MiB; `choose_faster` measures.
    """

    def __init__(
        self,
        stem: fx.GraphModule,
        body: fx.GraphModule,
        recipe: Recipe,
        T: int,
        parts: Parts | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.body = body
        self.recipe = recipe
        self.T = T
        self.parts = parts
        self.at_once: int | None = None
        self.origin: Origin | None = None

    def report(
        self, inputs: Inputs | None = None, labels: Tensor | None = None, samples: int = 128
    ) -> Report:
        """What every layer became, and what error it adds; accuracy where labels are given.

        Args:
            inputs: ``[N, ...]``; default the first calibration inputs.
            labels: ``[N]``, classes.
            samples: how many of them to use.
        """
        from rheobase.convert.report import make_report

        if self.origin is None:
            raise ValueError("this network was not made by rheobase.convert.convert")
        if inputs is None:
            inputs, labels = self.origin.inputs, self.origin.labels
        labels = None if labels is None else labels[:samples]
        return make_report(self, self.origin.ann, self._as_one(inputs)[:samples], labels)

    def forward(self, x: Inputs, steps: int | None = None) -> Tensor:
        """Run ``steps`` time steps on ``[N, ...]``, as the ANN takes it.

        Args:
            x: the input.
            steps: default ``T`` and the readout's delay.

        Returns:
            ``[steps, N, classes]``: the output of every step.
        """
        count = self.T + self.recipe.readout.delay if steps is None else steps
        if count < 1:
            raise ValueError(f"a converted network runs at least one step, got steps={count}")
        constant = self.stem(fast_order(self._as_one(x)))
        piece = self._steps_at_once(constant, count)
        if piece == count:
            out: Tensor = self.body(*constant, steps=count)
            return unfolded(out, count)
        pieces = [min(piece, count - first) for first in range(0, count, piece)]
        with _carrying_state(self.body):
            return torch.cat([unfolded(self.body(*constant, steps=n), n) for n in pieces])

    def _as_one(self, x: Inputs) -> Tensor:
        """The input as one tensor."""
        if isinstance(x, Tensor):
            return x
        if self.parts is None:
            raise TypeError("this network was converted from an ANN of one input: give one tensor")
        return self.parts.pack(x)

    def _steps_at_once(self, constant: Sequence[object], count: int) -> int:
        if self.at_once is not None:
            return min(self.at_once, count)
        values = [value for value in constant if isinstance(value, Tensor)]
        if torch.is_grad_enabled() or not all(is_plain(v) and v.is_cpu for v in values):
            return count
        if not self._causal():
            return count
        largest = max((value.nbytes for value in values), default=1)
        return max(1, min(count, _BYTES_AT_ONCE // largest))

    def _causal(self) -> bool:
        """Whether no module needs the whole sequence."""
        return all(getattr(module, "causal", True) for module in self.body.modules())

    def choose_faster(self, x: Inputs) -> int:
        """Time pieces of 1, 4, 16, ... and all steps on ``x``; keep and return the fastest."""
        x, seconds = self._as_one(x), dict[int, float]()
        whole = self.T + self.recipe.readout.delay
        pieces = {4**k for k in range(10) if 4**k < whole} if self._causal() else set()
        for steps in sorted(pieces | {whole}):
            self.at_once = steps
            seconds[steps] = wall_time_per_image(self, x, repeats=3)
        self.at_once = min(seconds, key=seconds.__getitem__)
        return self.at_once

    def make_over(self) -> str:
        """For inference: neurons send spikes of size 1, whose size the weights take in.

        `rheobase.optimize` does it to a copy. `report` is for the network as it was.
        """
        self.origin = None
        return f"{send_unit_spikes(self.stem, self.body)} neuron layers send spikes of size 1"

    def mean_output(self, x: Inputs, steps: int | None = None) -> Tensor:
        """What stands for the ANN's output: the mean over the steps, or the sum; ``[N, ...]``."""
        out: Tensor = self(x, steps)[self.recipe.readout.delay :]
        return out.sum(0) if self.recipe.encoding.convention == "sum" else out.mean(0)


def fast_order(x: Tensor) -> Tensor:
    """Images in the order that convolutions on CPUs want; neurons and sums keep it.

    Not where weights may get a gradient: see `rheobase.layers.time` for what oneDNN does then.
    """
    if x.dim() != 4 or x.dtype != torch.float32 or not x.is_cpu or torch.is_grad_enabled():
        return x
    if not is_plain(x) or is_transformed():
        return x
    return x.contiguous(memory_format=torch.channels_last)


@contextmanager
def _carrying_state(net: nn.Module) -> Iterator[None]:
    """Keep state from piece to piece within a call, and outside as it was."""
    modules = [m for m in net.modules() if isinstance(m, Stateful)]
    for module in modules:
        if not module.causal:
            raise ValueError(
                f"{type(module).__name__} needs the whole sequence: this network can't run in "
                "pieces; set its at_once to None"
            )
    streams = [m._streams for m in modules]
    for module, streaming in zip(modules, streams, strict=True):
        if not streaming:
            module._streams, module._state = True, None
    try:
        yield
    finally:
        for module, streaming in zip(modules, streams, strict=True):
            if not streaming:
                module._streams, module._state = False, None
