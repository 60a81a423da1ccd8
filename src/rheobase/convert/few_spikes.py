"""Few-spike neurons: K steps whose spikes weigh differently, a code for any activation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rheobase.convert.activations import Site
from rheobase.convert.recipe import Recipe
from rheobase.convert.spiking import NEURONS, Code, Replacement, folded, unfolded
from rheobase.convert.statistics import STATISTICS, Meter
from rheobase.neurons import Neuron, spike
from rheobase.neurons.base import Tap

__all__ = ["FewSpikeNeuron", "FewSpikes", "binary_code", "fit_code"]


class FewSpikeNeuron(Neuron):
    r"""Fires in K steps by what it got in the K steps before, each spike with its own weight.

    With :math:`v` the sum of its input: :math:`z_t = [v > T_t]`, :math:`v \leftarrow v - h_t z_t`;
    :math:`\sum_t d_t z_t` approximates :math:`f(v)`. As it needs the whole sum first it is not
    causal. Source: Stoeckl & Maass 2021, Nature Machine Intelligence 3 (FS-neurons).

    Args:
        thresholds: :math:`T_t`, ``[K]``.
        resets: :math:`h_t`, ``[K]``.
        weights: :math:`d_t`, ``[K]``.

    Raises:
        ValueError: they are not three vectors of one length; the input has another number of steps.

    >>> code = torch.tensor([2.0, 1.0])
    >>> FewSpikeNeuron(code, code, code)(torch.tensor([[3.5], [0.0]])).flatten().tolist()
    [1.0, 1.0]
    """

    scanned = False
    causal = False

    def __init__(self, thresholds: Tensor, resets: Tensor, weights: Tensor) -> None:
        super().__init__(v_threshold=1.0, v_reset=None)
        if not thresholds.dim() == 1 or not thresholds.shape == resets.shape == weights.shape:
            raise ValueError(
                "thresholds, resets and weights are vectors of one length, got "
                f"{[list(v.shape) for v in (thresholds, resets, weights)]}"
            )
        self.thresholds = nn.Parameter(thresholds.clone())
        self.resets = nn.Parameter(resets.clone())
        self.weights = nn.Parameter(weights.clone())

    def run(
        self, x: Tensor, carried: Tensor | None, tap: Tap | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The sum of the input, then K steps."""
        if x.shape[0] != len(self.thresholds):
            raise ValueError(
                f"this neuron's code has {len(self.thresholds)} steps, but was given {x.shape[0]}; "
                "run the network with as many"
            )
        v = x.sum(0)
        spikes, charged, after = [], [], []
        for threshold, reset in zip(self.thresholds, self.resets, strict=True):
            charged.append(v)
            z = self.surrogate_spike(v - threshold)
            v = v - reset * z
            spikes.append(z)
            after.append(v)
        tapped = {"h": charged, "v": after}
        return torch.stack(spikes), torch.stack(tapped[tap]) if tap else None, v

    def surrogate_spike(self, z: Tensor) -> Tensor:
        """Fire above 0, with the surrogate's gradient."""
        return spike(z, self.surrogate, strict=True)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"K={len(self.thresholds)}"


class FewSpikes(Code):
    """A few-spike neuron in an activation's place: its weighted spikes, summed over T.

    Args:
        neuron: the code.
        site: what it replaces.
        silent: what no spike at all stands for; it is added at the first step.
    """

    conventions = ("sum",)

    def __init__(self, neuron: FewSpikeNeuron, site: Site, silent: float = 0.0) -> None:
        super().__init__()
        self.neuron = neuron
        self.site = site
        self.silent = silent

    def forward(self, x: Tensor, *, steps: int) -> Tensor:
        """``[T * N, ...]`` to ``[T * N, ...]``."""
        z = self.neuron(unfolded(x, steps))
        sent = z * self.neuron.weights.view(-1, *[1] * (z.dim() - 1))
        if self.silent:
            sent = torch.cat([sent[:1] + self.silent, sent[1:]])
        return folded(sent)

    @property
    def sizes(self) -> Tensor:
        """One a step."""
        return self.neuron.weights.detach().abs()

    @property
    def reach(self) -> float:  # type: ignore[override]
        """All its spikes."""
        return self.silent + self.neuron.weights.detach().relu().sum().item()

    def count(self, x: Tensor, sent: Tensor) -> Tensor:
        """What the neuron sends of ``x``."""
        spikes: Tensor = self.neuron(x)
        return spikes.sum(0)


def binary_code(largest: Tensor | float, steps: int) -> Tensor:
    """The code of a ReLU: ``largest / 2, largest / 4, ...``, thresholds, resets and weights alike.

    >>> binary_code(8.0, 3).tolist()
    [4.0, 2.0, 1.0]
    """
    return largest * 0.5 ** torch.arange(1, steps + 1, dtype=torch.get_default_dtype())


@torch.enable_grad()
def fit_code(
    function: Callable[[Tensor], Tensor],
    steps: int,
    *,
    low: float = -8.0,
    high: float = 8.0,
    iterations: int = 600,
    restarts: int = 3,
    seed: int = 0,
) -> FewSpikeNeuron:
    """The code of K steps that approximates a function on an interval.

    The first attempt starts from the binary code of a ReLU, the second from that of the whole
    interval, the third from a staircase of K thresholds without resets, further ones from random
    changes of these; Adam on the mean squared error, with the surrogate's gradient; the best of all
    iterations is kept. Places lie denser about 0, where most inputs of a layer are. No spike at all
    stands for 0.

    Source: Stoeckl & Maass 2021, whose codes were fitted likewise.
    """
    generator = torch.Generator().manual_seed(seed)
    # In units in which the interval is 16 wide, for which surrogate and learning rate are made.
    unit = (high - low) / 16.0
    x = _denser_about_zero(low / unit, high / unit, 401)
    target = function(x * unit) / unit
    best: FewSpikeNeuron | None = None
    least = torch.inf
    for number in range(restarts):
        neuron = _first_code(x, target, steps, number, generator)
        optimiser = torch.optim.Adam(neuron.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations, 1e-4)
        current = torch.cat([x.unsqueeze(0), torch.zeros(steps - 1, len(x))])
        for _ in range(iterations):
            value = (neuron(current) * neuron.weights.unsqueeze(1)).sum(0)
            loss = (value - target).square().mean()
            if loss.item() < least:
                least = loss.item()
                code = neuron.thresholds, neuron.resets, neuron.weights
                best = FewSpikeNeuron(*(unit * vector.detach() for vector in code))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    assert best is not None
    return best


def _denser_about_zero(low: float, high: float, count: int) -> Tensor:
    first, last = (math.copysign(abs(end) ** (2.0 / 3.0), end) for end in (low, high))
    even = torch.linspace(first, last, count)
    return even.sign() * even.abs().pow(1.5)


def _first_code(
    x: Tensor, target: Tensor, steps: int, number: int, generator: torch.Generator
) -> FewSpikeNeuron:
    """A ReLU's code, one that halves all of [low, high], or a staircase."""
    starts = _halving(x, target, steps, 0.0), _halving(x, target, steps, x[0].item())
    code = (*starts, _staircase(x, target, steps))[number % 3]
    changes = 1.0 + 0.1 * (number // 3) * torch.randn(3, steps, generator=generator)
    return FewSpikeNeuron(*(vector * change for vector, change in zip(code, changes, strict=True)))


def _halving(
    x: Tensor, target: Tensor, steps: int, low: float
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Halve [low, high] at every step; weigh by the slope from end to end."""
    code = binary_code(x.max().item() - low, steps)
    return low + code, code, code * (target.max().item() / (x.max().item() - low))


def _staircase(x: Tensor, target: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """K thresholds from the highest, as many places between any two, without resets; each adds what
    the mean value rises by."""
    stairs = torch.arange(1, steps + 1) * len(x) // (steps + 1)
    values = torch.stack([part.mean() for part in target.tensor_split(stairs.tolist())])
    return x[stairs].flip(0), torch.zeros(steps), values.diff().flip(0)


_RELUS = ("relu", "relu6", "clip", "threshold_relu")


class _Reach(Meter):
    """How far a code must reach: the largest activation of a ReLU, else the largest input."""

    largest: Tensor | None = None

    def pass_on(self, z: Tensor, a: Tensor) -> Tensor:
        """See one batch."""
        self.see(a if self.site.kind in _RELUS else z.abs())
        return a

    def see(self, values: Tensor) -> None:
        """Remember the largest."""
        new = values.max()
        self.largest = new if self.largest is None else torch.maximum(self.largest, new)

    def value(self) -> Tensor:
        """The largest of all."""
        assert self.largest is not None
        return self.largest

    def threshold(self) -> Tensor:
        """One for all."""
        return self.value() * self.recipe.statistic.scale


def _few_spikes(site: Site, threshold: Tensor, recipe: Recipe, steps: int) -> Replacement:
    if site.kind in _RELUS:
        reach = min(threshold.max().item(), site.bound or math.inf)
        code = binary_code(reach, steps).to(threshold)
        return FewSpikes(FewSpikeNeuron(code, code, code), site)
    neuron, silent = _fitted(site.activation, steps, _rounded_up(threshold.max().item()))
    return FewSpikes(copy.deepcopy(neuron).to(threshold), site, silent)


def _rounded_up(reach: float) -> float:
    """To half of its first digit, so that layers of nearly the same reach share a code."""
    half = 0.5 * 10.0 ** math.floor(math.log10(reach))
    return math.ceil(reach / half) * half


_codes: dict[tuple[str, int, float], tuple[FewSpikeNeuron, float]] = {}


def _fitted(activation: nn.Module, steps: int, reach: float) -> tuple[FewSpikeNeuron, float]:
    """The code of an activation on [-reach, reach], fitted when first asked for, and what it gives
    at the lower end, which no spike stands for."""
    key = repr(activation), steps, reach
    if key not in _codes:
        plain = copy.deepcopy(activation).float()
        silent = plain(torch.tensor(-reach)).item()
        code = fit_code(lambda x: plain(x.clone()) - silent, steps, low=-reach, high=reach)
        _codes[key] = code, silent
    return _codes[key]


STATISTICS["reach"] = _Reach
NEURONS["few_spikes"] = _few_spikes
