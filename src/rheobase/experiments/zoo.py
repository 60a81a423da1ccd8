"""The zoo on CIFAR-10: a small network of each family, trained for one budget, in one table.

``python -m rheobase.experiments.zoo`` trains every recipe of ``configs/zoo`` and its ANN twin, or
those named, one after another, and writes ``docs/zoo.md`` of all that are finished. It may be
stopped at any moment and run again: trainings continue, and what is finished is not done again.
``epochs=1 data.train_images=10000`` behind it is a tenth of the budget, in folders of its own;
``--costs`` measures only time and memory of a training step again, of what is finished.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rheobase._paths import write_text
from rheobase.experiments.measured import first_samples
from rheobase.experiments.zoo_cost import training_cost
from rheobase.measure import count_operations, energy, firing_rates
from rheobase.models import create_model
from rheobase.models.spike_driven_transformer_v3 import ESpikeFormer, spike_driven
from rheobase.neurons import Neuron
from rheobase.train import Result, TrainConfig, load_config, train
from rheobase.train.config import ModelConfig

__all__ = ["measure", "run_zoo", "twin_of", "write_table"]

DEAD, SATURATED = 0.01, 0.6
_COUNTED = 200  # test images that rates and operations are averaged over


def run_zoo(
    configs: Path,
    table: Path,
    names: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    costs: bool = False,
) -> None:
    """Train and measure recipes and their twins; write the table after each.

    Args:
        configs: folder of the recipes.
        table: Markdown file to write.
        names: recipes to do; empty for all.
        overrides: ``section.key=value`` for every recipe.
        costs: train nothing; measure again what a training step of the finished ones costs.

    Raises:
        FileNotFoundError: no recipe has that name.
    """
    known = {path.stem: path for path in sorted(configs.glob("*.yaml"))}
    recipes = {name: _recipe(path, overrides) for name, path in known.items()}
    for name in names or known:
        if name not in known:
            raise FileNotFoundError(f"there is no {configs / name}.yaml; known: {', '.join(known)}")
        found = Path(recipes[name].run) / "measured.json"
        if costs and found.exists():
            again = training_cost(found.with_name("config.yaml"))
            write_text(found, json.dumps(json.loads(found.read_text()) | again, indent=1))
        elif not costs and not found.exists():
            write_text(found, json.dumps(_one(recipes[name]), indent=1))
        write_table(table, {name: Path(cfg.run) for name, cfg in recipes.items()}, overrides)


def _recipe(path: Path, overrides: Sequence[str]) -> TrainConfig:
    """A recipe; on a part of the images, in a folder that says so."""
    cfg = load_config(path, overrides)
    part = cfg.data.train_images
    return dataclasses.replace(cfg, run=f"{cfg.run}_{part}") if part else cfg


def _one(cfg: TrainConfig) -> dict[str, Any]:
    trained = train(cfg)
    twin_cfg, twin = twin_of(cfg)
    return {
        "model": cfg.model.name,
        "overrides": cfg.model.overrides,
        "epochs": cfg.epochs,
        "batch_size": cfg.data.batch_size,
        "train_images": cfg.data.train_images,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        **measure(cfg, trained),
        "twin": measure(twin_cfg, train(twin_cfg, twin), ordinary=True),
    }


def twin_of(cfg: TrainConfig) -> tuple[TrainConfig, nn.Module]:
    """The recipe and the network with ReLU in every neuron's place, computed once.

    Everything else is as in the spiking network: so its attention has no softmax. Neurons that
    fire both signs, which wavelet transforms have, become the identity.
    """
    overrides = dict(cfg.model.overrides)
    if "T" in overrides:
        overrides["T"] = 1
    torch.manual_seed(cfg.seed)
    net = create_model(cfg.model.name, neuron=lambda **_: nn.ReLU(), **overrides)
    for name, module in list(net.named_modules()):
        if isinstance(module, Neuron):
            net.set_submodule(name, nn.Identity())
    model = ModelConfig(cfg.model.name, overrides)
    return dataclasses.replace(cfg, run=f"{cfg.run}_twin", model=model), net


def measure(cfg: TrainConfig, trained: Result, ordinary: bool = False) -> dict[str, Any]:
    """Accuracy, operations, energy and rates of a trained network; costs of training it.

    Args:
        cfg: its recipe.
        trained: what training gave.
        ordinary: it has no neurons: charge it as an ordinary network.
    """
    net = trained.model.eval()
    images, _ = first_samples(cfg, _COUNTED)
    with _binary(net):
        counts = count_operations(net, images)
    charged = energy(counts, "ann" if ordinary else "paper")
    found: dict[str, Any] = {
        "accuracy": trained.accuracy,
        "parameters": sum(p.numel() for p in net.parameters()),
        "energy_uj": charged.pj / 1e6,
    }
    if ordinary:
        return found | {"macs": charged.macs}
    found |= {"sops": charged.acs, "macs": charged.macs, "rates": firing_rates(net, images)}
    return found | training_cost(trained.run / "config.yaml")


def _binary(net: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Integers of E-SpikeFormer as trains of binary spikes, which are what is counted."""
    if isinstance(net, ESpikeFormer):
        return spike_driven(net)
    return contextlib.nullcontext()


def write_table(path: Path, runs: Mapping[str, Path], overrides: Sequence[str] = ()) -> None:
    """Write the Markdown page of finished runs.

    Args:
        path: of the page.
        runs: folder of every recipe's run; those without ``measured.json`` are named as missing.
        overrides: what the recipes were overridden with.
    """
    files = {name: run / "measured.json" for name, run in runs.items()}
    rows = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    command = " ".join(["python -m rheobase.experiments.zoo", *overrides])
    lines = [
        "# The zoo on CIFAR-10",
        "",
        f"Small networks of several families, trained on {_budget(rows.values())},",
        "and tested on all 10,000 test images. Sizes are cut down to what CPU cores train in",
        "minutes: the accuracies say whether each learns (chance is 10 %), not which is best.",
        f"Recipes: `configs/zoo/`. Written by `{command}`,",
        "which resumes what is unfinished.",
        "",
        *_missing([name for name in runs if name not in rows]),
        "The twin is the same network with ReLU in every neuron's place, computed once. SOPs are",
        'synaptic operations for one image; energy follows the convention "paper" (4.6 pJ a MAC of',
        "the first layer, 0.9 pJ a SOP), the twin's 4.6 pJ a MAC: memory is in neither. A step is",
        "forward, backward and update of one batch, memory what the step adds at its peak.",
        "Meta-SpikeFormer and E-SpikeFormer are left out: their stems leave four tokens of such an",
        "image, too few for their attention to fire.",
        "TIM, STS-Transformer, TE-Spikformer, SSTFormer and Spikeformer-CT were made for events or",
        "ImageNet; MAST, DISTA and the Spiking ViT with dynamic time steps are Spikformer but for",
        "one reconstructed layer; RevSResNet couples as RevSFormer does: they are left out, too.",
        "SpikingResformer's attention multiplies what neurons put out with itself, with no norm",
        "between, scaled by their firing rates: it is made for spikes. Of ReLUs such products have",
        "no bound, so its twin need not be the better of the two.",
        "",
        "| model | accuracy | twin | parameters | SOPs | energy | twin's | step | memory |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(name, row) for name, row in rows.items()),
        "",
        "## Firing rates",
        "",
        f"Spikes per neuron and step over {_COUNTED} test images, layer by layer, in percent.",
        f"Dead: below {DEAD:.0%}; saturated: above {SATURATED:.0%}.",
        *_why(rows.values()),
        "",
    ]
    for name, row in rows.items():
        lines += [f"**{name}** (`{row['model']}`): {_rates(row['rates'])}", ""]
    write_text(path, "\n".join(lines))


def _why(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Why neurons behind attention products are dead, if others are not."""
    dead = [layer for row in rows for layer, rate in row["rates"].items() if rate < DEAD]
    if not dead or not all(layer.endswith("attn.neuron") for layer in dead):
        return []
    return [
        "What is dead here stands behind an attention product, of the papers' scale 1/8 and",
        "threshold 1/2: from rest it fires on eight coincidences of query, key and value spikes",
        "at one step, which are rare where each of these fires seldom, and rarer where attention",
        "is among few tokens.",
    ]


def _budget(rows: Iterable[Mapping[str, Any]]) -> str:
    """In words; more than one only if the runs differ."""
    budgets = {
        f"{f'the first {images:,}' if images else 'all'} training images of CIFAR-10 "
        f"({row['epochs']} epoch{'s' * (row['epochs'] > 1)}, batches of {row['batch_size']}, "
        f"{row['machine']})"
        for row in rows
        for images in [row["train_images"]]
    }
    return " or ".join(sorted(budgets))


def _missing(names: Sequence[str]) -> list[str]:
    return [f"Not trained at this budget yet: {', '.join(names)}.", ""] if names else []


def _row(name: str, row: Mapping[str, Any]) -> str:
    twin = row["twin"]
    cells = [
        name,
        f"{row['accuracy']:.1%}",
        f"{twin['accuracy']:.1%}",
        f"{row['parameters'] / 1e3:,.0f} k",
        f"{row['sops'] / 1e6:.2f} M",
        f"{row['energy_uj']:.2f} µJ",
        f"{twin['energy_uj']:.1f} µJ",
        f"{row['step_ms']:.0f} ms",
        f"{row['memory_mib']:.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _rates(rates: Mapping[str, float]) -> str:
    """What is dead or saturated, then every layer."""
    named = {
        "dead": [layer for layer, rate in rates.items() if rate < DEAD],
        "saturated": [layer for layer, rate in rates.items() if rate > SATURATED],
    }
    words = [f"{what}: {', '.join(found)}. " for what, found in named.items() if found]
    every = ", ".join(f"{layer} {100 * rate:.1f}" for layer, rate in rates.items())
    return f"{''.join(words) or 'none dead, none saturated. '}{every}."


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rheobase.experiments.zoo")
    parser.add_argument("names", nargs="*", help="recipes (default: all), or section.key=value")
    parser.add_argument("--configs", type=Path, default=Path("configs/zoo"))
    parser.add_argument("--table", type=Path, default=Path("docs/zoo.md"))
    parser.add_argument("--costs", action="store_true", help="only measure a step's costs again")
    options = parser.parse_args(arguments)
    names = [name for name in options.names if "=" not in name]
    overrides = [option for option in options.names if "=" in option]
    run_zoo(options.configs, options.table, names, overrides, costs=options.costs)


if __name__ == "__main__":
    main()
