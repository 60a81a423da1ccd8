"""A layer of spike-response neurons: the membrane as a weighted sum of filtered spikes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.neurons import spike
from rheobase.stateful import Stateful
from rheobase.surrogate import SuperSpike, Surrogate

__all__ = ["Response", "ResponseState", "SpikeResponse", "exponential"]


def exponential(tau: float) -> float:
    """The decay factor of a step, for a time constant in steps.

    >>> round(exponential(10.0), 4)
    0.9048
    """
    return math.exp(-1.0 / tau)


class ResponseState(NamedTuple):
    """What a layer remembers: ``[N, in]`` for each filter of its inputs, and ``[N, out]``."""

    filtered: tuple[Tensor, ...]
    recurrent: tuple[Tensor, ...]
    refractory: Tensor
    adaptation: Tensor
    spikes: Tensor


class Response(NamedTuple):
    """One step: the membrane, how far it is above threshold, spikes, and the state after."""

    u: Tensor
    z: Tensor
    spikes: Tensor
    state: ResponseState

    @property
    def trace(self) -> Tensor:
        """The filtered input ``[N, in]``: the derivative of the membrane by the weights."""
        return self.state.filtered[-1]


class SpikeResponse(Stateful):
    r"""Linear layer and neuron in one: filters come before the weights.

    :math:`u_t = W P_t + V P^s_t + b - R_t`, where P is the input through a cascade of exponential
    filters, :math:`P_t = d\,P_{t-1} + g\,x_t`, :math:`P^s` likewise of the layer's own spikes of
    the steps before, and :math:`R_t = r R_{t-1} + \kappa s_{t-1}` what its spikes subtract. It
    fires where :math:`z_t = u_t - \theta - \beta a_t \ge 0`, with :math:`a_t = \rho a_{t-1} +
    s_{t-1}`. One filter and :math:`r = d` is a LIF with soft reset, two are a current-based one.

    Since the filters do not depend on the weights, :math:`\partial u_t/\partial W` is just P:
    what online learning rules build on. No gradient flows through R, as in their papers.

    Source: Gerstner & Kistler 2002, *Spiking Neuron Models*, ch. 4.

    Args:
        in_features: inputs.
        out_features: neurons.
        decays: d of each filter, the first nearest to the input.
        gains: g of each; default 1.
        lagged: the second filter sees the first one of the step before (DECOLLE's code; without
            gains, exactly the difference of two exponentials).
        recurrent: whether it sees its own spikes, through V without self-connections.
        refractory: r and :math:`\kappa`.
        threshold: :math:`\theta`.
        adaptation: :math:`\rho` and :math:`\beta`.
        bias: whether there is a b.
        surrogate: the gradient of a spike by z; default `SuperSpike`.

    Raises:
        ValueError: a decay outside [0, 1], no filter, or other numbers of gains.

    >>> layer = SpikeResponse(1, 1, decays=[0.5], refractory=(0.5, 0.5), bias=False)
    >>> _ = layer.weight.data.fill_(0.75)
    >>> layer(torch.ones(4, 1, 1)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        *,
        decays: Sequence[float] = (0.9,),
        gains: Sequence[float] | None = None,
        lagged: bool = False,
        recurrent: bool = False,
        refractory: tuple[float, float] = (0.9, 1.0),
        threshold: float = 1.0,
        adaptation: tuple[float, float] = (0.0, 0.0),
        bias: bool = True,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.decays, self.gains = tuple(decays), tuple(gains or [1.0] * len(decays))
        if not self.decays or len(self.gains) != len(self.decays):
            raise ValueError(f"give filters, each with a gain: decays={decays}, gains={gains}")
        for decay in (*self.decays, refractory[0], adaptation[0]):
            if not 0.0 <= decay <= 1.0:
                raise ValueError(f"a decay is a factor in [0, 1], got {decay}")
        self.in_features, self.out_features = in_features, out_features
        self.lagged, self.threshold = lagged, threshold
        self.refractory, self.adaptation = refractory, adaptation
        self.surrogate = surrogate if surrogate is not None else SuperSpike()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        own = nn.Parameter(torch.empty(out_features, out_features)) if recurrent else None
        self.recurrent = own
        for matrix in (self.weight, self.recurrent):
            if matrix is not None:
                bound = 1.0 / math.sqrt(matrix.shape[1])
                nn.init.uniform_(matrix, -bound, bound)

    def start(self, x: Tensor) -> ResponseState:
        """The state before the first step, for inputs ``[N, in]`` of a step."""
        quiet_in, quiet = torch.zeros_like(x), x.new_zeros(x.shape[0], self.out_features)
        filters = len(self.decays)
        own = (quiet,) * filters if self.recurrent is not None else ()
        return ResponseState((quiet_in,) * filters, own, quiet, quiet, quiet)

    def step(self, x: Tensor, state: ResponseState) -> Response:
        """One step of inputs ``[N, in]``."""
        filtered = self.filter(x, state.filtered)
        u = nn.functional.linear(filtered[-1], self.weight, self.bias)
        recurrent = state.recurrent
        if self.recurrent is not None:
            recurrent = self.filter(state.spikes, state.recurrent)
            u = u + nn.functional.linear(recurrent[-1], _without_diagonal(self.recurrent))
        rate, amount = self.refractory
        refractory = rate * state.refractory + amount * state.spikes.detach()
        kept, raised = self.adaptation
        adaptation = kept * state.adaptation + state.spikes if raised else state.adaptation
        u = u - refractory
        z = u - self.threshold - raised * adaptation
        s = spike(z, self.surrogate)
        return Response(u, z, s, ResponseState(filtered, recurrent, refractory, adaptation, s))

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, out]`` of a sequence ``[T, N, in]``.

        Raises:
            ValueError: another shape.
        """
        return self.respond(x)[1]

    def respond(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Membranes and spikes ``[T, N, out]`` of a sequence ``[T, N, in]``.

        Raises:
            ValueError: another shape.
        """
        if x.dim() != 3 or x.shape[2] != self.in_features or 0 in x.shape:
            raise ValueError(
                f"SpikeResponse takes a sequence [T, N, {self.in_features}], got {list(x.shape)}"
            )
        state = self.start(x[0]) if self.carried is None else self._unpacked(self.carried, x)
        membranes, spikes = [], []
        for x_t in x.unbind(0):
            response = self.step(x_t, state)
            state = response.state
            membranes.append(response.u)
            spikes.append(response.spikes)
        if self._streams:
            self.carry(_packed(state))
        return torch.stack(membranes), torch.stack(spikes)

    def filter(self, x: Tensor, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the filters hold after ``x``, by what they held before."""
        after: list[Tensor] = []
        for decay, gain, old in zip(self.decays, self.gains, before, strict=True):
            new = decay * old + gain * x
            after.append(new)
            x = old if self.lagged else new
        return tuple(after)

    def _unpacked(self, carried: Tensor, x: Tensor) -> ResponseState:
        like = self.start(x[0])
        sizes = [part.shape[1] for part in _parts(like)]
        if carried.shape != (x.shape[1], sum(sizes)):
            raise ValueError(
                f"SpikeResponse streams on a batch of {carried.shape[0]} but was given "
                f"{list(x.shape)}; call stream.reset() to start another sequence"
            )
        parts = list(torch.split(carried, sizes, dim=1))
        ins, owns = len(like.filtered), len(like.recurrent)
        return ResponseState(
            tuple(parts[:ins]), tuple(parts[ins : ins + owns]), *parts[ins + owns :]
        )

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return (
            f"{self.in_features}, {self.out_features}, decays={self.decays}, "
            f"threshold={self.threshold}, recurrent={self.recurrent is not None}"
        )


def _parts(state: ResponseState) -> list[Tensor]:
    own = [state.refractory, state.adaptation, state.spikes]
    return [*state.filtered, *state.recurrent, *own]


def _packed(state: ResponseState) -> Tensor:
    return torch.cat(_parts(state), dim=1)


def _without_diagonal(matrix: Tensor) -> Tensor:
    return matrix - torch.diag(matrix.diagonal())
