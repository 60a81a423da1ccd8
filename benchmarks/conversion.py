"""ResNet-20 for CIFAR-10 converted, and run, against SpikingJelly's conversion of the same weights.

Weights are drawn and batch norms take the statistics of the images, so that every layer fires: what
is timed does not depend on what the network was trained for. Both conversions balance thresholds by
the maximum over the calibration images and fold batch norm, and are the same function, which is
checked in float64, where rounding flips no spike. SpikingJelly gets the zero-padded shortcuts as
convolutions with ones and zeros, since it converts no `F.pad`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import rheobase
from benchmarks.harness import Record, claim, interleave, spread
from benchmarks.transformers import wake
from rheobase.convert import convert
from rheobase.models.ann_resnet import cifar_resnet20

__all__ = ["SYSTEMS", "conversion", "drawn_resnet20", "inference", "without_padding"]

STEPS = 32
BATCH = 16
CALIBRATION = 1000
GOAL = "30 s"
OPTIMISED, EIGHT_BITS = "rheobase, optimised", "rheobase, 8-bit weights"
STEPWISE, FOLDED = "SpikingJelly, step by step", "SpikingJelly, all steps at once"
SYSTEMS = ("rheobase", STEPWISE, FOLDED)

Forward = Callable[[Tensor], Tensor]


def conversion(rounds: int) -> list[Record]:
    """With 1,000 calibration images: the default recipe, and balancing by the maximum."""
    ann, images = drawn_resnet20(), _images(CALIBRATION)
    contenders: dict[str, Callable[[], object]] = {
        "rheobase, calibration_light": partial(
            convert, ann, images, recipe="calibration_light", T=STEPS
        ),
        "rheobase, threshold_max": partial(convert, ann, images, recipe="threshold_max", T=STEPS),
        "SpikingJelly, Max": partial(spikingjelly_network, ann, images),
    }
    times = interleave(contenders, rounds, warm_up=1)
    times[GOAL] = [30e3] * rounds
    return [
        Record(
            f"ResNet-20 converted, {CALIBRATION} calibration images",
            "ms",
            {name: spread(values) for name, values in times.items() if name != GOAL},
            [
                claim(times, "rheobase, calibration_light", GOAL, at_most=1.0),
                claim(times, "SpikingJelly, Max", "rheobase, threshold_max"),
            ],
        )
    ]


def inference(rounds: int) -> list[Record]:
    """The converted network at T = 32, from images to the sum of the outputs."""
    ann, images = drawn_resnet20(), _images(BATCH)
    calibration = _images(64)
    with torch.inference_mode():
        networks = _networks(ann, calibration)
        _assert_same_function(ann, calibration, images[:2])
        networks |= _optimised(ann, calibration, images)
        outputs = {name: run(images) for name, run in networks.items()}
        times = interleave({n: partial(f, images) for n, f in networks.items()}, rounds)
    theirs = (STEPWISE, FOLDED)
    return [
        Record(
            f"converted ResNet-20, T {STEPS}, batch {BATCH}",
            "ms",
            {name: spread(values) for name, values in times.items()},
            [
                *(claim(times, name, OPTIMISED, at_least=3.0) for name in theirs),
                *(claim(times, name, EIGHT_BITS, at_least=3.0) for name in theirs),
            ],
            [
                f"outputs are SpikingJelly's but for {_apart(outputs[name], outputs[STEPWISE])} of "
                f"their size: {name}"
                for name in (FOLDED, "rheobase", OPTIMISED, EIGHT_BITS)
            ],
        )
    ]


def _optimised(ann: nn.Module, calibration: Tensor, images: Tensor) -> dict[str, Forward]:
    """Ours made over for such images, with float32 weights and with 8-bit ones where faster."""
    net = convert(ann, calibration, recipe="threshold_max", T=STEPS)
    eight = rheobase.optimize(net, images, dtypes=(torch.float32, torch.int8))
    made = {OPTIMISED: rheobase.optimize(net, images), EIGHT_BITS: eight}
    return {name: partial(_summed, network) for name, network in made.items()}


def _apart(ours: Tensor, theirs: Tensor) -> str:
    return f"{float((ours - theirs).norm() / theirs.norm()):.1%}"


def drawn_resnet20() -> nn.Module:
    """The architecture with drawn weights, in evaluation mode."""
    torch.manual_seed(0)
    net = cifar_resnet20()
    wake(net, lambda: net(_images(64)), least_gain=0.5)
    return net.eval()


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def _networks(ann: nn.Module, calibration: Tensor) -> dict[str, Forward]:
    """Every contender: from images to the sum of the outputs of all steps."""
    ours = convert(ann, calibration, recipe="threshold_max", T=STEPS)
    return {
        "rheobase": partial(_summed, ours),
        STEPWISE: partial(_stepwise, spikingjelly_network(ann, calibration)),
        FOLDED: _folded(spikingjelly_network(ann, calibration)),
    }


def spikingjelly_network(ann: nn.Module, calibration: Tensor) -> nn.Module:
    """Converted with thresholds at the maximum: over one batch, since theirs averages batches."""
    from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe

    recipe = RateCodingRecipe(dataloader=[calibration], mode="Max")
    net: nn.Module = Converter(recipe).convert(without_padding(ann))
    return net.eval()


def without_padding(ann: nn.Module) -> nn.Module:
    """The same function with shortcuts that SpikingJelly converts: it refuses `F.pad`."""
    ann = copy.deepcopy(ann)
    for block in [m for m in ann.modules() if hasattr(m, "shortcut")]:
        if isinstance(block.shortcut, nn.Identity):
            continue
        inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
        first = (outputs - inputs) // 2
        weight = block.conv1.weight.new_zeros(outputs, inputs, 1, 1)
        weight[first : first + inputs, :, 0, 0] = torch.eye(inputs)
        block.shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        block.shortcut.weight = nn.Parameter(weight)
    return ann


def _summed(net: nn.Module, images: Tensor) -> Tensor:
    out: Tensor = net(images).sum(0)
    return out


def _stepwise(net: nn.Module, images: Tensor) -> Tensor:
    """As SpikingJelly's example runs it."""
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    out: Tensor = net(images)
    for _ in range(STEPS - 1):
        out = out + net(images)
    return out


def _folded(net: nn.Module) -> Forward:
    from spikingjelly.activation_based import functional

    functional.set_step_mode(net, "m")

    def run(images: Tensor) -> Tensor:
        functional.reset_net(net)
        out: Tensor = net(images.expand(STEPS, *images.shape)).sum(0)
        return out

    return run


def _assert_same_function(ann: nn.Module, calibration: Tensor, images: Tensor) -> None:
    """Equal sums, in float64."""
    torch.set_default_dtype(torch.float64)  # SpikingJelly's scales take it
    try:
        exact = _networks(copy.deepcopy(ann).double(), calibration.double())
        ours, *theirs = (exact[name](images.double()) for name in SYSTEMS)
    finally:
        torch.set_default_dtype(torch.float32)
    for other in theirs:
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)
