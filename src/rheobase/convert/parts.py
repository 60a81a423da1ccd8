"""Several inputs as one: laid side by side in one tensor, which the graph cuts apart again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, fx

from rheobase.convert.trace import Traced

__all__ = ["Parts", "join_inputs"]


@dataclass(frozen=True)
class Parts:
    """How several inputs lie in one tensor ``[N, F]``.

    Attributes:
        shapes: of one sample of each.
        dtypes: of each.
    """

    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, inputs: Sequence[object]) -> Parts:
        """The parts that inputs are.

        Raises:
            TypeError: one of them is no tensor.
            ValueError: there is none, or one has no axis of samples.
        """
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if len(tensors) < len(inputs) or not tensors:
            raise TypeError(
                "several inputs are a tuple of tensors [N, ...], got "
                f"({', '.join(type(x).__name__ for x in inputs)})"
            )
        if any(x.dim() == 0 for x in tensors):
            raise ValueError("each of several inputs is a tensor [N, ...], got one without axes")
        return cls(tuple(x.shape[1:] for x in tensors), tuple(x.dtype for x in tensors))

    def pack(self, inputs: Sequence[Tensor]) -> Tensor:
        """Inputs ``[N, ...]`` each as one tensor ``[N, F]``, of a dtype that holds all of them.

        Raises:
            TypeError: one of them is no tensor.
            ValueError: they are of other shapes, or not of as many samples.
        """
        given = Parts.of(inputs).shapes
        if given != self.shapes or len({len(x) for x in inputs}) != 1:
            shapes = ", ".join(str(["N", *shape]) for shape in self.shapes).replace("'", "")
            raise ValueError(
                f"expected {len(self.shapes)} inputs of shapes {shapes} with one N, got "
                + ", ".join(str(list(x.shape)) for x in inputs)
            )
        dtype = reduce(torch.promote_types, self.dtypes)
        return torch.cat([x.flatten(1).to(dtype) if x.dim() > 1 else x[:, None].to(dtype)
                          for x in inputs], 1)  # fmt: skip

    def unpack(self, x: Tensor) -> list[Tensor]:
        """One tensor ``[N, F]`` as the inputs."""
        cut = []
        for (start, end), shape, dtype in zip(
            self._places(), self.shapes, self.dtypes, strict=True
        ):
            part = x[:, start:end].reshape(-1, *shape)
            cut.append(part if dtype.is_floating_point else part.to(dtype))
        return cut

    def _places(self) -> list[tuple[int, int]]:
        ends = [0]
        for shape in self.shapes:
            ends.append(ends[-1] + math.prod(shape))
        return list(pairwise(ends))


def join_inputs(traced: Traced, parts: Parts) -> None:
    """Let the graph take one tensor, and cut its inputs out of that, in place."""
    graph = traced.graph
    several = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_before(several[0]):
        joined = fx.Proxy(graph.placeholder("inputs"), fx.proxy.GraphAppendingTracer(graph))
        cut = parts.unpack(joined)  # type: ignore[arg-type]
    for node, part in zip(several, cut, strict=True):
        node.replace_all_uses_with(part.node)  # type: ignore[attr-defined]
        graph.erase_node(node)
    graph.lint()
    traced.module.recompile()
