"""Checkpoints released with the papers: loaded into our networks, key by key.

Official code keeps parameters that it never uses (layer norms, position embeddings); ours does
not have them, so they are left out, and named in a warning. Anything else that does not fit is an
error.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Container, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.models.registry import Family, MakeNeuron, Official, families

__all__ = ["bare_state_dict", "load_official", "load_weights", "official_of"]

_WRAPPERS = ("model", "state_dict", "model_state_dict", "net")
_PREFIX = re.compile(r"^(module\.|_orig_mod\.)+")


def load_official(
    system: str,
    state_dict: Mapping[str, Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    compat: Literal["official"] | None = None,
    neuron: str | MakeNeuron | None = None,
    neuron_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network with the weights of an official checkpoint.

    Args:
        system: id of the system, such as "spikformer" or "sew_resnet".
        state_dict: the checkpoint, as `torch.load(path, weights_only=True)` gives it; ``module.``
            prefixes, ``{"model": ...}`` wrappers and older key spellings are understood.
        kwargs: the official constructor's keyword arguments, where the weights do not tell
            (number of heads, T, SEW's ``cnf``).
        compat: "official" computes what the released code computes where that differs from the
            paper (the family's config says how); without it the paper's reading is computed.
        neuron: another neuron than the paper's, as in `create_model`.
        neuron_kwargs: keyword arguments of the neuron.

    Returns:
        the network, in training mode, float32 on the CPU.

    Raises:
        ValueError: unknown system; keys missing, unknown or of another shape; a value that is not
            finite.

    Warns:
        UserWarning: parameters that the official code never uses were left out.
    """
    if compat not in (None, "official"):
        raise ValueError(f'compat must be None or "official", got {compat!r}')
    weights = bare_state_dict(state_dict)
    family, official = official_of(system, weights)
    config = official.config(weights, kwargs or {})
    if compat is not None and hasattr(config, "compat"):
        config = dataclasses.replace(config, compat=compat)
    net = family.build(config, neuron, neuron_kwargs)
    unused = load_weights(net, weights, official.rename)
    if unused:
        warnings.warn(
            f"{len(unused)} tensors that the official code never uses were left out: "
            + _listed(unused),
            stacklevel=2,
        )
    return net


def official_of(system: str, keys: Container[str]) -> tuple[Family, Official]:
    """The family that loads such weights of a system, and how.

    Args:
        system: id of the system.
        keys: of the official state dict.

    Raises:
        ValueError: no family loads that system (the nearest ids are offered), or none its keys.
    """
    known = [
        (family, family.official[system]) for family in families() if system in family.official
    ]
    if not known:
        ids = {system for family in families() for system in family.official}
        raise ValueError(unknown_name("system", system, ids))
    for family, official in known:
        if official.mark is None or official.mark in keys:
            return family, official
    marks = " or ".join(str(official.mark) for _, official in known)
    raise ValueError(f"not a checkpoint of {system}: it has no {marks}")


def bare_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without wrappers and prefixes."""
    for wrapper in _WRAPPERS:
        inner = checkpoint.get(wrapper)
        if isinstance(inner, Mapping):
            return bare_state_dict(inner)
    return {_PREFIX.sub("", k): v for k, v in checkpoint.items() if isinstance(v, Tensor)}


def load_weights(
    net: nn.Module, weights: Mapping[str, Tensor], rename: Callable[[str], str | None]
) -> list[str]:
    """Load official weights strictly; linear layers and 1x1 convolutions fit one another.

    Returns:
        the official keys left out because the official code never uses them.

    Raises:
        ValueError: see `load_official`.
    """
    wanted = net.state_dict()
    found: dict[str, Tensor] = {}
    unused: list[str] = []
    unknown: list[str] = []
    for key, value in weights.items():
        name = rename(key)
        if name is None:
            unused.append(key)
        elif name not in wanted:
            unknown.append(key)
        else:
            found[name] = _fitted(key, value, wanted[name].shape)
    missing = [name for name in wanted if name not in found]
    if missing or unknown:
        raise ValueError(
            "the checkpoint does not fit the network; missing: "
            f"{_listed(missing)}; not known: {_listed(unknown)}"
        )
    net.load_state_dict(found)
    return unused


def _fitted(key: str, value: Tensor, shape: torch.Size) -> Tensor:
    if not torch.isfinite(value).all():
        raise ValueError(f"{key} of the checkpoint holds values that are not finite")
    if _significant(value.shape) != _significant(shape):
        raise ValueError(
            f"{key} of the checkpoint has shape {list(value.shape)}, the network wants "
            f"{list(shape)}"
        )
    return value.reshape(shape)


def _significant(shape: torch.Size) -> list[int]:
    """Sizes without trailing ones: [C, K], [C, K, 1] and [C, K, 1, 1] are one linear map."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:6]) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 6 else shown
