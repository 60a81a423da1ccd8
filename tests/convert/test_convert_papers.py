"""Methods without released code, held to their papers' equations on real digits.

What a recipe makes is compared, in float64, with the network as the paper writes it down: weights
normalised by hand, neurons stepped in a loop.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.convert import ConvertedNetwork, Spiking, convert
from rheobase.convert.post import _slope
from rheobase.data import get_dataset
from rheobase.layers import ClampQuant

T = 12


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Ten handwritten digits ``[10, 1, 14, 14]``, pixels in [0, 1]."""
    data = get_dataset("mnist_sample", train=True)
    return F.avg_pool2d(torch.stack([data[i][0] for i in range(10)]).double(), 2)


def network(*, bias: bool = False, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, bias=bias), activation(),
        nn.Conv2d(6, 8, 3, bias=bias), activation(), nn.Flatten(),
        nn.Linear(128, 10, bias=bias),
    )  # fmt: skip
    if bias:
        net[0].bias.data += 0.5  # no channel is silent
        net[2].bias.data += 0.5
    return net.double().eval()


def fire(currents: Tensor, threshold: Tensor | float, *, hard: bool = False,
         start: Tensor | float = 0.0) -> Tensor:  # fmt: skip
    """Spikes ``[T, ...]`` of integrate-and-fire neurons, 0 or 1."""
    v = torch.zeros_like(currents[0]) + start
    spikes = []
    for current in currents:
        v = v + current
        fired = (v >= threshold).double()
        v = v * (1.0 - fired) if hard else v - threshold * fired
        spikes.append(fired)
    return torch.stack(spikes)


def at_every_step(layer: nn.Module, sequence: Tensor) -> Tensor:
    return torch.stack([layer(x) for x in sequence])


def input_spikes(snn: ConvertedNetwork, x: Tensor) -> tuple[Tensor, Tensor]:
    """The Poisson spikes that a run drew, ``[T, N, ...]``, and its output."""
    drawn: list[Tensor] = []
    snn.at_once = snn.T
    handle = snn.body.encoder.register_forward_hook(lambda m, a, out: drawn.append(out))
    torch.manual_seed(1)
    out = snn(x)
    handle.remove()
    return drawn[0].unflatten(0, (snn.T, -1)), out


def thresholds(snn: ConvertedNetwork) -> list[Tensor]:
    return [module.size.detach() for module in snn.body.modules() if isinstance(module, Spiking)]


@torch.no_grad()
def test_cao_poisson_pixels_hard_reset_and_pools_that_spike(digits):
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(216, 10, bias=False),
    ).double().eval()  # fmt: skip
    snn = convert(ann, digits, recipe="cao2015", T=T)
    pixels, out = input_spikes(snn, digits)
    assert set(pixels.unique().tolist()) == {0.0, 1.0}
    many, _ = input_spikes(convert(ann, digits[:1], recipe="cao2015", T=2000), digits[:1])
    assert (many.mean(0) - digits[:1]).abs().max() < 0.06, "a pixel is its rate"
    # A pool is neurons, each with four weights of a quarter; the output is counted in weights.
    maps = fire(at_every_step(ann[0], pixels), 1.0, hard=True)
    pooled = fire(at_every_step(nn.AvgPool2d(2), maps), 1.0, hard=True)
    torch.testing.assert_close(out, at_every_step(ann[4], pooled.flatten(2)))


@torch.no_grad()
@pytest.mark.parametrize(
    ("recipe", "hard", "scale"), [("spike_norm", True, 1.0), ("rmp", False, 0.8)]
)
def test_thresholds_are_the_largest_currents_that_spikes_bring(digits, recipe, hard, scale):
    ann = network()
    torch.manual_seed(1)
    snn = convert(ann, digits, recipe=recipe, T=T)
    # The calibration's own draw of the input: the first that the generator gave.
    torch.manual_seed(1)
    pixels = (digits >= torch.rand(T, *digits.shape, dtype=torch.float64)).double()
    found = []
    sequence = pixels
    for layer in (ann[0], ann[2]):
        currents = at_every_step(layer, sequence)
        found.append(scale * currents.max())
        sequence = fire(currents, found[-1], hard=hard) * found[-1]
    torch.testing.assert_close(torch.stack(thresholds(snn)), torch.stack(found))
    # A run of the network, whose spikes have the size of their threshold.
    pixels, out = input_spikes(snn, digits)
    first = fire(at_every_step(ann[0], pixels), found[0], hard=hard) * found[0]
    second = fire(at_every_step(ann[2], first), found[1], hard=hard) * found[1]
    torch.testing.assert_close(out, at_every_step(ann[5], second.flatten(2)))


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["rmp", "hybrid"])
def test_poisson_spikes_carry_inputs_beyond_one(digits, recipe):
    images = 3.5 * digits - 1.0  # as with mean and deviation taken out
    ann = network(bias=True)
    torch.manual_seed(0)
    snn = convert(ann, images[:4], recipe=recipe, T=1500)
    pixels, out = input_spikes(snn, images[:4])
    size = images[:4].abs().max()
    assert set((pixels / size).unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (pixels.mean(0) - images[:4]).abs().max() < 0.3  # five deviations of 1500 draws
    expected = ann(images[:4])
    assert (out.mean(0) - expected).norm() < 0.05 * expected.norm()


@torch.no_grad()
def test_spiking_yolo_normalises_channels_and_sends_negative_spikes(digits):
    ann = network(bias=True, activation=lambda: nn.LeakyReLU(0.5))
    ann[2].bias.sub_(0.3)  # some negative values, but no channel without a positive one
    snn = convert(ann, digits, recipe="spiking_yolo", T=T)
    # W_ij lambda_i(before) / lambda_j and b_j / lambda_j; spikes +1 at 1 and -1 at -1 / slope.
    a1 = ann[1](ann[0](digits))
    a2 = ann[3](ann[2](a1))
    first, second = (a.amax((0, 2, 3)) for a in (a1, a2))
    w1, b1 = ann[0].weight / first.view(-1, 1, 1, 1), ann[0].bias / first
    w2 = ann[2].weight * first.view(1, -1, 1, 1) / second.view(-1, 1, 1, 1)
    b2 = ann[2].bias / second

    def imbalanced(currents: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            v = v + current
            up, down = (v >= 1.0).double(), (v <= -1.0 / 0.5).double()
            v = v - up + down / 0.5
            spikes.append(up - down)
        return torch.stack(spikes)

    images = 0.9 * digits  # on the digits themselves the largest current is the threshold: a tie
    x = images.expand(T, *images.shape)
    maps = imbalanced(torch.stack([F.conv2d(image, w1, b1, stride=2) for image in x]))
    maps = imbalanced(torch.stack([F.conv2d(image, w2, b2) for image in maps]))
    assert bool((maps < 0.0).any()), "no negative spike was sent"
    expected = at_every_step(ann[5], (maps * second.view(-1, 1, 1)).flatten(2))
    torch.testing.assert_close(snn(images), expected)


@torch.no_grad()
def test_clamp_and_quantise_rounds_down_as_neurons_from_zero_do(digits):
    ann = network(bias=True, activation=lambda: ClampQuant(T, 0.5))
    snn = convert(ann, digits, recipe="clamp_quant", T=T)
    z = ann[0](digits)
    a = (z / 0.5).clamp(0.0, 1.0).mul(T).floor() / T * 0.5
    torch.testing.assert_close(ann[1](z), a)
    first = fire(z.expand(T, *z.shape), 0.5)
    torch.testing.assert_close(0.5 * first.mean(0), a)  # T steps of a constant current: equal
    second = fire(at_every_step(ann[2], 0.5 * first), 0.5)
    torch.testing.assert_close(snn(digits), at_every_step(ann[5], (0.5 * second).flatten(2)))


def test_clamp_and_quantise_lets_the_gradient_through_the_rounding():
    z = torch.tensor([-0.5, 0.3, 0.9, 1.5], requires_grad=True)
    ClampQuant(4)(z).sum().backward()
    assert z.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="at least 1 as levels, got 0"):
        ClampQuant(0)


class Block(nn.Module):
    """A stem, and a residual block with the identity."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3, 2)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (self.conv2(self.conv1(x).relu()) + x).relu()
        return self.head(x.flatten(1))


@torch.no_grad()
def test_spiking_resnet_scales_its_shortcut_and_strengthens_its_weights(digits):
    ann = Block().double().eval()
    a0 = ann.stem(digits).relu()
    a1 = ann.conv1(a0).relu()
    a2 = (ann.conv2(a1) + a0).relu()
    scales = [torch.quantile(a, 0.999) for a in (a0, a1, a2)]

    def run(factor: float) -> Tensor:
        before, inner, after = scales
        # All thresholds are 1: weights are normalised, and the identity becomes before / after.
        s0 = fire((ann.stem(digits) / before).expand(T, 10, 4, 6, 6), 1.0)
        w1, w2 = (factor * layer.weight for layer in (ann.conv1, ann.conv2))
        c1 = [F.conv2d(s, w1 * before / inner, ann.conv1.bias / inner, padding=1) for s in s0]
        s1 = fire(torch.stack(c1), 1.0)
        c2 = [F.conv2d(s, w2 * inner / after, ann.conv2.bias / after, padding=1) for s in s1]
        s2 = fire(torch.stack(c2) + s0 * before / after, 1.0)
        weight = factor * ann.head.weight * after
        return torch.stack([F.linear(s.flatten(1), weight, ann.head.bias) for s in s2])

    plain = convert(ann, digits, recipe="spiking_resnet", T=T, post=())
    torch.testing.assert_close(plain(digits), run(1.0))
    # One factor for all weights behind the stem, the best of those tried for the output.
    tried = [run(1.0 + percent / 100.0) for percent in range(11)]
    errors = torch.stack([(out.mean(0) - ann(digits)).square().mean() for out in tried])
    snn = convert(ann, digits, recipe="spiking_resnet", T=T)
    torch.testing.assert_close(snn(digits), tried[int(errors.argmin())])
    assert errors.argmin() > 0, "nothing was compensated"


@torch.no_grad()
def test_parameter_calibration_fits_thresholds_biases_and_potentials(digits):
    ann = network(bias=True)
    snn = convert(ann, digits, recipe="parameter_calibration", T=T)
    targets = [ann[:2](digits), ann[:4](digits)]
    sizes = [best_of_channels(a) for a in targets]
    for found, expected in zip(thresholds(snn), sizes, strict=True):
        torch.testing.assert_close(found.flatten(), expected)
    biases = [ann[0].bias.clone(), ann[2].bias.clone()]
    starts: list[Tensor | float] = [0.0, 0.0]

    def layer(number: int, sequence: Tensor) -> Tensor:
        """What leaves a layer, ``[T, N, ...]``."""
        conv, size = ann[2 * number], sizes[number].view(-1, 1, 1)
        currents = [F.conv2d(x, conv.weight, biases[number], conv.stride) for x in sequence]
        drive = size / (2 * T)
        return fire(torch.stack(currents) + drive, size, start=starts[number]) * size

    x = digits.expand(T, *digits.shape)
    sequence = x
    for number in (0, 1):  # every channel's mean output is brought to the ANN's
        lack = targets[number] - layer(number, sequence).mean(0)
        biases[number] = biases[number] + lack.mean((0, 2, 3))
        sequence = layer(number, sequence)
    sequence = x
    for number in (0, 1):  # then every neuron's, by what it starts with
        lack = targets[number] - layer(number, sequence).mean(0)
        starts[number] = T * lack.mean(0)
        sequence = layer(number, sequence)
    torch.testing.assert_close(snn(digits), at_every_step(ann[5], sequence.flatten(2)))


@pytest.mark.parametrize("shape", [(), (3, 1, 1)])
def test_weights_are_fitted_down_the_slope_of_clipped_floored_rates(shape):
    """Li et al. 2021: the squared distance of rates, summed over channels; the floor is let be."""
    torch.manual_seed(0)
    current = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.rand(5, 3, 4, 4, dtype=torch.float64)
    size = 0.5 + torch.rand(shape, dtype=torch.float64)
    count = (current / size * T).clamp(0, T)
    rate = (count + (count.floor() - count).detach()) * size / T
    (rate - target).square().sum(1).mean().backward()
    torch.testing.assert_close(_slope(current.detach(), target, size, T), current.grad)


def best_of_channels(a: Tensor) -> Tensor:
    """Of 95 parts of each channel's maximum, that whose floored rates are nearest."""
    found = []
    for values in a.transpose(0, 1).flatten(1):
        candidates = values.max() * (1.0 - 0.01 * torch.arange(95, dtype=torch.float64))
        rates = [(values / c * T).floor().clamp(0, T) * c / T for c in candidates]
        errors = torch.stack([(rate - values).square().sum() for rate in rates])
        found.append(candidates[errors.argmin()])
    return torch.stack(found)


def test_rueckauers_softmax_fires_with_the_probability_of_its_membranes(digits):
    ann = nn.Sequential(*network(bias=True), nn.Softmax(1)).eval()
    snn = convert(ann, digits, recipe="rueckauer", T=400)
    bare = convert(ann[:-1], digits, recipe="rueckauer", T=400)
    torch.manual_seed(0)
    with torch.no_grad():
        spikes, membrane = snn(digits), bare(digits).cumsum(0)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    expected = membrane.softmax(2)
    count, mean = spikes.sum(0), expected.sum(0)
    deviation = (expected * (1.0 - expected)).sum(0).sqrt()
    assert ((count - mean).abs() <= 5.0 * deviation + 1e-9).all()
