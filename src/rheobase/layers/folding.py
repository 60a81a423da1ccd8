"""Norms folded into the layers before them, in a network whose structure need not be known.

Which layer a norm follows is seen on an example: the norm's input is the layer's output. Whether
anything else reads that output is not seen, so the folded network is compared with the one before,
in float64, and a pair that changes it stays as it was. Not only its outputs are compared, which of
a silent network are all 0, but what each of its modules is given.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from rheobase.layers.norms.base import Foldable, SequenceNorm, absorb, affine_of
from rheobase.neurons import Neuron

__all__ = ["fold_norms"]

# Exactly these: a subclass may use its weight otherwise.
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

Pair = tuple[str, str]  # names of the layer and of the norm behind it


def fold_norms(net: nn.Module, example: Tensor) -> str:
    """Fold every norm that can be, in place, for inference.

    Batch norms, tdBN and the norms of `rheobase.layers.norms` that are the same at every step go
    into the weights before them; of TEBN the gains are left. A norm is replaced by `nn.Identity`.

    Args:
        net: in evaluation mode.
        example: an input of it.

    Returns:
        what was done, in words.
    """
    norms = len(_norms(net))
    with torch.no_grad():
        pairs = _pairs(net, example) if norms else []
        if pairs and not _keeps_function(net, pairs, example):
            pairs = [pair for pair in pairs if _keeps_function(net, [pair], example)]
        _fold(net, pairs)
    return f"{len(pairs)} of {norms} norms folded into the weights before them"


def _pairs(net: nn.Module, example: Tensor) -> list[Pair]:
    """Layers, each with the one norm that takes its output at every call."""
    outputs: list[tuple[str, Tensor]] = []  # kept, so that no memory is used twice
    followed: Counter[Pair] = Counter()
    calls: Counter[str] = Counter()

    def of_layer(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            outputs.append((name, output))
            calls[name] += 1

        return hook

    def of_norm(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            x = arguments[0]
            for layer, output in outputs:
                if output.data_ptr() == x.data_ptr() and output.numel() == x.numel():
                    followed[layer, name] += 1

        return hook

    handles = []
    for name, module in net.named_modules():
        if type(module) in _LAYERS:
            handles.append(module.register_forward_hook(of_layer(name)))
    for name, norm in _norms(net).items():
        if _can_fold(norm):
            handles.append(norm.register_forward_pre_hook(of_norm(name)))
    try:
        net(example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair, n in followed.items() if n == calls[pair[0]] == calls[pair[1]]]


def _norms(net: nn.Module) -> dict[str, nn.Module]:
    """The norms by name, without those that another is made of."""
    found: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, _BatchNorm | SequenceNorm) and not inner:
            found[name] = module
    return found


def _can_fold(norm: nn.Module) -> bool:
    if isinstance(norm, Foldable):
        return not norm.folded and norm.scale_and_shift()[0].dim() == 1
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _fold(net: nn.Module, pairs: Sequence[Pair]) -> None:
    for layer_name, norm_name in pairs:
        layer, norm = net.get_submodule(layer_name), net.get_submodule(norm_name)
        if isinstance(norm, Foldable):
            norm.fold(layer)
            if norm.folded_gain is not None:
                continue
        else:
            absorb(layer, *affine_of(norm), type(norm).__name__)
        owner, _, key = norm_name.rpartition(".")
        net.get_submodule(owner)._modules[key] = nn.Identity()


def _keeps_function(net: nn.Module, pairs: Sequence[Pair], example: Tensor) -> bool:
    before = copy.deepcopy(net).double()
    after = copy.deepcopy(before)
    _fold(after, pairs)
    norms = {norm for _, norm in pairs}
    expected, found = (_seen(made, example.double(), norms) for made in (before, after))
    return len(expected) == len(found) and all(map(_close, found, expected))


def _seen(net: nn.Module, x: Tensor, folded: set[str]) -> list[Tensor]:
    """What comes out of the network, and what its innermost modules are given, but those norms.

    A module that gives its input on, as dropout does in evaluation, is no reader of it.
    """
    seen: list[Tensor] = []

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        given, made = _tensors(arguments), _tensors(output)
        if not {_memory(t) for t in given} & {_memory(t) for t in made}:
            seen.extend(given)

    for name, module in net.named_modules():
        innermost = isinstance(module, Neuron) or not module._modules
        if innermost and not any(name == n or name.startswith(f"{n}.") for n in folded):
            module.register_forward_hook(hook)
    return seen + _tensors(net(x))


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _close(x: Tensor, expected: Tensor) -> bool:
    if not x.is_floating_point() or x.shape != expected.shape:
        return torch.equal(x, expected)
    # A spike that differs changes far more than rounding does.
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(x, expected, rtol=1e-8, atol=1e-8 * largest)
