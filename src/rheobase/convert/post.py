"""What is mended once the neurons are in: biases, potentials, weights, layer after layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.convert.encode import PoissonSpikes
from rheobase.convert.kinds import WEIGHTED
from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.recipe import PostCalibration
from rheobase.convert.spiking import NEURONS, Spiking, folded, unfolded
from rheobase.convert.trace import Traced
from rheobase.convert.walk import Stop, walk
from rheobase.neurons import RateIF

__all__ = ["POST", "calibrate_after"]

_CURRENT_SAMPLES = 8, 128  # fewest and most; they run for T steps at once, layer by layer
_CURRENT_BYTES = 1 << 29  # of the largest layer's current: thousands of steps take fewer samples


def calibrate_after(net: ConvertedNetwork, ann: Traced, inputs: Tensor) -> None:
    """Everything that the network's recipe asks for, in order.

    Args:
        net: changed in place.
        ann: the prepared graph of the ANN, for what its activations should be.
        inputs: calibration inputs ``[N, ...]``.
    """
    for module in net.body.modules():
        if isinstance(module, PoissonSpikes):
            module.reach(inputs)
    if net.recipe.statistic.kind == "max_current":
        balance_by_current(net, inputs[: _balanced_samples(net, inputs)])
    for step in net.recipe.post:
        if step.kind not in POST:
            raise ValueError(unknown_name("post-calibration", step.kind, POST))
        POST[step.kind](net, ann, inputs[: step.samples], step)


def activations(ann: Traced, name: str, inputs: Tensor) -> Tensor:
    """What the ANN's activation gives for every input."""
    found: list[Tensor] = []
    handle = ann.module.get_submodule(name).register_forward_hook(
        lambda module, args, output: found.append(output)
    )
    try:
        with torch.no_grad():
            ann.module(inputs)
    finally:
        handle.remove()
    return found[0]


def _bias_mean(net: ConvertedNetwork, ann: Traced, inputs: Tensor, step: PostCalibration) -> None:
    """Shift every channel's current by what its mean output lacks (Li et al. 2021, light)."""

    def visit(stop: Stop) -> Tensor:
        target = activations(ann, stop.name, inputs)
        layer = stop.layer
        last = isinstance(layer, nn.Linear)  # of sequences: its channels are the last axis
        lack = -(_channel_means(stop.mean_output(), last) - _channel_means(target, last))
        if isinstance(layer, WEIGHTED):
            bias = lack if layer.bias is None else layer.bias.detach() + lack
            layer.bias = nn.Parameter(bias)
        else:
            lack = lack.view(-1, *[1] * (target.dim() - 2))
            stop.spiking.bias = lack if stop.spiking.bias is None else stop.spiking.bias + lack
        return stop.again()

    walk(net, inputs, visit)


def _channel_means(a: Tensor, last: bool) -> Tensor:
    """``[C]`` of the second axis, or the last; axis after axis, as the released code does."""
    a = a.movedim(-1, 1) if last else a
    while a.dim() > 2:
        a = a.mean(-1)
    return a.mean(0)


def _potential_mean(
    net: ConvertedNetwork, ann: Traced, inputs: Tensor, step: PostCalibration
) -> None:
    """Start every membrane with T times what its mean output lacks (Li et al. 2021, advanced)."""

    def visit(stop: Stop) -> Tensor:
        neuron = stop.spiking.neuron
        if not isinstance(neuron, RateIF):
            raise ValueError(
                f"{stop.name!r} became a {type(neuron).__name__}, whose first membrane can't be "
                "calibrated; take the neuron rule 'integrate', or leave 'potential_mean' out"
            )
        lack = activations(ann, stop.name, inputs).mean(0) - stop.mean_output().mean(0)
        lack = lack * stop.steps
        if stop.spiking.scale is not None:
            lack = lack / stop.spiking.scale
        neuron.set_start(neuron.start + lack)
        return stop.again()

    walk(net, inputs, visit)


def _weights(net: ConvertedNetwork, ann: Traced, inputs: Tensor, step: PostCalibration) -> None:
    """Fit every layer's weights so that clipped, floored rates match the ANN (Li et al. 2021).

    Draws its batches from PyTorch's global generator, as the released code does.
    """

    def visit(stop: Stop) -> Tensor | None:
        if stop.layer is None:
            return None
        with torch.enable_grad():
            _fit(stop, activations(ann, stop.name, inputs), step)
        return stop.again()

    walk(net, inputs, visit)


def _fit(stop: Stop, target: Tensor, step: PostCalibration) -> None:
    layer = stop.layer
    assert isinstance(layer, WEIGHTED)
    order = torch.channels_last if target.dim() == 4 else torch.contiguous_format
    mean_input = stop.mean_input().contiguous(memory_format=order)
    target = target.contiguous(memory_format=order)
    optimiser = torch.optim.Adam([layer.weight], lr=step.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, step.iterations, 0.0)
    for _ in range(step.iterations):
        chosen = torch.randperm(len(target))[: step.batch_size]
        current = layer(mean_input[chosen])
        optimiser.zero_grad()
        current.backward(_slope(current.detach(), target[chosen], stop.spiking.size, stop.steps))
        optimiser.step()
        schedule.step()


@torch.no_grad()
def _slope(current: Tensor, target: Tensor, size: Tensor, steps: int) -> Tensor:
    """Of the squared distance between clipped, floored rates and ``target``, summed over channels.

    As if the floor were not there. Written by hand, in few passes over memory: thousands of
    iterations a layer take half as long.
    """
    count = current / size * steps
    clipped = count.clamp(0, steps)
    within = clipped == count
    apart = clipped.floor_().mul_(size).div_(steps).sub_(target)
    return apart.mul_(within).mul_(2.0 * target.shape[1] / target.numel())


def _finetune(net: ConvertedNetwork, ann: Traced, inputs: Tensor, step: PostCalibration) -> None:
    """Train each hidden layer but the first so that its counts match the ANN (Fast-SNN).

    Forward as the spiking layer counts, backward through the ANN's layer at the mean input. What
    does not lower the squared error over all inputs is taken back.
    Source: Hu et al. 2023, IEEE TPAMI 45(12), and its code (SGD, momentum 0.9, decay 5e-4).
    """

    def visit(stop: Stop) -> Tensor | None:
        if stop.layer is None or stop.constant:
            return None
        target = activations(ann, stop.name, inputs)
        before = (stop.mean_output() - target).square().mean()
        kept = {name: value.clone() for name, value in stop.layer.state_dict().items()}
        with torch.enable_grad():
            _train_counts(stop, target, step)
        output = stop.again()
        if (stop.mean_output() - target).square().mean() < before:
            return output
        stop.layer.load_state_dict(kept)
        return stop.again()

    walk(net, inputs, visit)


def _train_counts(stop: Stop, target: Tensor, step: PostCalibration) -> None:
    layer, activation = stop.layer, stop.spiking.site.activation
    assert layer is not None and stop.layer_input is not None
    inputs = unfolded(stop.layer_input, stop.steps)
    optimiser = torch.optim.SGD(
        layer.parameters(), lr=step.learning_rate, momentum=0.9, weight_decay=5e-4
    )
    for number in range(step.iterations):
        first = number * step.batch_size
        chosen = torch.arange(first, first + step.batch_size) % len(target)
        x = inputs[:, chosen].contiguous()
        with torch.no_grad():
            spikes = stop.spiking(layer(folded(x)), steps=stop.steps)
            counted = unfolded(spikes, stop.steps).mean(0)
        rate = activation(layer(x.mean(0)))
        loss = (rate + (counted - rate).detach() - target[chosen]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _compensate(net: ConvertedNetwork, ann: Traced, inputs: Tensor, step: PostCalibration) -> None:
    """Strengthen the weights behind the first layer by the factor that serves the output best.

    Deep layers get too few spikes, since every layer rounds down. Of the factors 1, 1.01, ...,
    1.1 that with the least error of the mean output on the inputs is taken.
    Source: Hu et al. 2021 (Spiking Deep Residual Network), section on error compensation; their
    search is over the same global factor.
    """
    with torch.no_grad():
        target = ann.module(inputs)
    layers = [m for m in net.body.modules() if isinstance(m, WEIGHTED)]
    weights = [layer.weight.detach().clone() for layer in layers]
    best, least = 1.0, torch.inf
    for percent in range(11):
        _set_weights(layers, weights, 1.0 + percent / 100.0)
        with torch.no_grad():
            error = (net.mean_output(inputs) - target).square().mean().item()
        if error < least:
            best, least = 1.0 + percent / 100.0, error
    _set_weights(layers, weights, best)


def _set_weights(layers: Sequence[nn.Module], weights: list[Tensor], factor: float) -> None:
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = nn.Parameter(weight * factor)


def _balanced_samples(net: ConvertedNetwork, inputs: Tensor) -> int:
    """How many inputs run at once, so that the largest layer's current is not too large."""
    sites = [module.site for module in net.body.modules() if isinstance(module, Spiking)]
    one = net.T * max(math.prod(site.shape) for site in sites) * inputs.element_size()
    fewest, most = _CURRENT_SAMPLES
    return max(fewest, min(most, _CURRENT_BYTES // one))


def balance_by_current(net: ConvertedNetwork, inputs: Tensor) -> None:
    """Set every threshold to the largest current of its neurons, layer after layer.

    The layers before it fire already, at the thresholds found for them.
    Source: Sengupta et al. 2019 (Spike-Norm); with a scale below 1, Han et al. 2020 (RMP-SNN).
    """
    recipe = net.recipe

    def visit(stop: Stop) -> Tensor:
        size = stop.current.max() * recipe.statistic.scale
        site = stop.spiking.site
        if not size > 0.0:
            raise ValueError(
                f"{stop.name!r} ({site.line}) gets no positive current in {stop.steps} steps: "
                "give a larger T, or other calibration inputs"
            )
        module = NEURONS[recipe.neuron.kind](site, size, recipe, net.T)
        net.body.set_submodule(stop.name, module)
        once = {"constant": True} if stop.constant else {}
        fired: Tensor = module(stop.current, steps=stop.steps, **once)
        return fired

    walk(net, inputs, visit)


POST: dict[str, Callable[[ConvertedNetwork, Traced, Tensor, PostCalibration], None]] = {
    "bias_mean": _bias_mean,
    "potential_mean": _potential_mean,
    "weights": _weights,
    "finetune": _finetune,
    "compensate": _compensate,
}
"""Post-calibration by name: ``(net, ann, inputs, step) -> None``, in place."""
