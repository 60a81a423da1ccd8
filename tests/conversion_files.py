"""Files of official conversions, and the networks that they are of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheobase.convert import ConvertedNetwork, Preparation, Spiking
from rheobase.layers import QCFS

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "conversion"
UNFOLDED = Preparation(fold_batch_norm=False)
Arrays = dict[str, Tensor]


def files(*kinds: str) -> list[str]:
    """The files whose names begin with one of ``kinds``."""
    return sorted(path.stem for path in FOLDER.glob("*.npz") if path.stem.startswith(kinds))


def check(name: str, checks: Mapping[str, Callable[[str], None]]) -> None:
    """Run the check of the file's kind, which is how its name begins."""
    next(run for kind, run in checks.items() if name.startswith(kind))(name)


def load(name: str) -> Arrays:
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}.npz, which this file refers to, is not in the folder")
    with np.load(path) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def part(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def cnn(
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    norm: bool = True,
    pool: type[nn.Module] = nn.AvgPool2d,
) -> nn.Sequential:
    """The network of most files."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        norms = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *norms, activation()]

    return nn.Sequential(
        *block(1, 16), *block(16, 32), pool(2), *block(32, 32), pool(2), nn.Flatten(),
        nn.Linear(128, 64), activation(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(name: str) -> tuple[nn.Module, Arrays]:
    """The plain network of a file ``ann_relu_*``."""
    arrays = load(name)
    net = cnn(norm="nobn" not in name, pool=nn.MaxPool2d if "max" in name else nn.AvgPool2d)
    net.load_state_dict(part(arrays, "w."))
    return net.eval(), arrays


def qcfs(levels: int) -> tuple[nn.Module, Arrays]:
    arrays = load(f"qcfs_L{levels}")
    net = cnn(lambda: QCFS(levels))
    weights = part(arrays, "w.")
    net.load_state_dict(
        {k.replace("thresh", "threshold"): v.reshape(()) if "thresh" in k else v
         for k, v in weights.items()}
    )  # fmt: skip
    return net.eval(), arrays


def neurons(net: ConvertedNetwork) -> list[Spiking]:
    """In order of execution."""
    calls = [n.target for n in net.body.graph.nodes if n.op == "call_module"]
    modules = [net.body.get_submodule(str(name)) for name in calls]
    return [module for module in modules if isinstance(module, Spiking)]


def cases_of(arrays: Arrays, ending: str = ".acc_out") -> list[str]:
    found = [name.removesuffix(ending) for name in arrays if name.endswith(ending)]
    assert found
    return found
