"""Hold a model to the numbers of its official implementation.

`verify` builds the model that a golden names (see `rheobase.models.golden`), loads the official
weights, and compares outputs, the firing rate of every neuron, and gradients, in float64.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.models.golden import Golden, NotBuilt, neuron_options, official_neuron, read_golden
from rheobase.models.official import load_official, official_of
from rheobase.models.registry import families
from rheobase.neurons import Neuron
from rheobase.surrogate import Surrogate
from rheobase.train.losses.objective import outputs as outputs_of

__all__ = ["Check", "VerifyReport", "print_reports", "verify", "verify_many"]

# Relative to the largest magnitude.
FLOAT64_BOUND = 1e-9
FLOAT32_BOUND = 1e-5
GRADIENT_BOUND = 1e-6

_EVALUATION = re.compile(r"eval(\d+)$")


@dataclass(frozen=True)
class Check:
    """One comparison: an error (relative, or a count), and the bound that it must keep."""

    name: str
    error: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the error keeps the bound."""
        return self.error <= self.bound


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Args:
        name: of the golden.
        system: id of the system.
        status: "ok", "failed", or "not built" where the library lacks the system.
        checks: every comparison made.
        notes: what a reader should know, such as why it is not built.
    """

    name: str
    system: str
    status: Literal["ok", "failed", "not built"]
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether everything that the golden holds was compared and agrees."""
        return self.status == "ok"

    @property
    def worst(self) -> float:
        """The largest relative error of outputs and gradients; nan if none was compared."""
        return max((check.error for check in self.checks if check.bound > 0), default=math.nan)

    def worst_of(self, kind: str) -> float:
        """The largest error of the checks whose name starts so; nan if there is none."""
        errors = (check.error for check in self.checks if check.name.startswith(kind))
        return max(errors, default=math.nan)

    def __str__(self) -> str:
        worst = "" if math.isnan(self.worst) else f", worst error {self.worst:.1e}"
        lines = [f"{self.name} ({self.system}): {self.status}{worst}"]
        lines += [f"  {note}" for note in self.notes]
        lines += [
            f"  {check.name}: error {check.error:.3g}, bound {check.bound:g}"
            for check in self.checks
            if not check.holds
        ]
        return "\n".join(lines)


# What the names of checks start with, and the heads of the columns that show the worst of each.
_KINDS = {
    "output": "output",
    "samples one by one": "alone",
    "gradient": "gradients",
    "spikes": "spikes",
}


def verify(path: str | Path) -> VerifyReport:
    """Compare one golden with our model.

    Args:
        path: an ``.npz`` file of format ``rheobase-model-golden/1``.

    Raises:
        ValueError: the file is not such a golden, or damaged, or its weights do not fit the model.
        FileNotFoundError: there is no such file.
    """
    golden = read_golden(path)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            net = _build(golden, compat="official")
    except NotBuilt as why:
        return VerifyReport(golden.name, golden.system, "not built", notes=[str(why)])
    checks = [
        *_compare_neurons(golden, net),
        *_compare_numbers(golden, net),
        *_compare_corrected(golden),
    ]
    status: Literal["ok", "failed"] = "ok" if all(check.holds for check in checks) else "failed"
    notes = [str(warning.message) for warning in caught]
    return VerifyReport(golden.name, golden.system, status, checks, notes)


def verify_many(paths: Iterable[str | Path]) -> list[VerifyReport]:
    """`verify` of every path, in order; of a folder, of all its ``*.npz``.

    A file that `verify` refuses counts as failed: the others are looked at all the same.
    """
    files: list[str | Path] = []
    for path in paths:
        files += sorted(Path(path).glob("*.npz")) if Path(path).is_dir() else [path]
    return [_verify_or_say_why(path) for path in files]


def _verify_or_say_why(path: str | Path) -> VerifyReport:
    try:
        return verify(path)
    except ValueError as why:
        return VerifyReport(Path(path).stem, "unknown", "failed", notes=[str(why)])


def print_reports(reports: Sequence[VerifyReport]) -> None:
    """Print a table of reports, what failed in each, and the worst error."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "golden", "checks", *_KINDS.values(), "status", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.columns[0].overflow = "fold"
    for report in reports:
        good = sum(check.holds for check in report.checks)
        worst = (_shown(report.worst_of(kind)) for kind in _KINDS)
        table.add_row(report.name, f"{good}/{len(report.checks)}", *worst, report.status)
    console = Console(highlight=False)
    console.print(table)
    for report in reports:
        if report.notes or not report.holds:
            console.print(str(report), markup=False)
    errors = [report.worst for report in reports if not math.isnan(report.worst)]
    if errors:
        console.print(f"worst error {max(errors):.1e}")


def _shown(error: float) -> str:
    return "-" if math.isnan(error) else f"{error:.1e}" if error else "0"


def _build(golden: Golden, compat: Literal["official"] | None) -> nn.Module:
    if not any(golden.system in family.official for family in families()):
        raise NotBuilt(f"the library has no system {golden.system} yet")
    try:
        official_of(golden.system, golden.keys)
    except ValueError as why:  # a part of the system that we lack, such as a detection head
        raise NotBuilt(str(why)) from why
    neuron, options = official_neuron(golden)
    net = load_official(
        golden.system,
        golden.weights(),
        golden.kwargs,
        compat=compat,
        neuron=neuron,
        neuron_kwargs=options,
    )
    return net.double().eval()


def _named(golden: Golden, net: nn.Module, name: str) -> nn.Module | None:
    """Our neuron of an official name."""
    ours = _rename(golden, name)
    return None if ours is None else dict(net.named_modules()).get(ours)


def _rename(golden: Golden, name: str) -> str | None:
    """Our name of an official parameter or neuron."""
    return official_of(golden.system, golden.keys)[1].rename(name)


def _compare_neurons(golden: Golden, net: nn.Module) -> list[Check]:
    """Whether every neuron has the constants that the golden records."""
    checks = []
    for name, record in golden.config.get("neurons", {}).items():
        neuron = _named(golden, net, name)
        if neuron is not None:
            # What a time constant was before it was learnt, no weights tell.
            kept = {key: value for key, value in record.items() if key != "init_tau"}
            wrong = sum(
                not _same(getattr(neuron, option, None), value)
                for option, value in neuron_options(kept).items()
            )
            checks.append(Check(f"constants of {name}", wrong, 0))
    return checks


def _same(ours: object, theirs: object) -> bool:
    if isinstance(theirs, Surrogate):
        return repr(ours) == repr(theirs)
    if isinstance(ours, Tensor):
        ours = float(ours.detach())
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return ours == theirs


def _compare_numbers(golden: Golden, net: nn.Module) -> list[Check]:
    x = golden.input()
    if x.is_floating_point():
        x.requires_grad_()
    with _spikes_recorded(golden, net) as spikes:
        outputs = _call(golden, net, x)
    checks = []
    for name, ours in zip(_output_names(golden), outputs, strict=True):
        theirs = golden.tensor(name)
        checks.append(Check(name, _relative_error(ours, theirs), _output_bound(theirs)))
    checks += _compare_rates(golden, net, spikes)
    if "output_single" in golden.arrays:
        theirs = golden.tensor("output_single")
        error = _relative_error(_call_singly(golden, net, x), theirs)
        checks.append(Check("samples one by one", error, _output_bound(theirs)))
    stated = _LOSS.match(golden.config.get("official", {}).get("loss", ""))
    bound = GRADIENT_BOUND
    if stated is not None:
        bound = FLOAT32_BOUND
        checks += _go_back_from_stated_loss(golden, net, stated, bound)
    elif golden.group("grad"):
        torch.autograd.backward(
            [(ours * golden.grad_vector(i, ours)).sum() for i, ours in enumerate(outputs)]
        )
    for key in golden.group("grad"):
        gradient = x.grad if key == "input" else _parameter_gradient(golden, net, key)
        error = _relative_error(gradient, golden.tensor(f"grad/{key}"))
        checks.append(Check(f"gradient of {key}", error, bound))
    return checks


# The loss of SpikeBERT's files, which were computed in float32: labels, and the weight of a layer.
_LOSS = re.compile(r"CE\(mean_T logits,\[([\d, ]+)\]\) \+ ([\d.]+)\*sum_l MSE\(rep_l,0\)/B")


def _go_back_from_stated_loss(
    golden: Golden, net: nn.Module, stated: re.Match[str], bound: float
) -> list[Check]:
    """The loss, the logits of every step, and gradients for `_parameter_gradient`.

    The official code ran in evaluation mode, where neurons of SpikingJelly 0.0.0.0.14 pass no
    gradient on: what its files hold went past them.
    """
    labels, weight = torch.tensor([int(n) for n in stated[1].split(",")]), float(stated[2])
    ids = golden.input()
    layers = [name for name, _ in net.named_modules() if re.fullmatch(r"transforms\.\d+", name)]
    with outputs_of(net, layers) as found, _without_gradient_of_spikes(net):
        steps = net(ids)
    error = sum((found[layer].square().mean() for layer in layers), torch.zeros(()))
    loss = F.cross_entropy(steps.mean(0), labels) + weight * error / len(ids)
    torch.autograd.backward([loss])
    ours = {"loss": loss, "out_B_T_cls": steps.transpose(0, 1)}
    return [
        Check(f"output: {name}", _relative_error(value, golden.tensor(f"extra/{name}")), bound)
        for name, value in ours.items()
        if f"extra/{name}" in golden.arrays
    ]


@contextmanager
def _without_gradient_of_spikes(net: nn.Module) -> Iterator[None]:
    """Within the block no gradient flows through neurons."""
    neurons = [module for module in net.modules() if isinstance(module, Neuron)]
    handles = [n.register_forward_hook(lambda _m, _in, out: out.detach()) for n in neurons]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _compare_corrected(golden: Golden) -> list[Check]:
    """Where the released code mixes the samples of a batch: that without ``compat`` ours do not."""
    if "output_single" not in golden.arrays:
        return []
    alone = golden.tensor("output_single")
    if _relative_error(golden.tensor("output"), alone) < FLOAT32_BOUND:
        return []
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        net = _build(golden, compat=None)
        error = _relative_error(_call(golden, net, golden.input())[0], alone)
    return [Check("samples one by one, corrected", error, _output_bound(alone))]


def _output_names(golden: Golden) -> list[str]:
    return [f"output/{i}" for i in range(len(golden.group("output")))] or ["output"]


def _call(golden: Golden, net: nn.Module, x: Tensor) -> list[Tensor]:
    """Event frames ``[B, T, C, H, W]`` become time first; outputs ``[B, K]`` are means over T."""
    if golden.channels_last:
        return [net(x.movedim(-1, 2)).movedim(2, -1)]
    more = [golden.tensor(name) for name in golden.further_inputs]
    y = net(x.transpose(0, 1) if x.dim() == 5 and golden.batch_first else x, *more)
    if not isinstance(y, Tensor):
        return list(y)
    if golden.config.get("official", {}).get("output_layout", "").startswith("B,T"):
        return [y.transpose(0, 1)]
    return [y.mean(0) if y.dim() > golden.arrays["output"].ndim == 2 else y]


@torch.no_grad()
def _call_singly(golden: Golden, net: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([_call(golden, net, sample.unsqueeze(0))[0] for sample in x], dim=-2)


def _output_bound(theirs: Tensor) -> float:
    """Numbers that all fit into float32 came from a float32 run, whatever they are stored in."""
    return FLOAT32_BOUND if torch.equal(theirs, theirs.float().double()) else FLOAT64_BOUND


@contextmanager
def _spikes_recorded(golden: Golden, net: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What each neuron of ``golden.rates`` puts out, call by call."""
    calls: dict[str, list[Tensor]] = {}

    def record(name: str, out: Tensor | tuple[Tensor, Tensor]) -> None:
        out = (out[0] if isinstance(out, tuple) else out).detach()
        step = _step(golden, name)
        out = out if step is None else out[step]
        calls.setdefault(name, []).append(out.flatten())  # it may be called step by step

    handles = []
    for name in golden.rates:
        neuron = _named(golden, net, name)
        if neuron is not None:
            handles.append(
                neuron.register_forward_hook(lambda _m, _in, out, name=name: record(name, out))
            )
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _step(golden: Golden, name: str) -> int | None:
    """The step of a rate that is of one evaluation: eval00, ..., step by step, layer by layer."""
    number = _EVALUATION.match(name)
    if number is None:
        return None
    layers = {_rename(golden, other) for other in golden.rates if _EVALUATION.match(other)}
    return int(number[1]) // len(layers)


def _compare_rates(
    golden: Golden, net: nn.Module, spikes: Mapping[str, list[Tensor]]
) -> list[Check]:
    """Whether every neuron fires as often as recorded.

    A rate is the share of outputs that are not zero, or the mean output: the same where outputs
    are 0 and 1. Where they are not, every file records one or the other for all its neurons.
    """
    shares = {name: _miscount(spikes.get(name), r, _active) for name, r in golden.rates.items()}
    means = {
        name: _miscount(spikes.get(name), rate / _unit(golden, net, name), _total)
        for name, rate in golden.rates.items()
    }
    errors = means if sum(means.values()) < sum(shares.values()) else shares
    checks = [Check(f"spikes of {name}", error, 0) for name, error in errors.items()]
    negative = golden.config.get("official", {}).get("negative_spike_rates", {})
    return checks + [
        Check(f"spikes below 0 of {name}", _miscount(spikes.get(name), rate, _negative), 0)
        for name, rate in negative.items()
    ]


def _unit(golden: Golden, net: nn.Module, name: str) -> float:
    """The official output over ours, of neurons that fire integers: ours are over their levels."""
    record = golden.config.get("neurons", {}).get(name, {})
    divisor = record.get("Norm", record.get("norm"))
    levels = getattr(_named(golden, net, name), "levels", None)
    return 1.0 if divisor is None or levels is None else levels / divisor


def _active(outputs: Tensor) -> float:
    return float(outputs.count_nonzero())


def _total(outputs: Tensor) -> float:
    return float(outputs.sum())


def _negative(outputs: Tensor) -> float:
    return float((outputs < 0).sum())


def _miscount(calls: list[Tensor] | None, rate: float, count: Callable[[Tensor], float]) -> float:
    """By how many spikes a neuron differs from a recorded rate; infinite if we lack it."""
    if calls is None:
        return math.inf
    outputs = torch.cat(calls)
    error = abs(count(outputs) - rate * outputs.numel())
    # Counts must be equal: the smallest spike of all neurons is 1/8, so only rounding is below
    # 0.05. Rates that fit into float32 were rounded to it.
    rounding = 1e-7 if float(np.float32(rate)) == rate else 1e-15
    return 0.0 if error < 0.05 + rounding * outputs.numel() else error


def _parameter_gradient(golden: Golden, net: nn.Module, key: str) -> Tensor | None:
    name = _rename(golden, key)
    return None if name is None else net.get_parameter(name).grad


def _relative_error(ours: Tensor | None, theirs: Tensor) -> float:
    """The largest difference over the largest magnitude; infinite if sizes differ."""
    if ours is None or ours.numel() != theirs.numel():
        return math.inf
    difference = (ours.detach().reshape(theirs.shape) - theirs).abs().max()
    error = float(difference / theirs.abs().max().clamp_min(torch.finfo(theirs.dtype).tiny))
    return math.inf if math.isnan(error) else error
