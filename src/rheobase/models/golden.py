"""Goldens: files of what an official implementation computes, and the model that they name.

A golden (format ``rheobase-model-golden/1``) is a NumPy ``.npz`` of plain arrays: the official
configuration, weights (or a recipe that makes them), an input, and the outputs, firing rates and
gradients of the official code.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rheobase.neurons import IF, LIF, PLIF, DetachedLIF, SpikeFiringApproximation
from rheobase.surrogate import Surrogate, surrogate_class

__all__ = ["Golden", "NotBuilt", "neuron_options", "official_neuron", "read_golden"]

FORMAT = "rheobase-model-golden/1"

# What ``official`` tells of the file itself, and of neurons (see `official_neuron`).
_RECORD = (
    "name", "seed", "note", "notes", "repo", "file", "source", "function", "input", "params",
    "input_layout", "output_layout", "neuron", "neuron_kwargs", "min_nonzero_margin_fp64",
    "n_threshold_evals", "exact_threshold_ties", "max_abs_diff_fp32_vs_fp64",
    "rates_outside_2_60pct", "negative_spike_rates", "system", "spk_layout", "loss", "attn_thr",
)  # fmt: skip


class NotBuilt(Exception):
    """The library lacks something that a golden names."""


@dataclass(frozen=True)
class Golden:
    """The content of a golden file."""

    name: str
    config: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    rates: dict[str, float]

    @property
    def system(self) -> str:
        """The id of the system whose official code made it."""
        system: str = self.config["system"]
        return system

    @property
    def kwargs(self) -> dict[str, Any]:
        """The official constructor's keyword arguments; some files keep them in ``official``."""
        official = self.config.get("official", {})
        settings = {name: value for name, value in official.items() if name not in _RECORD}
        return {**settings, **self.config.get("kwargs", {})}

    @property
    def keys(self) -> set[str]:
        """The keys of the official state dict."""
        return {*self.group("sd"), *self.config.get("weights", {}).get("keys", {})}

    @property
    def batch_first(self) -> bool:
        """Whether its sequences are ``[B, T, ...]``; levels that a pyramid takes are time first."""
        time_first = self.config.get("official", {}).get("input_layout", "").startswith("T,B")
        return not time_first and not any(key.startswith("neck.") for key in self.keys)

    @property
    def channels_last(self) -> bool:
        """Whether its sequences, given and put out, are ``[..., H, W, C]``."""
        layout: str = self.config.get("official", {}).get("input_layout", "")
        return "H,W,C" in layout

    @property
    def further_inputs(self) -> list[str]:
        """What the network takes besides its input: arrays that ``official`` refers to, by name."""
        named = self.config.get("official", {}).values()
        names = [name for name in named if isinstance(name, str) and name.startswith("extra/")]
        return [name for name in names if name in self.arrays]

    def tensor(self, name: str) -> Tensor:
        """A stored array in float64."""
        return torch.from_numpy(self.arrays[name]).double()

    def input(self) -> Tensor:
        """The input: images or frames in float64, or numbers of words."""
        if "input_ids" in self.arrays:
            return torch.from_numpy(self.arrays["input_ids"])
        return self.tensor("input")

    def grad_vector(self, index: int, like: Tensor) -> Tensor:
        """What output ``index`` is multiplied by before its gradient is taken.

        Files with several outputs do not hold it: it is standard normal, of seed 1234 + index.
        """
        if "grad_vector" in self.arrays:
            return self.tensor("grad_vector")
        generator = torch.Generator().manual_seed(1234 + index)
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    def group(self, prefix: str) -> list[str]:
        """What is stored under ``prefix/``: names without it."""
        start = f"{prefix}/"
        return sorted(name.removeprefix(start) for name in self.arrays if name.startswith(start))

    def weights(self) -> dict[str, Tensor]:
        """The official state dict: made by the recipe, if there is one, then as stored."""
        recipe = self.config.get("weights", {})
        if recipe and recipe.get("recipe") != "crc32/1":
            raise ValueError(f"{self.name}: unknown weight recipe {recipe.get('recipe')!r}")
        made = {
            key: torch.from_numpy(_crc32_weight(key, tuple(shape), recipe["bias0"]))
            for key, shape in recipe.get("keys", {}).items()
        }
        stored = {key: torch.from_numpy(self.arrays[f"sd/{key}"]) for key in self.group("sd")}
        return made | stored


def read_golden(path: str | Path) -> Golden:
    """Read a golden file; nothing in it is executed.

    Raises:
        ValueError: the file is damaged or of another format.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except (AttributeError, EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz file of arrays: {error}") from error
    config = json.loads(str(arrays.pop("config", "{}")))
    if config.get("format") != FORMAT:
        raise ValueError(f"{path} is not a golden of format {FORMAT}")
    rates = json.loads(str(arrays.pop("rates", "{}")))
    return Golden(config.get("name", path.stem), config, arrays, rates)


def _crc32_weight(key: str, shape: tuple[int, ...], bias0: float) -> NDArray[Any]:
    """The weight recipe crc32/1, which spares full-size networks their megabytes."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    random = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_mean"):
        value = 0.2 * random.standard_normal(shape)
    elif key.endswith("running_var"):
        value = random.uniform(0.6, 1.4, shape)
    elif key.endswith("bias"):
        value = 0.2 * random.standard_normal(shape) + bias0
    elif key.endswith("weight") and len(shape) == 1:
        value = random.uniform(0.6, 1.4, shape)
    else:
        value = math.sqrt(2.0 / math.prod(shape[1:])) * random.standard_normal(shape)
    return np.asarray(value, np.float32)


def official_neuron(
    golden: Golden,
) -> tuple[Callable[..., nn.Module] | None, dict[str, Any]]:
    """The neuron that a golden names, as class and keyword arguments; None: the family's own.

    Raises:
        NotBuilt: the library has no such neuron or surrogate.
    """
    official = golden.config.get("official", {})
    if "spiking_neuron" in official:  # its options stand beside it
        return _neuron_class(official["spiking_neuron"]), neuron_options(official)
    if "neuron" in official:
        return _neuron_class(official["neuron"]), neuron_options(official.get("neuron_kwargs", {}))
    records = [json.dumps(record) for record in golden.config.get("neurons", {}).values()]
    if not records:
        return None, {}
    usual = json.loads(Counter(records).most_common(1)[0][0])
    return _neuron_class(usual["type"]), neuron_options(usual)


def neuron_options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Our keyword arguments for the official ones of a SpikingJelly neuron."""
    names = ("v_threshold", "detach_reset", "tau", "decay_input")
    options = {name: record[name] for name in names if record.get(name) is not None}
    if "threshold" in record:
        options["v_threshold"] = record["threshold"]
    if "max_value" in record:
        options["levels"] = record["max_value"]
    if "v_reset" in record:  # None is soft reset
        options["v_reset"] = record["v_reset"]
    if "init_tau" in record:
        options["tau"] = record["init_tau"]
    text = record.get("surrogate_function", record.get("surrogate"))
    if text is not None:
        options["surrogate"] = _surrogate(text, record)
    return options


def _neuron_class(official: str) -> Callable[..., nn.Module]:
    bare = official.removeprefix("MultiStep").removesuffix("Node")
    classes: dict[str, Callable[..., nn.Module]] = {
        "IF": IF,
        "LIF": LIF,
        "PLIF": PLIF,
        "ParametricLIF": PLIF,
        "Multispike": partial(SpikeFiringApproximation, halves="up"),
        "MultiSpike": SpikeFiringApproximation,
        "My": DetachedLIF,  # BrainCog's MyNode, of which only mem_detach=True is known
    }
    if bare not in classes:
        raise NotBuilt(f"the library has no neuron {official}")
    return classes[bare]


def _surrogate(text: str, record: Mapping[str, Any]) -> Surrogate:
    """From ``ATan(alpha=2.0, spiking=True)``, or a bare name with parameters beside it."""
    name = text.split("(")[0].replace("MyGrad", "Sigmoid")  # as BrainCog calls it in TIM
    try:
        cls = surrogate_class(name)
    except ValueError as error:
        raise NotBuilt(str(error)) from error
    written = dict(re.findall(r"(\w+)=([-+.\deE]+)", text))
    known = {key: written.get(key, record.get(key)) for key in cls.defaults}
    return cls(**{key: float(value) for key, value in known.items() if value is not None})
