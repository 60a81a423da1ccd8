"""Whose weights these are: the family and configuration of a state dict, by its keys and shapes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rheobase.models.registry import Family, Official, Untold, families

__all__ = [
    "Recognised",
    "likely_systems",
    "presets_of",
    "recognise",
    "shapes",
    "significant",
]

# What a reader of another family's weights may stumble over.
_MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# Fields of a config that weights seldom tell.
_SELDOM_TOLD = ("T", "image_size")
_TRACKED = "num_batches_tracked"  # missing in checkpoints of early PyTorch


@dataclass(frozen=True)
class Recognised:
    """A system whose network has exactly the parameters of a state dict.

    Attributes:
        system: its id.
        family: the family that loads it.
        official: how.
        presets: the published models of this configuration, T and image size aside.
        untold: what must be given besides the weights, by official keyword.
    """

    system: str
    family: Family
    official: Official
    presets: tuple[str, ...]
    untold: tuple[str, ...]


def recognise(weights: Mapping[str, Tensor]) -> list[Recognised]:
    """Every system whose official code has exactly these parameters; none, if it is unknown.

    Some systems differ in no parameter (SEW-ResNet and Spiking-ResNet): then all of them are
    named.

    Args:
        weights: the state dict, without wrappers and prefixes.
    """
    return [found for each in _all_officials() if (found := _match(*each, weights)) is not None]


def presets_of(family: Family, config: Any) -> tuple[str, ...]:
    """The published models of a configuration, T and image size aside: weights seldom tell them."""
    fields = {f.name for f in dataclasses.fields(config)} - set(_SELDOM_TOLD)
    return tuple(
        name
        for name, preset in family.presets.items()
        if type(preset) is type(config)
        and all(getattr(preset, field) == getattr(config, field) for field in fields)
    )


def likely_systems(weights: Mapping[str, Tensor]) -> list[str]:
    """Up to three systems that share many parameter names with the weights, the likeliest first."""
    shares: dict[str, float] = {}
    for system, family, official in _all_officials():
        known = _patterns(shapes(family, next(iter(family.presets.values()))))
        named = [official.rename(key) for key in weights]
        theirs = [name for name in named if name is not None]
        share = sum(p in known for p in map(_pattern, theirs)) / max(len(theirs), 1)
        shares[system] = max(share, shares.get(system, 0.0))
    likely = sorted((s for s in shares if shares[s] >= 0.3), key=lambda s: -shares[s])
    return likely[:3]


def shapes(family: Family, config: Any) -> dict[str, list[int]]:
    """The shapes in the state dict of a family's network, without trailing ones."""
    with torch.device("meta"):  # shapes without memory
        state = family.build(config).state_dict()
    return {key: significant(value.shape) for key, value in state.items()}


def significant(shape: Iterable[int]) -> list[int]:
    """Sizes without trailing ones: [C, K], [C, K, 1] and [C, K, 1, 1] are one linear map."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _all_officials() -> Iterator[tuple[str, Family, Official]]:
    for family in families():
        for system, official in family.official.items():
            yield system, family, official


def _match(
    system: str, family: Family, official: Official, weights: Mapping[str, Tensor]
) -> Recognised | None:
    if any(key is not None and key not in weights for key in (official.mark, official.sign)):
        return None
    kwargs: dict[str, Any] = {}
    while True:
        try:
            config = official.config(weights, kwargs)
            wanted = shapes(family, config)
            break
        except Untold as missing:
            if missing.stand_ins.keys() <= kwargs.keys():
                return None
            kwargs |= missing.stand_ins
        except _MISFITS:
            return None
    found = {name: shape for name, shape in wanted.items() if name.endswith(_TRACKED)}
    for key, value in weights.items():
        name = official.rename(key)
        if name is not None:
            found[name] = significant(value.shape)
    if found != wanted:
        return None
    presets = () if kwargs else presets_of(family, config)
    return Recognised(system, family, official, presets, tuple(kwargs))


def _patterns(keys: Iterable[str]) -> set[str]:
    return {_pattern(key) for key in keys}


def _pattern(key: str) -> str:
    return re.sub(r"\d+", "#", key)
