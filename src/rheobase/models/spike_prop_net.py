"""Networks of single spikes, whose times carry the numbers (SpikeProp)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rheobase.models.registry import Family

__all__ = ["FAMILY", "PRESETS", "SpikePropConfig", "SpikePropNet", "SpikeTimes"]

_LEAST_SLOPE = 0.1  # of thresholds per tau: a spike time moves no faster than a membrane can graze


class SpikeTimes(nn.Module):
    r"""A layer that turns spike times ``[N, in]`` into the times of single spikes ``[N, out]``.

    :math:`u_o(t) = \sum_{i,k} w_{oik}\,\epsilon(t - t_i - d_k)` with :math:`\epsilon(s) =
    \frac{s}{\tau} e^{1 - s/\tau}` for s > 0; a neuron fires when u first reaches 1. The gradient of
    its time is :math:`-\frac{\partial u}{\partial w} / \frac{\partial u}{\partial t}`, exactly; the
    slope is bounded from below, where a membrane merely grazes the threshold. What never fires has
    the time ``horizon``, without gradient.

    Source: Bohte, Kok & La Poutré 2002, Neurocomputing 48, eqs. 1 to 14.

    Args:
        in_features: inputs.
        out_features: neurons.
        delays: synapses of each pair, with delays 1, 2, ...
        tau: of the kernel.
        horizon: the end of time.
        grid: distance of the times at which the crossing is looked for, before it is refined.

    >>> layer = SpikeTimes(1, 1, delays=1, tau=2.0, horizon=8.0)
    >>> _ = layer.weight.data.fill_(1.0)
    >>> round(layer(torch.zeros(1, 1)).item(), 2)  # epsilon is 1 at its peak, tau after the delay
    3.0
    """

    delays: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        delays: int = 16,
        tau: float = 7.0,
        horizon: float = 30.0,
        grid: float = 0.5,
    ) -> None:
        super().__init__()
        self.tau, self.horizon, self.grid = tau, horizon, grid
        self.weight = nn.Parameter(torch.empty(out_features, in_features, delays))
        self.register_buffer("delays", torch.arange(1.0, delays + 1.0))
        # About twice what is needed to fire, were all inputs to come at once.
        nn.init.uniform_(self.weight, 0.0, 4.0 / (in_features * delays) * math.e / 2.0)

    def forward(self, times: Tensor) -> Tensor:
        """The spike times; inputs at infinity never come."""
        with torch.no_grad():
            at, fires = self._crossing(times)
        u = self._membrane(at.detach(), times)
        slope = self._slope(at, times).clamp_min(_LEAST_SLOPE / self.tau)
        exact = at - (u - 1.0) / slope
        return torch.where(fires, exact, torch.full_like(at, self.horizon))

    def _crossing(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """The time of the first crossing ``[N, out]``, and whether there is one."""
        grid = torch.arange(0.0, self.horizon + self.grid, self.grid).to(times)
        since = grid.view(-1, 1, 1, 1) - times.unsqueeze(-1) - self.delays
        u = torch.einsum("gnik,oik->gno", self._kernel(since), self.weight)
        above = u >= 1.0
        fires = above.any(0)
        first = above.to(torch.int8).argmax(0)
        high = grid[first]
        low = (high - self.grid).clamp_min(0.0)
        for _ in range(30 if times.dtype == torch.float64 else 12):
            middle = (low + high) / 2
            over = self._membrane(middle, times) >= 1.0
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        return high, fires

    def _membrane(self, at: Tensor, times: Tensor) -> Tensor:
        return (self._kernel(self._since(at, times)) * self.weight).sum((2, 3))

    def _slope(self, at: Tensor, times: Tensor) -> Tensor:
        since = self._since(at, times.detach())
        late = since.clamp_min(0.0)
        rise = (1.0 - late / self.tau) / self.tau * torch.exp(1.0 - late / self.tau)
        return (torch.where(since > 0, rise, 0.0) * self.weight.detach()).sum((2, 3))

    def _since(self, at: Tensor, times: Tensor) -> Tensor:
        return at[:, :, None, None] - times[:, None, :, None] - self.delays

    def _kernel(self, since: Tensor) -> Tensor:
        late = since.clamp_min(0.0) / self.tau
        return late * torch.exp(1.0 - late)


@dataclass(frozen=True)
class SpikePropConfig:
    """One network.

    Args:
        hidden: width of each hidden layer.
        num_classes: outputs.
        inputs: pixels of an image after pooling.
        pool: images are averaged over squares of this side first.
        window: the brightest pixel fires at 0, the darkest that do at ``window``.
        delays: synapses of each pair.
        tau: of the kernel, in units of time.
        horizon: the end of time.

    Raises:
        ValueError: sizes that are not positive.
    """

    hidden: tuple[int, ...] = ()
    num_classes: int = 10
    inputs: int = 49
    pool: int = 4
    window: float = 6.0
    delays: int = 16
    tau: float = 7.0
    horizon: float = 30.0

    def __post_init__(self) -> None:
        sizes = (*self.hidden, self.num_classes, self.inputs, self.pool, self.delays)
        if min(sizes) < 1 or not min(self.tau, self.horizon, self.window) > 0:
            raise ValueError(f"sizes must be positive, got {self}")


class SpikePropNet(nn.Module):
    """Layers of single spikes: the class whose neuron fires first is the answer.

    Args:
        config: sizes.

    >>> SpikePropNet(SpikePropConfig(inputs=4, pool=2))(torch.rand(2, 1, 4, 4)).shape
    torch.Size([1, 2, 10])
    """

    def __init__(self, config: SpikePropConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [config.inputs, *config.hidden, config.num_classes]
        own = {"delays": config.delays, "tau": config.tau, "horizon": config.horizon}
        self.layers = nn.Sequential(
            *(SpikeTimes(a, b, **own) for a, b in pairwise(sizes))  # type: ignore[arg-type]
        )

    def encode(self, x: Tensor) -> Tensor:
        """Spike times ``[N, inputs]`` of images ``[N, C, H, W]``; times are taken as they are.

        Raises:
            ValueError: another number of inputs.
        """
        if x.dim() == 4:
            x = nn.functional.avg_pool2d(x, self.config.pool).flatten(1)
            x = torch.where(x > 0.01, self.config.window * (1.0 - x), math.inf)
        if x.dim() != 2 or x.shape[1] != self.config.inputs:
            raise ValueError(
                f"the network takes {self.config.inputs} spike times, got {list(x.shape)}; build "
                f"it with inputs={x.shape[-1]}"
            )
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Minus the spike times of the outputs, ``[1, N, num_classes]``."""
        times: Tensor = self.layers(self.encode(x))
        return -times.unsqueeze(0)


PRESETS: dict[str, SpikePropConfig] = {"spikeprop_mnist": SpikePropConfig()}

FAMILY = Family("spike_prop_net", network=SpikePropNet, presets=PRESETS)
