"""Parallel spiking neurons: no reset, hence no recurrence, and one matrix over time for a layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.neurons.base import Neuron, Tap
from rheobase.neurons.memoryless import fire
from rheobase.neurons.parameters import wrong_steps
from rheobase.ops.eager import is_plain, is_transformed
from rheobase.ops.once import once_differentiable
from rheobase.surrogate import Schedule, Surrogate

__all__ = ["PSN", "MaskedPSN", "SlidingPSN"]

Ran = tuple[Tensor, Tensor | None, Tensor | None]


def _memory_order(x: Tensor) -> tuple[list[int], list[int]]:
    """The axes behind time in the order in which they lie in memory, and back.

    With axes so, any dense order is a line without being copied, and kept.
    """
    axes = [0, *sorted(range(1, x.dim()), key=x.stride, reverse=True)]
    return axes, [axes.index(axis) for axis in range(x.dim())]


class PSN(Neuron):
    r"""Parallel spiking neuron: :math:`H = WX + b`, :math:`S = [H \ge 0]`, one GEMM over time.

    ``W`` is ``[T, T]``: a step may depend on later ones, so T is fixed and nothing can be streamed.
    There is no reset; the threshold is in ``bias``, so it fires at 0. Both taps are H.
    Source: Fang et al. 2023, arXiv 2304.12760.

    Args:
        T: number of time steps.
        surrogate: the gradient of the spike; default `ATan(2.0)`.

    Raises:
        ValueError: T is below 1; the input has another T.

    >>> PSN(T=4)(torch.rand(4, 2, 3)).shape
    torch.Size([4, 2, 3])
    """

    causal = False
    scanned = False

    def __init__(self, T: Size, *, surrogate: Surrogate | None = None) -> None:
        super().__init__(v_threshold=0.0, v_reset=None, surrogate=surrogate)
        self.T = T
        self.weight = nn.Parameter(torch.empty(T, T))
        self.bias = nn.Parameter(torch.full((T, 1), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))

    def matrix(self) -> Tensor:
        """The weights over time ``[T, T]``: row t makes step t of every step."""
        return self.weight

    def run(self, x: Tensor, carried: Tensor | None, tap: Tap | None) -> Ran:
        """One matrix product; never a state."""
        if x.shape[0] != self.T:
            raise ValueError(wrong_steps(type(self).__name__, self.T, x))
        axes, back = _memory_order(x)
        rows = x.permute(axes)
        columns = rows.flatten(1)
        if not torch.is_autocast_enabled(x.device.type):
            columns = columns.to(self.weight.dtype)  # halves beside float32 weights
        h = torch.addmm(self.bias, self.matrix(), columns).view(rows.shape).permute(back)
        return fire(h, self.surrogate).to(x.dtype), h if tap else None, None

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"T={self.T}"


class MaskedPSN(PSN):
    r"""PSN whose weights outside a causal band of width k fade away in training.

    :math:`H = (W \odot (\lambda M_k + 1 - \lambda)) X + b`; M is 1 where :math:`0 \le t - i < k`.
    The buffer ``masking`` is :math:`\lambda`, which is to go from 0 to 1 while training: give a
    schedule, such as ``linear_schedule(0.0, 1.0)`` (in a configuration ``masking: [0, 1]``), which
    `rheobase.surrogate.set_progress` evaluates and the training loop calls. Only at 1 does no step
    depend on later ones, and each step has weights of its own: it counts as not causal throughout.
    `SlidingPSN` streams.
    Source: Fang et al. 2023, arXiv 2304.12760.

    Args:
        T: number of time steps.
        k: order, how many steps a step sees.
        masking: lambda, in [0, 1], or its schedule.
        surrogate: the gradient of the spike; default `ATan(2.0)`.

    Raises:
        ValueError: T is below 1, k not in [1, T], masking not in [0, 1]; the input has another T.

    >>> MaskedPSN(T=3, k=2, masking=1.0).matrix().count_nonzero().item()
    5
    """

    masking: Tensor
    band: Tensor

    def __init__(
        self,
        T: Size,
        k: Size,
        *,
        masking: float | Schedule = 0.0,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__(T, surrogate=surrogate)
        if not 1 <= k <= T:
            raise ValueError(f"MaskedPSN takes an order k from 1 to T={T}, got {k}")
        self.k = k
        self.schedules: dict[str, Schedule] = {"masking": masking} if callable(masking) else {}
        self.register_buffer("masking", torch.tensor(0.0))
        self.assign("masking", masking(0.0) if callable(masking) else masking)
        band = torch.ones(T, T).tril().triu(1 - k)
        self.register_buffer("band", band, persistent=False)

    def assign(self, name: str, value: float) -> None:
        """Set lambda.

        Raises:
            ValueError: it is not in [0, 1].
        """
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} is lambda, from 0 to 1, got {value}")
        self.masking.fill_(value)

    def matrix(self) -> Tensor:
        """The weights, those outside the band times ``1 - masking``."""
        return self.weight * (self.masking * self.band + (1.0 - self.masking))

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"T={self.T}, k={self.k}, masking={self.masking.item():g}"


class SlidingPSN(Neuron):
    r"""PSN with k weights shared by all steps: :math:`h_t = \sum_{i<k} w_{k-1-i}\,x_{t-i} + b`.

    A causal filter of any number of steps; steps before the first are 0. The sum is taken tap by
    tap in one order, so that pieces of a sequence give what the whole gives. Both taps are h.
    Source: Fang et al. 2023, arXiv 2304.12760.

    Args:
        k: order, how many steps a step sees.
        exponential: start with weights 1, 1/2, 1/4, ... back in time; else uniform at random.
        surrogate: the gradient of the spike; default `ATan(2.0)`.

    Raises:
        ValueError: k is below 1.

    >>> SlidingPSN(k=2)(torch.full((3, 1), 0.7)).flatten().tolist()
    [0.0, 1.0, 1.0]
    """

    scanned = False

    def __init__(
        self, k: Size, *, exponential: bool = True, surrogate: Surrogate | None = None
    ) -> None:
        super().__init__(v_threshold=0.0, v_reset=None, surrogate=surrogate)
        self.k = k
        self.states = max(1, k - 1)
        self.weight = nn.Parameter(0.5 ** torch.arange(k - 1.0, -1.0, -1.0))
        if not exponential:
            nn.init.kaiming_uniform_(self.weight.data.unsqueeze(0), a=math.sqrt(5.0))
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def run(self, x: Tensor, carried: Tensor | None, tap: Tap | None) -> Ran:
        """A sum of shifted inputs; the state is the last ``k - 1`` inputs."""
        steps, before = x.shape[0], self.k - 1
        axes, back = _memory_order(x)
        past = x.new_zeros(before, *x.shape[1:])
        if carried is not None and before:
            past = carried.reshape(past.shape)
        seen = torch.cat([past.permute(axes), x.permute(axes)])
        if is_plain(x) and not is_transformed():
            h: Tensor = _Filter.apply(seen, self.weight, self.bias)  # type: ignore[no-untyped-call]
        else:
            h = _filtered(seen, self.weight, self.bias)
        seen, h = seen.permute(back), h.permute(back)
        last = seen[steps:] if before > 1 else seen[-1]
        return fire(h, self.surrogate), h if tap else None, last

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"k={self.k}"


def _filtered(seen: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``[k - 1 + T, ...] -> [T, ...]``, tap by tap: products and sums apart, never fused to one."""
    steps = seen.shape[0] - len(weight) + 1
    first, *taps = weight.unbind()
    h = bias + first * seen[:steps]
    for i, tap in enumerate(taps, start=1):
        h += tap * seen[i : i + steps]
    return h


# So many values of a few steps stay in cache from tap to tap.
_BLOCK = 1 << 19


class _Filter(torch.autograd.Function):
    """`_filtered` and its gradients, a few steps at a time.

    Autograd would pad, copy and add a whole sequence for each tap.
    """

    @staticmethod
    def forward(ctx: Any, seen: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(seen, weight)
        h = seen.new_empty(seen.shape[0] - len(weight) + 1, *seen.shape[1:])
        for steps in _blocks(h):
            h[steps] = _filtered(seen[steps.start : steps.stop + len(weight) - 1], weight, bias)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen, weight = ctx.saved_tensors
        by_h = by_h.contiguous()
        by_seen, by_weight = torch.zeros_like(seen), torch.zeros_like(weight)
        for steps in _blocks(by_h):
            given = by_h[steps]
            for i, tap in enumerate(weight.unbind()):
                window = slice(steps.start + i, steps.stop + i)
                by_seen[window].addcmul_(given, tap)
                by_weight[i] += given.flatten().dot(seen[window].flatten())
        return by_seen, by_weight, by_h.sum()


def _blocks(x: Tensor) -> list[slice]:
    """Steps of ``x`` that fit into cache; on other devices all at once."""
    steps = max(1, _BLOCK // x[0].numel()) if x.is_cpu else len(x)
    return [slice(at, min(at + steps, len(x))) for at in range(0, len(x), steps)]
