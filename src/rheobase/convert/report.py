"""What every layer of a converted network became, and what error it adds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx

from rheobase.convert.bias import BiasOverTime, pads_with
from rheobase.convert.kinds import kind_of_call
from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.pool import GatedMaxPool
from rheobase.convert.post import activations
from rheobase.convert.recipe import Convention
from rheobase.convert.spiking import Code, Spiking, unfolded
from rheobase.convert.trace import Traced
from rheobase.convert.walk import Stop, walk
from rheobase.neurons import BurstIF, MultiThreshold

__all__ = ["LayerReport", "Report", "joined", "make_report", "relative_distance"]


@dataclass(frozen=True)
class LayerReport:
    """One neuron layer, over the inputs of the report and T steps.

    Attributes:
        name: of the activation that it replaces.
        line: where that was written.
        became: the neuron's class, or the code's.
        spikes: what it was seen to send: "binary", "signed" or "levels" times the threshold;
            "sized" if it has several thresholds or sends bursts, "coded" if each step's spikes have
            a size of their own.
        threshold: smallest, mean and largest; of a code, the sizes of its spikes.
        rate: mean spikes per neuron and step.
        saturated: share of neurons that fired as often as they could.
        dead: share of channels without a spike.
        clip_error: mean activation lost above the threshold.
        rounding_error: mean distance of the clipped activation from a multiple of threshold / T; of
            a code, of what it sends from the clipped activation of its input.
        timing_error: mean distance of the output from what its mean input would give at once:
            spikes that came too early or too late (unevenness).
        error: mean distance of the mean output from the ANN's activation; like the three above
            relative to the mean activation.
    """

    name: str
    line: str
    became: str
    spikes: str
    threshold: tuple[float, float, float]
    rate: float
    saturated: float
    dead: float
    clip_error: float
    rounding_error: float
    timing_error: float
    error: float


@dataclass(frozen=True)
class Report:
    """A converted network in figures.

    Attributes:
        recipe: its recipe's name.
        paper: the recipe's source.
        T: time steps.
        samples: how many inputs the figures are over.
        layers: in order of execution.
        spikeness: for every layer with weights that runs at every step, what its input is:
            "spikes" (0 or plus or minus one size for each channel), "spikes, several" (up to so
            many a step), "spikes, sized" (of a neuron with several thresholds, or bursts),
            "spikes, weighted" (of another size at every step: a code), "spikes, averaged"
            (pooled), "spikes, added" (a sum of several), or "analog".
        output_error: mean distance of the mean output from the ANN's, relative, at every step.
        accuracy: of the mean output after 1, 2, ..., T steps, in percent, where labels were given.
        ann_accuracy: likewise of the ANN.
    """

    recipe: str
    paper: str
    T: int
    samples: int
    layers: tuple[LayerReport, ...]
    spikeness: dict[str, str]
    output_error: tuple[float, ...]
    accuracy: tuple[float, ...] | None = None
    ann_accuracy: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """A table, one line a layer."""
        head = f"{'layer':24} {'became':16} {'threshold':>9} {'rate':>6} {'satur.':>6} {'error':>6}"
        lines = [f"recipe {self.recipe} ({self.paper}), T = {self.T}, {self.samples} inputs", head]
        for one in self.layers:
            lines.append(
                f"{one.name:24} {one.became:16} {one.threshold[1]:9.4g} {one.rate:6.3f} "
                f"{one.saturated:6.3f} {one.error:6.3f}"
            )
        lines.append(f"output error after {self.T} steps: {self.output_error[-1]:.4f}")
        if self.accuracy is not None:
            shown = sorted({2**k for k in range(20) if 2**k < self.T} | {len(self.accuracy)})
            curve = ", ".join(f"{t}: {self.accuracy[t - 1]:.2f}" for t in shown)
            lines.append(f"accuracy in % after T steps: {curve} (ANN {self.ann_accuracy:.2f})")
        return "\n".join(lines)


@torch.no_grad()
def make_report(
    net: ConvertedNetwork, ann: Traced, inputs: Tensor, labels: Tensor | None = None
) -> Report:
    """Run the ANN and the spiking network on the same inputs and compare them layer by layer."""
    layers: list[LayerReport] = []
    seen: dict[str, str] = {}

    convention = net.recipe.encoding.convention

    def visit(stop: Stop) -> None:
        figures = _layer if isinstance(stop.module, Spiking) else _code
        one = figures(stop, activations(ann, stop.name, inputs), convention)
        layers.append(one)
        seen[stop.name] = one.spikes

    out = walk(net, inputs, visit, codes=True)[net.recipe.readout.delay :]
    target = ann.module(inputs)
    means = out.cumsum(0)
    if convention == "mean":
        means = means / torch.arange(1, len(out) + 1).to(out).view(-1, *[1] * (out.dim() - 1))
    apart = relative_distance(means, target)
    right = right_ann = None
    if labels is not None:
        if not bool(((labels >= 0) & (labels < target.shape[1])).all()):
            raise ValueError(
                f"labels go from {int(labels.min())} to {int(labels.max())}, but the network tells "
                f"{target.shape[1]} classes apart: 0 to {target.shape[1] - 1}"
            )
        right = tuple((100.0 * (m.argmax(1) == labels).double().mean()).item() for m in means)
        right_ann = (100.0 * (target.argmax(1) == labels).double().mean()).item()
    return Report(
        recipe=net.recipe.name,
        paper=net.recipe.paper,
        T=net.T,
        samples=len(inputs),
        layers=tuple(layers),
        spikeness=_spikeness(net.body, seen),
        output_error=tuple(apart.tolist()),
        accuracy=right,
        ann_accuracy=right_ann,
    )


def relative_distance(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the outputs after each step from the ANN's, in their mean size."""
    return (outputs - target).abs().flatten(1).mean(1) / target.abs().mean()


def _layer(stop: Stop, target: Tensor, convention: Convention) -> LayerReport:
    """Of a neuron whose spikes all count alike."""
    module, steps = stop.spiking, stop.steps
    size = module.size
    # What a layer sends at most, and the distance of two values that it can send.
    reach = size * steps if convention == "sum" else size
    level = reach / steps
    spikes = unfolded(stop.output, steps) / size
    value = joined(stop.output, steps, convention)
    current = stop.current if stop.constant else joined(stop.current, steps, convention)
    clipped = torch.minimum(target, reach)
    at_once = (current / level + 0.5).floor().clamp(0, steps) * level
    count = spikes.sum(0)
    return _figures(
        stop, target, value, count,
        became=type(module.neuron).__name__,
        spikes="sized" if isinstance(module.neuron, MultiThreshold | BurstIF) else _seen(spikes),
        sizes=size,
        rate=spikes.mean().item(),
        saturated=_saturated(stop, count),
        errors=(
            target - clipped, clipped - (clipped / level).round() * level, value - at_once
        ),
    )  # fmt: skip


def _code(stop: Stop, target: Tensor, convention: Convention) -> LayerReport:
    """Of a code, which has its whole input before it sends anything: nothing comes too early."""
    module, steps = stop.module, stop.steps
    assert isinstance(module, Code)
    sequences = unfolded(stop.current, steps), unfolded(stop.output, steps)
    value = joined(stop.output, steps, convention)
    exact = module.site.activation(joined(stop.current, steps, convention).clone())
    count = module.count(*sequences)
    coder = getattr(module, "neuron", None) or getattr(module, "code", module)
    return _figures(
        stop, target, value, count,
        became=type(coder).__name__,
        spikes="coded",
        sizes=module.sizes,
        rate=count.mean().item() / steps,
        saturated=(value >= module.reach).double().mean().item(),
        errors=(
            (target - module.reach).relu(), value - exact.clamp(max=module.reach),
            torch.zeros(()),
        ),
    )  # fmt: skip


def _figures(
    stop: Stop, target: Tensor, value: Tensor, count: Tensor, *, became: str, spikes: str,
    sizes: Tensor, rate: float, saturated: float, errors: tuple[Tensor, Tensor, Tensor],
) -> LayerReport:  # fmt: skip
    whole = target.abs().mean().clamp(min=torch.finfo(target.dtype).tiny)
    clip, rounding, timing = (((error.abs().mean()) / whole).item() for error in errors)
    axes = [0, *range(2, count.dim())]
    return LayerReport(
        name=stop.name,
        line=stop.module.site.line,
        became=became,
        spikes=spikes,
        threshold=(sizes.min().item(), sizes.mean().item(), sizes.max().item()),
        rate=rate,
        saturated=saturated,
        dead=(count.abs().sum(axes) == 0).to(value.dtype).mean().item(),
        clip_error=clip,
        rounding_error=rounding,
        timing_error=timing,
        error=((value - target).abs().mean() / whole).item(),
    )


def joined(sequence: Tensor, steps: int, convention: Convention) -> Tensor:
    """What ``[T * N, ...]`` stands for, ``[N, ...]``."""
    x = unfolded(sequence, steps)
    return x.sum(0) if convention == "sum" else x.mean(0)


def _saturated(stop: Stop, count: Tensor) -> float:
    """The share of neurons that fired as often as they could."""
    most = stop.steps * (stop.spiking.neuron.largest or 1)
    return (count >= most).double().mean().item()


def _seen(spikes: Tensor) -> str:
    """What a sequence of spikes is, by its values."""
    whole = spikes.round()
    if not bool(torch.isclose(spikes, whole, atol=1e-4).all()):
        return "analog"
    low, high = whole.min().item(), whole.max().item()
    if low >= 0.0 and high <= 1.0:
        return "binary"
    return "signed" if low >= -1.0 and high <= 1.0 else "levels"


def _spikeness(body: fx.GraphModule, seen: dict[str, str]) -> dict[str, str]:
    """Follow spikes through the graph to the layers with weights."""
    what: dict[fx.Node, str] = {}
    found: dict[str, str] = {}
    modules = dict(body.named_modules())

    def note(name: str, given: str) -> None:
        """A layer that is called again with something else takes the lesser of both."""
        found[name] = max(found.get(name, given), given, key=_RANKS.index)

    for node in body.graph.nodes:
        inputs = [what[n] for n in node.all_input_nodes if what.get(n, "free") != "free"]
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        kind = kind_of_call(module, node)
        if node.op == "placeholder":
            what[node] = "free" if node.name == "steps" else "analog"
        elif isinstance(module, Code):
            what[node] = "spikes, weighted"
        elif isinstance(module, Spiking):
            what[node] = _SENT[seen.get(str(node.target), "analog")]
        elif not inputs:
            what[node] = "free"
        elif isinstance(module, BiasOverTime):
            note(module.name, inputs[0])
            what[node] = "analog"
        elif kind == "weighted" or hasattr(module, "once"):
            note(str(node.target) if module is not None else node.name, inputs[0])
            what[node] = "analog"
        elif _only_moves(node, module, kind):
            what[node] = inputs[0] if len(set(inputs)) == 1 else "spikes, added"
            if "analog" in inputs:
                what[node] = "analog"
        elif kind in ("average", "blend") and inputs[0].startswith("spikes"):
            what[node] = "spikes, averaged"
        elif kind == "add" and all(one.startswith("spikes") for one in inputs):
            what[node] = "spikes, added"
        else:
            what[node] = "analog"
    return found


_RANKS = (
    "spikes", "spikes, several", "spikes, sized", "spikes, weighted", "spikes, averaged",
    "spikes, added", "analog",
)  # fmt: skip
"""What a layer can be given, from single spikes on."""

_SENT = {
    "binary": "spikes", "signed": "spikes", "levels": "spikes, several",
    "sized": "spikes, sized", "analog": "analog",
}  # fmt: skip
"""What neurons were seen to send -> what their readers are given."""


def _only_moves(node: fx.Node, module: Any, kind: str | None) -> bool:
    """Whether every value that comes out is one that went in, or 0."""
    if isinstance(module, GatedMaxPool):
        return True
    return kind == "max_pool" or (kind == "shape" and not pads_with(node, module))
