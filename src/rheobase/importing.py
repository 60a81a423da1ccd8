"""Released checkpoints turned into files of this library: ``rheobase import``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rheobase._weights import read_weights
from rheobase.models.official import bare_state_dict, load_official, official_of, system_of
from rheobase.models.recognise import presets_of
from rheobase.models.saved import save_model

__all__ = ["Imported", "import_checkpoint"]


@dataclass(frozen=True)
class Imported:
    """What `import_checkpoint` wrote.

    Attributes:
        path: the file.
        system: whose checkpoint it was.
        family: the family that loads it.
        presets: the published models of its configuration.
        T: time steps that a static image is repeated for; None where there are none.
        parameters: how many there are.
        notes: what was left out, or has no effect.
    """

    path: Path
    system: str
    family: str
    presets: tuple[str, ...]
    T: int | None
    parameters: int
    notes: tuple[str, ...]


def import_checkpoint(
    source: str | Path,
    target: str | Path,
    system: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    compat: Literal["official"] | None = None,
    averaged: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Write an official checkpoint as a file that `rheobase.models.load_model` reads.

    Nothing in the checkpoint is executed.

    Args:
        source: the checkpoint, ``.pth`` (as `torch.save` wrote it) or ``.safetensors``.
        target: the file to write, ``.safetensors``; whole or not at all.
        system: id of the system; None finds it by the weights.
        kwargs: see `rheobase.models.load_official`, as the arguments after it.
        compat: compute what the released code computes, where that differs from the paper.
        averaged: take the moving average of the weights.
        overwrite: replace ``target`` if it exists.

    Raises:
        FileExistsError: ``target`` exists.
        ValueError: the checkpoint holds code, is damaged, or fits no system of the library.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must be called ....safetensors")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; remove it, or ask to overwrite it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder; make it first")
    state = read_weights(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weights = bare_state_dict(state, averaged)
        system = system or system_of(weights)
        net = load_official(system, weights, kwargs, compat=compat)
    family, _ = official_of(system, weights)
    save_model(net, target, family.name, system=system, source=source.name)
    return Imported(
        target,
        system,
        family.name,
        presets_of(family, net.config),
        getattr(net, "T", None),
        sum(p.numel() for p in net.parameters()),
        tuple(str(warning.message) for warning in caught),
    )
