"""Checkpoints released with the papers: loaded into our networks, key by key.

Official code keeps parameters that it never uses (layer norms, position embeddings); ours does
not have them, so they are left out, and named in a warning. Anything else that does not fit is an
error. ``drop_path_rate``, which many of the released networks take and never apply, is no option of
those here (``docs/checkpoints.md`` says of which).
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.models.recognise import likely_systems, presets_of, recognise, significant
from rheobase.models.registry import Family, MakeNeuron, Official, families
from rheobase.models.saved import new_head

__all__ = ["bare_state_dict", "load_official", "load_weights", "official_of", "system_of"]

_WRAPPERS = ("model", "state_dict", "model_state_dict", "net")
_AVERAGED = ("model_ema", "state_dict_ema", "ema", "ema_state_dict")
_PREFIX = re.compile(r"^(module\.|_orig_mod\.)+")
# Counters that profilers and weight averaging leave among the weights.
_COUNTER = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$")
_TRACKED = "num_batches_tracked"


def load_official(
    system: str | None,
    state_dict: Mapping[str, Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    compat: Literal["official"] | None = None,
    neuron: str | MakeNeuron | None = None,
    neuron_kwargs: Mapping[str, Any] | None = None,
    averaged: bool = False,
    num_classes: int | None = None,
) -> nn.Module:
    """A network with the weights of an official checkpoint.

    Args:
        system: id of the system, such as "spikformer" or "sew_resnet"; None finds it by the
            weights' names and shapes (`rheobase.models.recognise`).
        state_dict: the checkpoint, as `torch.load(path, weights_only=True)` gives it; ``module.``
            prefixes, ``{"model": ...}`` wrappers and older key spellings are understood.
        kwargs: the official constructor's keyword arguments, where the weights do not tell
            (number of heads, T, SEW's ``cnf``).
        compat: "official" computes what the released code computes where that differs from the
            paper (the family's config says how); without it the paper's reading is computed.
        neuron: another neuron than the paper's, as in `create_model`.
        neuron_kwargs: keyword arguments of the neuron.
        averaged: take the moving average of the weights, which some checkpoints hold beside them.
        num_classes: give the network a new, untrained head for so many classes, if the
            checkpoint's has another number.

    Returns:
        the network, in training mode, float32 on the CPU.

    Raises:
        ValueError: unknown system, or weights that fit none, or several alike (the likely ones are
            named); keys missing, unknown or of another shape; a value that is not finite; an
            argument that the weights do not tell and ``kwargs`` lacks.

    Warns:
        UserWarning: parameters that the official code never uses were left out, or keyword
            arguments were given that change nothing.
    """
    if compat not in (None, "official"):
        raise ValueError(f'compat must be None or "official", got {compat!r}')
    tensors = bare_state_dict(state_dict, averaged)
    weights = {key: value for key, value in tensors.items() if not _COUNTER.search(key)}
    counters = [key for key in tensors if key not in weights]
    if system is None:
        system = system_of(weights)
    read = _Read(kwargs or {})
    try:
        family, official = official_of(system, weights)
        config = official.config(weights, read)
        _refuse_other_classes(config, read)
        if compat is not None and hasattr(config, "compat"):
            config = dataclasses.replace(config, compat=compat)
        config = _as_published(family, config, read)
        wanted, fresh = config, set[str]()
        if num_classes is not None:
            wanted = dataclasses.replace(config, num_classes=num_classes)
            fresh = new_head(family, config, wanted, fresh=True)
        net = family.build(wanted, neuron, neuron_kwargs)
        unused = load_weights(net, weights, official.rename, fresh)
    except ValueError as misfit:
        whose = _whose(system, weights)
        if whose is None:
            raise
        raise ValueError(f"{misfit}; {whose}") from misfit
    if unused or counters:
        warnings.warn(
            f"{len(unused + counters)} tensors that the official code never uses were left out: "
            + _listed(unused + counters),
            stacklevel=2,
        )
    if without_effect := read.without_effect(config):
        warnings.warn(
            f"keyword arguments that change nothing here: {_listed(without_effect)}; read were: "
            + _listed(sorted(read.names)),
            stacklevel=2,
        )
    return net


def _whose(system: str, weights: Mapping[str, Tensor]) -> str | None:
    """Whose weights these are, if another system's than they were taken for."""
    theirs = [found.system for found in recognise(weights)]
    if theirs:
        return None if system in theirs else f"they are the weights of {' or '.join(theirs)}"
    near = likely_systems(weights)
    if not near or system in near:
        return None
    return f"most of their names are those of {near[0]}"


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


def bare_state_dict(checkpoint: Mapping[str, Any], averaged: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without wrappers and prefixes.

    Args:
        checkpoint: what the file holds.
        averaged: take the moving average of the weights.

    Raises:
        ValueError: there is no such average, or no tensor at all.
    """
    wrappers = _AVERAGED if averaged else (*_WRAPPERS, *_AVERAGED)
    for wrapper in wrappers:
        inner = checkpoint.get(wrapper)
        if isinstance(inner, Mapping):
            return bare_state_dict(inner)
    if averaged:
        raise ValueError(f"the checkpoint has no averaged weights: none of {', '.join(_AVERAGED)}")
    tensors = {_PREFIX.sub("", k): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"the checkpoint holds no tensors; its keys: {_listed(list(checkpoint))}")
    return tensors


def system_of(state_dict: Mapping[str, Tensor]) -> str:
    """The id of the only system of the library that has exactly these weights.

    Raises:
        ValueError: there is none (the nearest are named), or several have them alike.
    """
    weights = {key: value for key, value in state_dict.items() if not _COUNTER.search(key)}
    found = recognise(weights)
    if len(found) == 1:
        return found[0].system
    if found:
        names = " and ".join(each.system for each in found)
        raise ValueError(f"the weights fit {names} alike; give the system that they are of")
    near = likely_systems(weights)
    hint = f"the nearest are {', '.join(near)}" if near else "nor are any near"
    raise ValueError(f"no system of the library has exactly these weights; {hint}")


def _as_published(family: Family, config: Any, given: _Read) -> Any:
    """With T and image size as published, where neither weights nor arguments tell them."""
    presets = [family.presets[name] for name in presets_of(family, config)]
    keywords = {"T": ("T", "step"), "image_size": ("img_size_h", "img_size")}
    untold = {
        field: {getattr(preset, field, None) for preset in presets}
        for field, names in keywords.items()
        if hasattr(config, field) and not any(name in given.given for name in names)
    }
    known = {field: values.pop() for field, values in untold.items() if len(values) == 1}
    return dataclasses.replace(config, **known)


def _refuse_other_classes(config: Any, given: Mapping[str, Any]) -> None:
    theirs = getattr(config, "num_classes", None)
    if "num_classes" in given and theirs not in (None, given["num_classes"]):
        raise ValueError(
            f"the checkpoint is of {theirs} classes, kwargs say {given['num_classes']}; for a new, "
            "untrained head give num_classes=... beside kwargs, or, to what was imported as it is, "
            "load_model(..., fresh_head=True), model.fresh=[head] of a training run"
        )


# Official keyword -> the fields of our configs that may tell it.
_FIELDS = {
    "embed_dims": ("dim", "widths"),
    "embed_dim": ("dim", "widths"),
    "depths": ("depth",),
    "mlp_ratios": ("mlp_ratio", "mlp_ratios"),
    "in_channels": ("channels",),
    "n_input_channels": ("channels",),
    "vocab": ("vocabulary",),
    "vocab_size": ("vocabulary",),
    "img_size_h": ("image_size",),
    "img_size_w": ("image_size",),
    "img_size": ("image_size",),
    "num_heads": ("heads",),
    "num_frames": ("T",),
    "planes": ("widths",),
    "FL_blocks": ("groups",),
    "attn_hidden_dim": ("attention_dim",),
    "multi_threshold_times": ("thresholds",),
}
_NO_EFFECT = (
    "qkv_bias", "qk_scale", "drop_rate", "attn_drop_rate", "drop_path_rate", "norm_layer",
    "sr_ratios", "pretrained_cfg", "zero_init_residual",
)  # fmt: skip


class _Read(Mapping[str, Any]):
    """Keyword arguments, and which of them a family asked for."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = dict(given)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return self.given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def without_effect(self, config: Any) -> list[str]:
        """Those that neither the family asked for, nor agree with what the weights tell."""
        return [
            f"{name}={value!r}"
            for name, value in self.given.items()
            if name not in self.names
            and name not in _NO_EFFECT
            and _plain(value)
            not in (_plain(getattr(config, f, None)) for f in _FIELDS.get(name, (name,)))
        ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def load_weights(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    fresh: Container[str] = (),
) -> list[str]:
    """Load official weights strictly; linear layers and 1x1 convolutions fit one another.

    Args:
        net: ours.
        weights: the official state dict.
        rename: our name of an official one; None where it is never used.
        fresh: parameters of ours to leave as they are.

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
        elif name in fresh:
            found[name] = wanted[name]
        else:
            found[name] = _fitted(key, value, wanted[name].shape)
    counters = {name: value for name, value in wanted.items() if name.endswith(_TRACKED)}
    found = counters | found  # checkpoints of early PyTorch do not count batches
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
    if significant(value.shape) != significant(shape):
        raise ValueError(
            f"{key} of the checkpoint has shape {list(value.shape)}, the network wants "
            f"{list(shape)}"
        )
    return value.reshape(shape)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:6]) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 6 else shown
