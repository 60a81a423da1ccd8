"""Functions on networks of memory modules, and on layers that do not know time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.compat.spikingjelly.base import MemoryModule, StepModule

__all__ = [
    "chunk_multi_step_forward",
    "detach_net",
    "multi_step_forward",
    "reset_net",
    "seq_to_ann_forward",
    "set_backend",
    "set_step_mode",
    "temporal_efficient_training_cross_entropy",
]

Layers = Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]


def reset_net(net: nn.Module) -> None:
    """Call ``reset()`` of every module that has one."""
    for module in net.modules():
        reset = getattr(module, "reset", None)
        if callable(reset):
            reset()


def detach_net(net: nn.Module) -> None:
    """Cut the memories of every module from the graph."""
    for module in net.modules():
        if isinstance(module, MemoryModule):
            module.detach()


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Set the step mode of every module that has one, but not within a ``StepModeContainer``.

    Raises:
        ValueError: a module does not support the mode.
    """
    from rheobase.compat.spikingjelly.layer import StepModeContainer

    kept = {
        inner
        for module in net.modules()
        if isinstance(module, StepModeContainer)
        for inner in module.modules()
        if inner is not module
    }
    for module in net.modules():
        if isinstance(module, StepModule) and module not in kept:
            module.step_mode = step_mode


def set_backend(
    net: nn.Module, backend: str, instance: type | tuple[type, ...] = (nn.Module,)
) -> None:
    """Set the name of the backend, which has no effect here, of all modules of those types."""
    for module in net.modules():
        if isinstance(module, MemoryModule) and isinstance(module, instance):
            module.backend = backend


def multi_step_forward(x_seq: Tensor, single_step_module: Layers) -> Any:
    """Modules of one step, called on every step of ``[T, N, ...]``."""
    return torch.stack([_through(x, single_step_module) for x in x_seq])


def chunk_multi_step_forward(split_size: int, x_seq: Tensor, multi_step_module: nn.Module) -> Any:
    """A module of sequences, called on ``split_size`` steps at a time."""
    return torch.cat([multi_step_module(piece) for piece in torch.split(x_seq, split_size)])


def seq_to_ann_forward(x_seq: Tensor, stateless_module: Layers) -> Tensor:
    """Modules that do not know time, called once on all steps of ``[T, N, ...]``."""
    y = _through(x_seq.flatten(0, 1), stateless_module)
    return y.reshape(*x_seq.shape[:2], *y.shape[1:])


def temporal_efficient_training_cross_entropy(x_seq: Tensor, target: Tensor) -> Tensor:
    """Mean of the cross-entropies of every step: logits ``[T, N, C, ...]``, labels ``[N, ...]``.

    Source: Deng et al. 2022 (TET), arXiv 2202.11946.
    """
    labels = target.expand(x_seq.shape[0], *target.shape)
    return F.cross_entropy(x_seq.flatten(0, 1), labels.flatten(0, 1))


def _through(x: Tensor, modules: Layers) -> Tensor:
    if isinstance(modules, nn.Sequential | Sequence):
        for module in modules:
            x = module(x)
        return x
    return modules(x)
