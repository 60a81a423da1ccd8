"""Training runs as YAML files: read with overrides, written, compared."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonargparse
import yaml

from rheobase._errors import unknown_name
from rheobase._paths import write_text
from rheobase.train.config import TrainConfig, plain, settings_of

__all__ = ["differences", "load_config", "save_config"]

_NAMED_SECTIONS = {
    section
    for section, hint in get_type_hints(TrainConfig).items()
    if dataclasses.is_dataclass(hint) and "name" in get_type_hints(hint)
}


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file (None: the defaults) and apply `section.key=value` overrides.

    A word given to a section that has a name is its name: `rule=ottt` is `rule.name=ottt`. A
    leading `train.` may stand before any key: `train.rule=ottt`. A file may name another of its
    folder as its `base`: what it says goes before what that one says, setting by setting.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Unknown key or choice (the nearest is named), an override without `=`, or a
            file that is its own base.
        TypeError: A value of the wrong type.
    """
    data = _read(Path(path)) if path else {}
    for override in overrides:
        _apply(data, override)
    _check(TrainConfig, data, "")
    return _typed(data)


def save_config(cfg: TrainConfig, path: str | Path) -> None:
    """Write every setting of `cfg`, defaults included, as YAML that `load_config` reads."""
    text = yaml.safe_dump(plain(dataclasses.asdict(cfg)), sort_keys=False, allow_unicode=True)
    write_text(Path(path), text)


def differences(old: TrainConfig, new: TrainConfig, ignore: Sequence[str] = ()) -> list[str]:
    """Return `key: old -> new` for every setting that differs, except those in `ignore`."""
    before, after = settings_of(old), settings_of(new)
    keys = [k for k in before | after if not k.startswith(tuple(ignore))]
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.1 reads `1e-3` as text; this loader reads it as a number, as everybody means it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """What a file and its bases say."""
    if path in above:
        raise ValueError(f"{above[0]} is its own base, by way of {', '.join(map(str, above[1:]))}")
    data = yaml.load(path.read_text(), Loader=_Loader) or {}
    base = data.pop("base", None) if isinstance(data, dict) else None
    return data if base is None else _merged(_read(path.parent / base, (*above, path)), data)


def _merged(base: Any, data: Any) -> Any:
    """`data`, and what only `base` says."""
    if not (isinstance(base, dict) and isinstance(data, dict)):
        return data
    return base | {key: _merged(base.get(key), value) for key, value in data.items()}


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"override {override!r}: expected key=value, for instance optim.lr=0.001")
    value = yaml.load(text, Loader=_Loader)
    key = key.removeprefix("train.")
    if isinstance(value, str) and key in _NAMED_SECTIONS:
        key = f"{key}.name"
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ValueError(f"override {override!r}: {parent!r} is not a section")
    data[last] = value


def _check(cls: type, data: Any, path: str) -> None:
    """Refuse unknown keys and unknown choices, naming the nearest known one."""
    if not isinstance(data, Mapping):
        where = path or "the config file"
        raise TypeError(f"{where}: expected a section of key: value lines, got {data!r}")
    hints = get_type_hints(cls)
    for key, value in data.items():
        full = f"{path}.{key}" if path else str(key)
        if key not in hints:
            known = [f"{path}.{name}" if path else name for name in hints]
            raise ValueError(unknown_name("key", full, known))
        if dataclasses.is_dataclass(hints[key]):
            _check(hints[key], value, full)
        elif get_origin(hints[key]) is Literal and value not in get_args(hints[key]):
            raise ValueError(unknown_name(full, str(value), map(str, get_args(hints[key]))))


def _typed(data: dict[str, Any]) -> TrainConfig:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", type=TrainConfig)
    try:
        cfg = parser.instantiate(parser.parse_object({"config": data})).config
    except argparse.ArgumentError as error:
        raise TypeError(_type_error(str(error), data)) from None
    assert isinstance(cfg, TrainConfig)
    return cfg


def _type_error(message: str, data: dict[str, Any]) -> str:
    found = re.search(r'"config\.([\w.]+)"', message)
    expected = re.findall(r"Expected a <class '(\w+)'>", message)
    if not found:
        return message.replace("config.", "")
    value: Any = data
    for part in found.group(1).split("."):
        value = value[part] if isinstance(value, Mapping) else value
    given = f"{value!r} ({type(value).__name__})"
    want = " or ".join(expected).replace("NoneType", "null") or " ".join(message.split())
    return f"{found.group(1)}: expected {want}, got {given}"
