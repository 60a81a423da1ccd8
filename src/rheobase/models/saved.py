"""A network in one file: its weights, and the configuration that builds it again.

The file is safetensors, so nothing in it can run code; its metadata say which family and
configuration it is of.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase._paths import replacing
from rheobase.models.recognise import shapes
from rheobase.models.registry import Family, MakeNeuron, families

__all__ = ["load_model", "new_head", "save_model"]

_FORMAT = "rheobase-model/1"


def save_model(net: nn.Module, path: str | Path, family: str, **notes: str) -> None:
    """Write a network of a family, whole or not at all.

    The neurons are those of the family's paper when it is loaded again, unless others are given.

    Args:
        net: a network with a ``config``.
        path: where to; a file there is replaced.
        family: its name.
        notes: further metadata, such as where the weights are from.

    Raises:
        ValueError: the network has no ``config``.
    """
    config: Any = getattr(net, "config", None)
    if config is None:
        raise ValueError(f"a {type(net).__name__} has no config, from which to build it again")
    metadata = notes | {
        "format": _FORMAT,
        "family": family,
        "config_class": type(config).__name__,
        "config": json.dumps(dataclasses.asdict(config)),
    }
    tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in net.state_dict().items()}
    with replacing(Path(path)) as unfinished, open(unfinished, "wb") as file:
        file.write(safetensors.torch.save(tensors, metadata))
        file.flush()
        os.fsync(file.fileno())


def load_model(
    path: str | Path,
    *,
    neuron: str | MakeNeuron | None = None,
    neuron_kwargs: Mapping[str, Any] | None = None,
    fresh_head: bool = False,
    **overrides: Any,
) -> nn.Module:
    """A network from a file of `save_model` (or ``rheobase import``).

    Args:
        path: the file.
        neuron: another neuron than the paper's, as in `create_model`.
        neuron_kwargs: keyword arguments of the neuron.
        fresh_head: for another ``num_classes``: leave what depends on it untrained.
        overrides: fields of the config, such as ``T``, ``image_size`` or ``num_classes``.

    Raises:
        ValueError: not such a file, or damaged; an unknown override; weights that do not fit the
            overrides.
        FileNotFoundError: there is no such file.
    """
    metadata, tensors = _read(Path(path))
    family, saved = _config_of(metadata, Path(path))
    fields = [f.name for f in dataclasses.fields(saved)]
    for key in overrides:
        if key not in fields:
            raise ValueError(unknown_name(f"override of {path}", key, fields))
    config = dataclasses.replace(saved, **overrides)
    fresh = new_head(family, saved, config, fresh_head)
    net = family.build(config, neuron, neuron_kwargs)
    kept = {key: value for key, value in tensors.items() if key not in fresh}
    wanted = net.state_dict().keys() - fresh
    if kept.keys() != wanted:
        differ = ", ".join(sorted(kept.keys() ^ wanted)[:6])
        raise ValueError(f"{path} does not fit the network (has the neuron parameters?): {differ}")
    net.load_state_dict(kept, strict=False)
    return net


def new_head(family: Family, saved: Any, config: Any, fresh: bool) -> set[str]:
    """The parameters of a configuration that weights of another number of classes do not fit.

    Args:
        family: of both.
        saved: the configuration of the weights.
        config: that of the network which is to load them.
        fresh: whether those parameters may stay as they are initialised.

    Raises:
        ValueError: there are some, and ``fresh`` is False; or parameters differ for other reasons
            than the number of classes.
    """
    ours, theirs = shapes(family, config), shapes(family, saved)
    if ours == theirs:
        return set()
    classes = getattr(config, "num_classes", None)
    if classes == getattr(saved, "num_classes", None):
        only = theirs
    else:
        only = shapes(family, dataclasses.replace(saved, num_classes=classes))
    if only != ours:
        wrong = sorted(key for key in ours | only if ours.get(key) != only.get(key))
        raise ValueError(f"the weights do not fit these overrides: {', '.join(wrong[:6])}")
    changed = {key for key in ours if ours[key] != theirs.get(key)}
    if not fresh:
        raise ValueError(
            f"the weights are for {saved.num_classes} classes, not {classes}; give "
            f"fresh_head=True for an untrained {', '.join(sorted(changed))}"
        )
    return changed


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} does not say what network it is of (format {_FORMAT}); checkpoints of other "
            "projects become such files by `rheobase import`"
        )
    return metadata, tensors


def _config_of(metadata: Mapping[str, str], path: Path) -> tuple[Family, Any]:
    names = {family.name: family for family in families()}
    if metadata["family"] not in names:
        raise ValueError(f"{path}: " + unknown_name("family", metadata["family"], names))
    family = names[metadata["family"]]
    module = import_module(type(next(iter(family.presets.values()))).__module__)
    cls = getattr(module, metadata["config_class"], None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"{path}: {family.name} has no {metadata['config_class']} any more")
    return family, cls(**{k: _tupled(v) for k, v in json.loads(metadata["config"]).items()})


def _tupled(value: Any) -> Any:
    """JSON knows no tuples; configs know no lists."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
