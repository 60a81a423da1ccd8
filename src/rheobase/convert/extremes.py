"""What a conversion is warned of or refused for: silent and saturated layers, outputs far off."""

from __future__ import annotations

import torch
from torch import Tensor

from rheobase._errors import warn_caller
from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.post import activations
from rheobase.convert.recipe import Convention
from rheobase.convert.report import joined, relative_distance
from rheobase.convert.spiking import unfolded
from rheobase.convert.trace import Traced
from rheobase.convert.walk import Stop, walk
from rheobase.neurons import MultiThreshold

__all__ = ["warn_of_extremes"]

# Of the outputs' size; ResNet-20 for CIFAR-10 gets 10 to 34 % right there, 27 and more nearer.
_FAR = 0.9
_MOST_SATURATED = 0.5  # of a layer's activation, reached by no recipe on what it was calibrated for
_MOST_CUT_OFF = 0.05  # of a layer's magnitude, as where local balancing is broken off
_LONGEST_RUN = 1e6  # steps; the longest of the papers are below 10,000


@torch.no_grad()
def warn_of_extremes(net: ConvertedNetwork, ann: Traced, inputs: Tensor) -> None:
    """Warn of layers in which no neuron fires, or most fire at every step, naming them.

    And of outputs that tell nothing of the ANN's.

    Raises:
        ValueError: a layer would take more steps for its first spike than anyone runs.
    """
    too_high: list[tuple[str, float]] = []

    def visit(stop: Stop) -> None:
        count = (unfolded(stop.output, stop.steps) / stop.spiking.size).sum(0)
        where = f"{stop.name!r} ({stop.module.site.line})"
        if not bool(count.any()):
            steps = _steps_for_a_spike(net, stop, ann, inputs)
            if steps > _LONGEST_RUN:
                too_high.append((where, steps))
                return
            _warn_of_silence(where, stop.steps, len(inputs), steps)
        saturated = _beyond_rates(stop, net.recipe.encoding.convention)
        if saturated > _MOST_SATURATED:
            warn_caller(
                f"{where} is saturated: {100 * saturated:.0f} % of its activation on the "
                "calibration inputs is more than a spike at every step is worth; take a higher "
                "threshold or percentile",
            )
        cut_off = _cut_off(stop, net.recipe.encoding.convention)
        if cut_off > _MOST_CUT_OFF:
            warn_caller(
                f"{where}: {100 * cut_off:.0f} % of what it is to send lies beyond its largest "
                "threshold on the calibration inputs, and is cut off; take a higher percentile or "
                "scale of the statistic, or a recipe whose codes follow each value (integer_code)",
            )

    out = walk(net, inputs, visit)[net.recipe.readout.delay :]
    if too_high:
        where, steps = max(too_high, key=lambda one: one[1])
        raise ValueError(
            f"recipe {net.recipe.name!r} does not suit this network: on the calibration inputs "
            f"{where} would take {steps:.3g} steps for its first spike, for its threshold is as "
            "many times its largest activation there; take a recipe that measures activations, as "
            "'diehl_data' or 'calibration_light'"
        )
    output = out.mean(0) if net.recipe.encoding.convention == "mean" else out.sum(0)
    distance = relative_distance(output.unsqueeze(0), ann.module(inputs)).item()
    if distance > _FAR:
        warn_caller(
            f"after {net.T} steps the outputs for {len(inputs)} calibration inputs are "
            f"{100 * distance:.0f} % of their size away from the network's own, and zeros would be "
            "100 %: take a larger T, or another recipe; report() says what each layer loses",
        )


def _warn_of_silence(where: str, steps: int, samples: int, to_a_spike: float) -> None:
    high = ""
    if to_a_spike > steps:
        high = (
            f" (its threshold is {to_a_spike:.3g} times its largest activation there, and one "
            "spike takes as many steps)"
        )
    warn_caller(
        f"{where} fires no spike in {steps} steps on {samples} calibration inputs{high}: take a "
        "larger T, a lower threshold or neurons that start at half of it",
    )


def _steps_for_a_spike(net: ConvertedNetwork, stop: Stop, ann: Traced, inputs: Tensor) -> float:
    """What a layer would take for its first, if all before it lost nothing; 0 if that tells
    nothing: where it never is active, or values are sums over T."""
    if net.recipe.encoding.convention == "sum":
        return 0.0
    most = (activations(ann, stop.name, inputs) / stop.spiking.size).max().item()
    return 1 / most if most > 0 else 0.0


def _beyond_rates(stop: Stop, convention: Convention) -> float:
    """The share of a layer's activation that is beyond what it sends if it fires as often as it
    can."""
    current = stop.current if stop.constant else joined(stop.current, stop.steps, convention)
    value = stop.module.site.activation(current.clone()).relu()
    most = stop.spiking.size * (stop.spiking.neuron.largest or 1)
    most = most * (stop.steps if convention == "sum" else 1)
    share: float = ((value - most).relu().sum() / value.sum()).nan_to_num().item()
    return share


def _cut_off(stop: Stop, convention: Convention) -> float:
    """The share of a value's magnitude that is beyond a multi-threshold neuron's reach, its
    largest spike at every step: 99 % of small values may hold less than one of large ones."""
    neuron, steps = stop.spiking.neuron, stop.steps
    if not isinstance(neuron, MultiThreshold):
        return 0.0
    value = stop.current if stop.constant else joined(stop.current, steps, convention)
    largest = neuron.base ** (neuron.levels - 1) * (steps if convention == "sum" else 1)
    beyond = (value - float(neuron.v_threshold) * largest).relu()
    beyond = beyond + (-value - neuron.v_negative * largest).relu()
    return (beyond.sum() / value.abs().sum()).nan_to_num().item()
