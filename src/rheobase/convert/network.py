"""The converted network: what does not depend on time computed once, the rest at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import unfolded
from rheobase.measure import wall_time_per_image
from rheobase.stateful import Stateful

if TYPE_CHECKING:
    from rheobase.convert.report import Report
    from rheobase.convert.trace import Traced

__all__ = ["ConvertedNetwork", "Origin"]


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
        stepwise: go through the graph step by step instead of with time folded into the batch. The
            results are equal but for the rounding of convolutions. None (the default) does so for
            inference on CPUs, where what fits the cache is faster; `choose_faster` measures.
    """

    def __init__(self, stem: fx.GraphModule, body: fx.GraphModule, recipe: Recipe, T: int) -> None:
        super().__init__()
        self.stem = stem
        self.body = body
        self.recipe = recipe
        self.T = T
        self.stepwise: bool | None = None
        self.origin: Origin | None = None

    def report(
        self, inputs: Tensor | None = None, labels: Tensor | None = None, samples: int = 128
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
        return make_report(self, self.origin.ann, inputs[:samples], labels)

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
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
        constant = self.stem(x)
        if count > 1 and self._steps_one_by_one(x):
            with _one_by_one(self.body):
                return torch.stack([self.body(*constant, steps=1) for _ in range(count)])
        out: Tensor = self.body(*constant, steps=count)
        return unfolded(out, count)

    def _steps_one_by_one(self, x: Tensor) -> bool:
        if self.stepwise is not None:
            return self.stepwise
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
            return False
        return all(getattr(module, "causal", True) for module in self.body.modules())

    def choose_faster(self, x: Tensor) -> bool:
        """Time both ways on ``x`` and keep the faster; True if that is step by step."""
        seconds = {}
        for self.stepwise in (False, True):
            seconds[self.stepwise] = wall_time_per_image(self, x, repeats=3)
        self.stepwise = seconds[True] < seconds[False]
        return self.stepwise

    def mean_output(self, x: Tensor, steps: int | None = None) -> Tensor:
        """What stands for the ANN's output: the mean over the steps, or the sum; ``[N, ...]``."""
        out: Tensor = self(x, steps)[self.recipe.readout.delay :]
        return out.sum(0) if self.recipe.encoding.convention == "sum" else out.mean(0)


@contextmanager
def _one_by_one(net: nn.Module) -> Iterator[None]:
    """Keep state from step to step within a call, and outside as it was."""
    modules = [m for m in net.modules() if isinstance(m, Stateful)]
    for module in modules:
        if not module.causal:
            raise ValueError(
                f"{type(module).__name__} needs the whole sequence: this network can't run step by "
                "step; set its stepwise to False"
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
