"""Blocks that compute their inner tensors again on the way back, instead of keeping them.

What a training step keeps for its backward pass grows with depth, time and batch; a block that is
computed twice keeps its input only. `recompute` chooses the blocks from one forward pass.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rheobase.layers.buffers import buffers_kept
from rheobase.ops.eager import is_transformed
from rheobase.ops.packed import largest, mark, saving_packed
from rheobase.stateful import Stateful

__all__ = ["Recomputation", "recompute"]

# Blocks are cut until each keeps at most this share of the whole: what is computed again is kept
# too, one block at a time.
_SHARE = 1 / 8


@dataclass(frozen=True)
class Recomputation:
    """What `recompute` chose.

    Attributes:
        blocks: names of the modules that are computed twice.
        kept_before: bytes that a forward pass kept.
        kept: bytes that it will keep at most, the block that is computed again included.
        again: share of the forward pass that is computed twice, by time.
    """

    blocks: tuple[str, ...]
    kept_before: int
    kept: int
    again: float


def recompute(
    net: nn.Module, example: Tensor, budget: float, *, scale: float = 1.0
) -> Recomputation:
    """Let as few blocks of ``net`` as needed compute twice, so that a step keeps within ``budget``.

    Results stay the same: outputs, gradients, running statistics. Names of modules and weights stay
    too. Nothing changes in evaluation, in streaming, and under `torch.compile`, which plans for
    itself. The method is that of Chen et al. 2016, arXiv 1604.06174; blocks that free most bytes a
    second are chosen first.

    Args:
        net: the network, in training mode; its modules are changed in place.
        example: an input; a few samples are enough.
        budget: bytes that a forward pass may keep for the backward pass, weights not counted.
        scale: how many times as many samples a step will have.

    Raises:
        ValueError: ``net`` is not in training mode, or no choice of blocks keeps that little.

    >>> net = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(8)))
    >>> found = recompute(net, torch.rand(2, 8), budget=700)
    >>> found.kept_before, found.kept <= 700, len(found.blocks) > 0
    (1024, True, True)
    """
    if not net.training:
        raise ValueError("recompute plans for training: call net.train() first")
    with torch.random.fork_rng(), buffers_kept(net):
        net(example)  # kernels compiled, so that what is timed next is the network
        probe = _Probe(net)
        probe.run(example)
    freed = {name: probe.freed(name) for name in _blocks(probe)}
    total = probe.inside("") * scale
    chosen: list[str] = []
    least = total
    worth = sorted(freed, key=lambda n: freed[n] / max(probe.seconds[n], 1e-9), reverse=True)
    for name in worth:
        if least <= budget or freed[name] == 0:
            break
        chosen.append(name)
        spared = [freed[n] * scale for n in chosen]
        least = total - sum(spared) + max(spared)
    if least > budget:
        raise ValueError(
            f"a step of {type(net).__name__} keeps {least / 2**20:.1f} MiB even if all its blocks "
            f"are computed twice, more than the {budget / 2**20:.1f} MiB given; take fewer samples "
            "a step, or allow more"
        )
    for name in chosen:
        module = net.get_submodule(name)
        module.__class__ = _computed_again(type(module))  # type: ignore[arg-type]
    again = sum(probe.seconds[n] for n in chosen) / max(probe.seconds[""], 1e-9)
    return Recomputation(tuple(chosen), int(total), int(least), again)


@dataclass
class _Probe:
    """One forward pass: what each module keeps for the backward pass, and how long it takes.

    Spikes that are kept as bits are not seen: they stay, computed again or not.
    """

    net: nn.Module
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _edges: dict[str, set[int]] = field(default_factory=dict)
    _inputs: dict[str, dict[int, int]] = field(default_factory=dict)
    _savers: dict[int, tuple[str, int]] = field(default_factory=dict)

    def run(self, example: Tensor) -> None:
        """Call the network."""
        modules = {n: m for n, m in self.net.named_modules() if n == "" or _may_be_block(m)}
        stack: list[tuple[str, float]] = []
        weights = {p.untyped_storage().data_ptr() for p in self.net.parameters()}
        alive: list[Tensor] = []  # else memory is used again, and taken for the same tensor

        def now() -> float:
            if example.is_cuda:
                torch.cuda.synchronize(example.device)
            return time.perf_counter()

        def enter(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.calls[name] = self.calls.get(name, 0) + 1
            self._edges.setdefault(name, set()).update(_storages(inputs))
            self._inputs[name] = _kept_whole(inputs)
            stack.append((name, now()))

        def leave(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            _, start = stack.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + now() - start
            self._edges[name].update(_storages((output,)))

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            place = storage.data_ptr()
            if place not in weights and place not in self._savers:
                alive.append(tensor)
                self._savers[place] = (stack[-1][0] if stack else "", storage.nbytes())
            return tensor

        hooks = [m.register_forward_pre_hook(partial(enter, n)) for n, m in modules.items()]
        hooks += [m.register_forward_hook(partial(leave, n)) for n, m in modules.items()]
        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
                self.net(example)
        finally:
            for hook in hooks:
                hook.remove()

    def inside(self, name: str) -> int:
        """Bytes kept by a module and all within it."""
        return sum(self._kept_in(name).values())

    def _kept_in(self, name: str) -> dict[int, int]:
        """Storages and bytes."""
        start = f"{name}." if name else ""
        return {
            place: size
            for place, (saver, size) in self._savers.items()
            if saver == name or saver.startswith(start)
        }

    def freed(self, name: str) -> int:
        """Bytes that computing a module again spares: all but its inputs and outputs."""
        edges = self._edges[name]
        spared = sum(size for place, size in self._kept_in(name).items() if place not in edges)
        added = sum(n for p, n in self._inputs[name].items() if p not in self._savers)
        return max(0, spared - added)


def _blocks(probe: _Probe) -> list[str]:
    """Modules that do not overlap, none of which keeps more than its share, where it has parts."""
    limit = probe.inside("") * _SHARE
    names = [n for n in probe.calls if n]

    def cut(name: str) -> Iterator[str]:
        parts = [n for n in names if _parent(n, names) == name]
        if parts and (name == "" or probe.inside(name) > limit):
            for part in parts:
                yield from cut(part)
        elif name and probe.calls[name] == 1:
            yield name

    return list(cut(""))


def _parent(name: str, names: list[str]) -> str:
    """The innermost of ``names`` that ``name`` lies in, or the network ("")."""
    while "." in name:
        name = name.rpartition(".")[0]
        if name in names:
            return name
    return ""


def _may_be_block(module: nn.Module) -> bool:
    """Whether it has parts with weights: fused kernels take such parts, and must not be split."""
    return any(next(child.parameters(), None) is not None for child in module.children())


def _kept_whole(inputs: tuple[Any, ...]) -> dict[int, int]:
    """Storages and bytes of the inputs that are not kept as bits."""
    whole = [x for x in inputs if isinstance(x, Tensor) and largest(x) is None]
    return {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in whole}


def _storages(values: tuple[Any, ...]) -> set[int]:
    return {v.untyped_storage().data_ptr() for v in values if isinstance(v, Tensor)}


@cache
def _computed_again(kind: type[nn.Module]) -> type[nn.Module]:
    """The same kind of module, computed twice in training."""

    def forward(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        plain = partial(kind.forward, self)
        if (
            torch.compiler.is_compiling()
            or not (self.training and torch.is_grad_enabled())
            or is_transformed()
            or any(m._streams for m in self.modules() if isinstance(m, Stateful))
        ):
            return plain(*inputs, **options)
        bounds = [largest(x) if isinstance(x, Tensor) else None for x in inputs]

        def run(*again: Any, **options: Any) -> Any:
            # What was noted on the tensors does not survive their being kept.
            for x, bound in zip(again, bounds, strict=True):
                if bound is not None:
                    mark(x, bound)
            return plain(*again, **options)

        with contextlib.ExitStack() as stack:
            for x, bound in zip(inputs, bounds, strict=True):
                if bound is not None:
                    stack.enter_context(saving_packed(x, x))
            return checkpoint(
                run,
                *inputs,
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), buffers_kept(self)),
                **options,
            )

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        # Under its name pickle would find the plain kind.
        reduced: Any = kind.__reduce_ex__(self, 2)
        return _new_computed_again, (kind,), *reduced[2:]

    members = {
        "forward": forward, "__reduce_ex__": reduce, "__module__": kind.__module__,
        "__doc__": kind.__doc__,
    }  # fmt: skip
    return type(kind.__name__, (kind,), members)


def _new_computed_again(kind: type[nn.Module]) -> nn.Module:
    again: Any = _computed_again(kind)  # type: ignore[arg-type]
    made: nn.Module = again.__new__(again)
    return made
