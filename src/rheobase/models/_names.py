"""The spelling that most released spiking transformers share: ``q_conv``, ``q_bn``, ``q_lif``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from rheobase.models.registry import Untold

__all__ = [
    "SWIN",
    "Replacements",
    "depth_of",
    "heads_of",
    "need_layers",
    "replace_in_turn",
    "split_units",
    "swin_sizes",
]

# Pattern -> what takes its place, as `re.sub` understands them.
Replacements = Mapping[str, str | Callable[[re.Match[str]], str]]

# How released Swin transformers spell what `SwinStages` has, which is called ``swin.``.
SWIN: Replacements = {
    r"(swin\.)layers\.(\d)\.blocks\.(\d+)\.": r"\1stages.\2.\3.",
    r"(swin\.)layers\.(\d)\.downsample\.": r"\1merges.\2.",
    r"\.attn\.relative_position_bias_table$": ".attn.bias",
    r"\.mlp\.fc1\.": ".mlp.0.",
    r"\.mlp\.fc2\.": ".mlp.2.",
}

_PARTS = {"conv": "conv", "linear": "conv", "bn": "norm", "lif": "neuron"}
_UNIT = re.compile(r"(?:(?<=\.)|^)(\w+?)_(conv|linear|bn|lif)(\d*)(?=\.|$)")


def split_units(key: str) -> str:
    """``x_conv1``, ``x_bn1``, ``x_lif1`` become ``x1.conv``, ``x1.norm``, ``x1.neuron``.

    >>> split_units("block.0.attn.q_bn.weight")
    'block.0.attn.q.norm.weight'
    >>> split_units("patch_embed.proj_lif2")
    'patch_embed.proj2.neuron'
    """
    return _UNIT.sub(lambda m: f"{m[1]}{m[3]}.{_PARTS[m[2]]}", key)


def replace_in_turn(key: str, replacements: Replacements) -> str:
    """The key after every replacement, one after another."""
    for pattern, ours in replacements.items():
        key = re.sub(pattern, ours, key)
    return key


def depth_of(keys: Iterable[str], blocks: str) -> int:
    """How many blocks ``{blocks}.0.``, ``{blocks}.1.``, ... the keys name."""
    pattern = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")
    found = (match for key in keys if (match := pattern.match(key)))
    return 1 + max((int(match[1]) for match in found), default=-1)


def swin_sizes(
    weights: Mapping[str, Tensor], stages: str
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Blocks and heads of the stages ``{stages}.0``, ... of a `SwinStages`, and rows of its tables.

    Those are of learnt offsets, one for each that two tokens of a window may have.
    """
    count = depth_of(weights, stages)
    depths = tuple(depth_of(weights, f"{stages}.{i}") for i in range(count))
    tables = [weights[f"{stages}.{i}.0.attn.bias"].shape for i in range(count)]
    return depths, tuple(heads for _, heads in tables), tables[0][0]


def need_layers(weights: Mapping[Any, Tensor], what: str, *names: str) -> None:
    """Refuse a checkpoint that is not ``what``: it lacks layers' weights, or other parameters.

    Raises:
        ValueError: naming the first that is not in it.
    """
    for name in names:
        if f"{name}.weight" not in weights and name not in weights:
            raise ValueError(f"not {what} checkpoint: nothing in it is {name}")


def heads_of(
    kwargs: Mapping[str, Any], usual: Iterable[int], *widths: int, name: str = "num_heads"
) -> int:
    """The number of heads that official arguments name, else the first usual one that fits.

    Args:
        kwargs: the official constructor's keyword arguments.
        usual: numbers of heads of published models, the likeliest first.
        widths: what it must divide.
        name: of the official argument.

    Raises:
        Untold: there is neither.
    """
    if name in kwargs:
        return int(kwargs[name])
    for heads in usual:
        if heads > 0 and all(width % heads == 0 for width in widths):
            return heads
    raise Untold(
        f"the weights do not tell the number of heads; give kwargs {name}=...", **{name: 1}
    )
