"""The subcommands of ``rheobase``: each is one record and one short function.

They import what they need when they run, so that ``rheobase --help`` is quick.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rheobase._errors import unknown_name
from rheobase._text import columns

__all__ = ["COMMANDS", "Command"]

Parser = argparse.ArgumentParser
Options = argparse.Namespace


@dataclass(frozen=True)
class Command:
    """A subcommand: what it says in ``--help``, the options it takes, and what it does."""

    summary: str
    example: str
    arguments: Callable[[Parser], object]
    run: Callable[[Options], int]


def _no_arguments(parser: Parser) -> None:
    pass


def _demo_arguments(parser: Parser) -> None:
    parser.add_argument("--folder", default="runs/demo", help="where it writes (runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="everything random follows from it (0)")
    parser.add_argument("--quick", action="store_true", help="a minute's worth, to see it run")


def _demo(options: Options) -> int:
    from rheobase.experiments.demo import run_demo

    report = run_demo(folder=options.folder, seed=options.seed, quick=options.quick)
    print(f"report: {report}")
    return 0


def _train_arguments(parser: Parser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG.yaml", help="the run (rheobase.train.TrainConfig)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings changed in it")


def _train(options: Options) -> int:
    from rheobase.train import train_from_config

    result = train_from_config(options.config, options.overrides)
    print(f"accuracy {result.accuracy:.2%} (best {result.best_accuracy:.2%}), in {result.run}")
    return 0


def _plan_arguments(parser: Parser) -> None:
    _train_arguments(parser)
    parser.add_argument("--processes", type=int, default=1, help="that share a batch (1)")
    parser.add_argument("--memory", type=float, help="GiB: how many samples fit into it")


def _plan(options: Options) -> int:
    from rheobase.train.config_file import load_config
    from rheobase.train.plan import plan

    found = plan(load_config(options.config, options.overrides), options.processes)
    print(f"{found.parameters:,} parameters; {found.images} samples in one forward pass")
    print(f"peak memory of a process: {found.peak_bytes / 2**30:.2f} GiB", end="")
    print(f" ({found.image_bytes / 2**20:.1f} MiB a sample)")
    print(f"optimiser step: {found.step_seconds:.2f} s, data loading not included")
    print(f"measured: steps of {found.probed[0]} and {found.probed[1]} samples")
    if options.memory is not None:
        fit = found.fits(options.memory * 2**30)
        print(f"{options.memory:g} GiB hold {fit} samples in one forward pass")
    return 0


def _search_arguments(parser: Parser) -> None:
    parser.add_argument("method", metavar="METHOD", help="snasnet, autosnn, supernet or autost")
    parser.add_argument("--data", default="mnist_sample", help="a data set (mnist_sample)")
    parser.add_argument("--seed", type=int, default=0, help="everything random follows from it (0)")
    parser.add_argument("--quick", action="store_true", help="a few seconds' worth, to see it run")
    parser.add_argument("--out", default="searched.yaml", help="the recipe to train what is found")


def _search(options: Options) -> int:
    from rheobase.experiments.search import search
    from rheobase.train.config_file import save_config

    # Before the search, which takes minutes: what it finds must not be lost.
    recipe = Path(options.out)
    if recipe.is_dir():
        raise ValueError(f"--out names a folder, {recipe}; give a file, as {recipe / 'found.yaml'}")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    kept = recipe.with_name(f"{recipe.name}.unfinished")
    try:
        found = search(
            options.method, options.data, quick=options.quick, seed=options.seed, kept=kept
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; run it again to continue") from None
    save_config(found.recipe(options.data), recipe)
    for name, value in {"name": found.model, **found.overrides}.items():
        print(f"{name:<12} {value}")
    print(f"to train it: rheobase train {recipe}")
    return 0


def _compare_arguments(parser: Parser) -> None:
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="none: all of them")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--configs", default="configs", help="folder of the recipes (configs)")
    parser.add_argument("--folder", default="runs/compare", help="where it writes (runs/compare)")


def _compare(options: Options) -> int:
    from rheobase.experiments.compare import compare, mechanism_table, table

    rows = compare(
        options.methods, configs=options.configs, folder=options.folder, seeds=options.seeds
    )
    print(table(rows), mechanism_table(rows), sep="\n", end="")
    return 0


def _study_arguments(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="none: list them")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of every run: epochs=1, ..."
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs of each surrogate (1)")
    parser.add_argument("--configs", default="configs", help="folder of the recipes (configs)")
    parser.add_argument("--folder", default="runs/studies", help="(runs/studies)")


def _study(options: Options) -> int:
    from rheobase.experiments.studies import STUDIES, run_study

    if options.name is None:
        rows = ((name, study.asks) for name, study in STUDIES.items())
        print(columns(rows, head=("name", "what")))
        return 0
    results = run_study(
        options.name, configs=options.configs, folder=options.folder, seeds=options.seeds,
        overrides=options.overrides,
    )  # fmt: skip
    print(results.table(), f"page: {Path(options.folder, options.name, 'page.html')}", sep="\n")
    return 0


def _eval_arguments(parser: Parser) -> None:
    parser.add_argument(
        "run", metavar="RUN_OR_CHECKPOINT", help="a run's folder, one checkpoint, or a model's file"
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="of a model's file: data.name=cifar10, ..."
    )


def _eval(options: Options) -> int:
    from rheobase.train import evaluate_run

    for name, value in evaluate_run(options.run, settings=options.settings).items():
        print(f"{name:<12} {value:.6g}")
    return 0


def _cost_arguments(parser: Parser) -> None:
    parser.add_argument(
        "network", metavar="NETWORK", help="a run's folder, a model's file, or a registered model"
    )
    _measured_arguments(parser)


def _measured_arguments(parser: Parser) -> None:
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="of its data or model: data.name=cifar10"
    )
    parser.add_argument("--images", type=int, default=20, help="test images averaged over (20)")


def _cost(options: Options) -> int:
    from rheobase.experiments.cost_command import cost_page

    print(cost_page(options.network, options.settings, options.images))
    return 0


def _deploy_arguments(parser: Parser) -> None:
    parser.add_argument(
        "network", nargs="?", metavar="NETWORK", help="as `rheobase cost` takes; none: list chips"
    )
    _measured_arguments(parser)
    parser.add_argument("--chip", default="loihi", help="truenorth, loihi, spinnaker, ... (loihi)")


def _deploy(options: Options) -> int:
    from rheobase.experiments.deploy_command import chips_page, deploy_page

    if options.network is None:
        print(chips_page())
        return 0
    print(deploy_page(options.network, options.chip, options.settings, options.images))
    return 0


def _models_arguments(parser: Parser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as in *cifar*")


def _models(options: Options) -> int:
    import torch

    from rheobase.models import create_model, list_models

    names = list_models(options.pattern)
    if not names:
        raise ValueError(unknown_name("model", options.pattern, list_models()))
    with torch.device("meta"):  # shapes without memory
        counts = [sum(p.numel() for p in create_model(name).parameters()) for name in names]
    shown = columns(
        ((name, f"{count:>13,}") for name, count in zip(names, counts, strict=True)),
        head=("model", f"{'parameters':>13}"),
    )
    print(shown)
    return 0


def _catalog_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="all of it as one JSON list")
    parser.add_argument("--group", metavar="G", help="one group: neurons, transformers, ...")
    parser.add_argument("--status", metavar="S", help="one status: works, partial or open")


def _catalog(options: Options) -> int:
    from rheobase.catalog import STATUSES, systems

    rows = systems(options.group, options.status)
    if options.json:
        print(json.dumps([row.row() for row in rows], indent=1, ensure_ascii=False))
        return 0
    shown = columns(
        ((row.status, row.group, row.id, row.entry or row.paper) for row in rows),
        head=("status", "group", "id", "entry, or where to read of it"),
    )
    print(shown)
    for row in rows:
        if row.uncertain:
            print(f"{row.id}: a reconstruction; uncertain: {row.uncertain}")
    counts = {status: sum(row.status == status for row in rows) for status in STATUSES}
    print(f"{len(rows)} systems:", ", ".join(f"{n} {status}" for status, n in counts.items()))
    return 0


def _verify_arguments(parser: Parser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE.npz", help="goldens of official models, or their folder"
    )


def _verify(options: Options) -> int:
    from rheobase.verify import print_reports, verify_many

    reports = verify_many(options.files)
    print_reports(reports)
    return 0 if all(report.holds for report in reports) else 1


def _import_arguments(parser: Parser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="official weights: .pth, ...")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="a .safetensors file")
    parser.add_argument("--system", metavar="ID", help="whose they are, where weights do not tell")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="what weights do not tell"
    )
    parser.add_argument("--official", action="store_true", help="compute as released, bugs and all")
    parser.add_argument("--averaged", action="store_true", help="take the moving average (EMA)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def _import(options: Options) -> int:
    from rheobase.importing import import_checkpoint

    done = import_checkpoint(
        options.checkpoint,
        options.output,
        options.system,
        dict(map(_keyword, options.set)),
        compat="official" if options.official else None,
        averaged=options.averaged,
        overwrite=options.overwrite,
    )
    print(f"system       {done.system}\nfamily       {done.family}")
    print(f"model        {' or '.join(done.presets) or 'of no published size'}")
    print(f"T            {done.T}\nparameters   {done.parameters:,}")
    for note in done.notes:
        print(f"note         {note}")
    print(f"written      {done.path}")
    return 0


def _keyword(text: str) -> tuple[str, object]:
    """A Python-like ``key=value``; what is no JSON is text, as 0011 is."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: expected key=value, for instance num_heads=8")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _data_arguments(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|get", required=True)
    actions.add_parser("list", help="what there is, and where it comes from")
    get = actions.add_parser("get", help="have it on this machine, checked")
    get.add_argument("name", metavar="NAME", help="a name of `rheobase data list`")


def _data(options: Options) -> int:
    from rheobase.data import download, list_datasets

    if options.action == "get":
        print(download(options.name))
        return 0
    shown = columns(
        ((info.name, info.description, info.licence, info.how) for info in list_datasets()),
        head=("name", "what", "licence", "how it is had"),
    )
    print(shown)
    return 0


def _doctor(options: Options) -> int:
    from rheobase.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{finding.mark}  {finding.what:<18} {finding.detail}")
        if finding.mend:
            print(f"{'':23}mend: {finding.mend}")
    return 0 if all(finding.works or finding.optional for finding in findings) else 1


def _selftest_arguments(parser: Parser) -> None:
    parser.add_argument("--full", action="store_true", help="every neuron and dtype; hours")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="the I-th of N shares of it")


def _selftest(options: Options) -> int:
    from rheobase.ops.conformance import run

    part, parts = _part(options.part)
    checked = failed = 0
    for row in run("full" if options.full else "fast", part, parts):
        checked, failed = checked + 1, failed + (not row.ok)
        mark = "ok" if row.ok else "NO"
        found = f"{row.spikes_differ} spikes differ, gradient within {row.worst_gradient:.1e}"
        print(f"{mark}  {row.backend} {row.dtype} {row.spec} {row.layout}: {found}", flush=True)
    print(f"{checked} kernels held to the reference, {failed} differ from it")
    return 1 if failed else 0


def _convert_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODULE:FUNCTION", help="what makes the ANN, in Python")
    parser.add_argument("--weights", help="its state dict: .safetensors, or what torch.save wrote")
    parser.add_argument("--data", required=True, help="a data set of `rheobase data list`")
    parser.add_argument(
        "--recipe", action="append",
        help="may be given again; training_free for all of those (calibration_light)",
    )  # fmt: skip
    parser.add_argument("--T", default="1,2,4,8,16,32,64", help="time steps, with commas")
    parser.add_argument("--mean", default="0", help="taken from every channel of the images (0)")
    parser.add_argument("--std", default="1", help="that every channel is divided by (1)")
    parser.add_argument("--calibration", type=int, default=1000, help="training images used (1000)")
    parser.add_argument("--test", type=int, default=1000, help="test images used (1000)")
    parser.add_argument("--report", help="write this HTML page")
    parser.add_argument(
        "--train", nargs="+", metavar="key=value",
        help="train the first recipe's network of the largest T further, as these settings of "
        "`rheobase train` say (hybrid training)",
    )  # fmt: skip
    parser.add_argument("--results", help="a JSON file to write after every recipe and go on from")


def _convert(options: Options) -> int:
    from rheobase.experiments.convert_command import convert_from_options

    return convert_from_options(options)


def _part(text: str) -> tuple[int, int]:
    """``2/8`` as which share, from 0 on, of how many."""
    which, slash, parts = text.partition("/")
    if not (slash and which.isdecimal() and parts.isdecimal() and 1 <= int(which) <= int(parts)):
        raise ValueError(f"--part {text}: expected I/N, such as 2/8 for the second of 8 shares")
    return int(which) - 1, int(parts)


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "train a small Spikformer beside its ANN twin and write a report",
        "rheobase demo --seed 1",
        _demo_arguments,
        _demo,
    ),
    "train": Command(
        "train a model as a YAML file says; run it again to continue",
        "rheobase train configs/spikformer_mnist_small.yaml epochs=3 seed=1",
        _train_arguments,
        _train,
    ),
    "plan": Command(
        "predict a run's peak memory and step time from a probe of seconds",
        "rheobase plan configs/spikformer_cifar10_4_384.yaml --memory 8",
        _plan_arguments,
        _plan,
    ),
    "search": Command(
        "search an architecture and write the recipe that trains it; run it again to continue",
        "rheobase search autosnn --data mnist_sample --out searched.yaml",
        _search_arguments,
        _search,
    ),
    "compare": Command(
        "measure methods of direct training against their baselines, over seeds",
        "rheobase compare tet glif --seeds 3",
        _compare_arguments,
        _compare,
    ),
    "study": Command(
        "run an experiment of the survey's, and write its table and page",
        "rheobase study e1_conversion_curve",
        _study_arguments,
        _study,
    ),
    "eval": Command(
        "measure a trained run on its test images",
        "rheobase eval runs/train",
        _eval_arguments,
        _eval,
    ),
    "cost": Command(
        "count what an inference costs: operations, energy by every convention, latency",
        "rheobase cost plif_net_mnist data.name=mnist_sample",
        _cost_arguments,
        _cost,
    ),
    "deploy": Command(
        "say whether a network fits a neuromorphic chip, how, and what it would cost there",
        "rheobase deploy plif_net_mnist --chip loihi",
        _deploy_arguments,
        _deploy,
    ),
    "convert": Command(
        "make a spiking network of a trained ANN and measure it at several T",
        "rheobase convert rheobase.models.ann_resnet:cifar_resnet20 --weights resnet20.th "
        "--data cifar10 --recipe qcfs",
        _convert_arguments,
        _convert,
    ),
    "models": Command(
        "list the published models and their parameter counts",
        "rheobase models 'spikformer*'",
        _models_arguments,
        _models,
    ),
    "catalog": Command(
        "list every system of the surveys: its status, entry and evidence",
        "rheobase catalog --group transformers --status works",
        _catalog_arguments,
        _catalog,
    ),
    "verify": Command(
        "hold models to the outputs, rates and gradients of official ones",
        "rheobase verify tests/goldens/models/spikformer*.npz",
        _verify_arguments,
        _verify,
    ),
    "import": Command(
        "turn released weights into a file that rheobase loads",
        "rheobase import spikformer_8_512.pth -o spikformer_8_512.safetensors",
        _import_arguments,
        _import,
    ),
    "data": Command(
        "list the data sets, or get one",
        "rheobase data get mnist",
        _data_arguments,
        _data,
    ),
    "doctor": Command(
        "say what works on this machine, and mend what does not",
        "rheobase doctor",
        _no_arguments,
        _doctor,
    ),
    "selftest": Command(
        "hold every kernel of this machine to the reference",
        "rheobase selftest --full --part 1/8",
        _selftest_arguments,
        _selftest,
    ),
}
