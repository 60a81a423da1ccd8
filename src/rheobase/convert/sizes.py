"""Sizes that Python asks for while a network is traced: those of the calibration inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["SizeProxy", "Sizes"]

_OF_TENSORS = {
    "size", "dim", "ndimension", "numel", "nelement", "shape", "ndim", "dtype", "device", "is_cuda",
    "is_floating_point", "is_complex",
}  # fmt: skip
"""What of a tensor does not hang on its values."""


class Sizes:
    """Numbers, words and tuples that are the same for any number of samples.

    Nothing is computed before it is asked for; then the graph so far runs on the examples.

    Args:
        root: the network that is traced.
        examples: its inputs, for a few numbers of samples.
    """

    def __init__(self, root: nn.Module, examples: Sequence[Sequence[Tensor]]) -> None:
        self.root = root
        self.examples = [iter(example) for example in examples]
        self.runs: list[fx.Interpreter] = []
        self.running = False

    def of(self, node: fx.Node) -> Any:
        """Its value.

        Raises:
            TraceError: it hangs on the values of a tensor, or on the number of samples.
        """
        values = self._values(node)
        known = self._is_size(node) or self._is_own(node)
        if not values or not known or any(v != values[0] for v in values):
            raise fx.proxy.TraceError(
                "it hangs on the values of a tensor, or on the number of samples"
            )
        return values[0]

    def count(self, node: fx.Node) -> int:
        """How many parts a tuple, a list or a tensor has.

        Raises:
            TraceError: it is none of these, or has as many as there are samples.
        """
        counts = {len(v) if _has_parts(v) else None for v in self._values(node)}
        if len(counts) != 1 or None in counts:
            raise fx.proxy.TraceError("it has no parts, or as many as there are samples")
        return int(counts.pop() or 0)

    def fact(self, node: fx.Node, name: str) -> Any:
        """What a tensor says of itself, the same for any number of samples.

        Raises:
            TraceError: it is no tensor.
        """
        value = next(iter(self._values(node)), None)
        if not isinstance(value, Tensor):
            raise fx.proxy.TraceError(f"it has no {name}")
        return getattr(value, name)

    def drop(self, graph: fx.Graph) -> None:
        """Take out of the graph what only Python wanted to know, and checks."""
        checks = [node for node in graph.nodes if node.target is torch._assert]
        for node in checks:
            self._values(node)
            graph.erase_node(node)
        for node in reversed(graph.nodes):
            if not node.users and self.runs and self._is_size(node):
                graph.erase_node(node)

    def _values(self, node: fx.Node) -> list[Any]:
        """For each number of samples; of nodes that can't be computed, nothing."""
        if not self.runs:
            self.runs = [fx.Interpreter(self.root, False, node.graph) for _ in self.examples]
            for run, example in zip(self.runs, self.examples, strict=True):
                run.args_iter = example
        self.running = True
        try:
            with torch.no_grad():
                return [self._value(run, node) for run in self.runs]
        except (RuntimeError, ValueError, TypeError, IndexError, StopIteration):
            return []
        finally:
            self.running = False

    @staticmethod
    def _value(run: fx.Interpreter, node: fx.Node) -> Any:
        for one in node.graph.nodes:  # in order; no recursion, however deep the network is
            if one not in run.env:
                run.env[one] = run.run_node(one)
            if one is node:
                break
        return run.env[node]

    def _is_own(self, node: fx.Node) -> bool:
        """Whether a value comes from the network's own weights and buffers alone."""
        before = node.all_input_nodes
        return node.op == "get_attr" or (bool(before) and all(map(self._is_own, before)))

    def _is_size(self, node: fx.Node) -> bool:
        """Whether a value that is no tensor comes from sizes alone."""
        env = self.runs[0].env
        if node not in env or isinstance(env[node], Tensor):
            return False
        target = node.args[1] if node.target is getattr else node.target
        return all(
            target in _OF_TENSORS if isinstance(env.get(one), Tensor) else self._is_size(one)
            for one in node.all_input_nodes
        )


def _has_parts(value: Any) -> bool:
    return value.dim() > 0 if isinstance(value, Tensor) else isinstance(value, tuple | list)


class SizeProxy(fx.Proxy):
    """What forward computes with in tracing; it knows sizes where Python has to have them."""

    def __getattr__(self, name: str) -> Any:
        if name in ("ndim", "dtype"):  # for whoever looks something up by it
            return self.tracer.sizes.fact(self.node, name)  # type: ignore[attr-defined]
        return _Attribute(self, name)

    def _known(self) -> Any:
        return self.tracer.sizes.of(self.node)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        count: int = self.tracer.sizes.count(self.node)  # type: ignore[attr-defined]
        return count

    def __iter__(self) -> Iterator[Any]:
        return iter([self[place] for place in range(len(self))])  # type: ignore[index]

    def __index__(self) -> int:
        return int(self._known())

    def __int__(self) -> int:
        return int(self._known())

    def __float__(self) -> float:
        return float(self._known())


class _Attribute(SizeProxy, fx.proxy.Attribute):
    """Of such a value."""
