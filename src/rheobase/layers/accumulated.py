"""Functions that are not linear, on sequences of spikes: evaluated on what has come in so far.

A converted network codes a value as a sequence, by one of two conventions: the value is the *mean*
over the steps (constant input, bias at every step) or their *sum* (input and bias at the first step
only). Feeding single steps to softmax would give the mean of softmax, not the softmax of the mean;
these layers emit, step by step, what the output so far lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from rheobase._errors import unknown_name
from rheobase._numbers import Size
from rheobase.stateful import Stateful

__all__ = ["Accumulated", "Convention", "FirstStepBias", "check_convention"]

Convention = Literal["mean", "sum"]
"""What the value of a sequence is: the mean over its steps, or their sum."""


def check_convention(convention: str) -> None:
    """Raise ValueError, offering the known ones, unless this is a convention."""
    if convention not in get_args(Convention):
        raise ValueError(unknown_name("convention", convention, get_args(Convention)))


class Accumulated(Stateful):
    r"""A function of values, on the sequences that code them.

    With :math:`X_t = \sum_{s \le t} x_s`, the output at step t is

    .. math:: y_t = f(X_t) - f(X_{t-1}) \quad\text{(sum)}, \qquad
              y_t = t\, f(X_t / t) - (t-1)\, f(X_{t-1} / (t-1)) \quad\text{(mean)}

    and :math:`y_1 = f(x_1)`. So at every t the value of the output is exactly f of the value of the
    input. Several operands are accumulated alike: with ``torch.matmul`` this is the product of two
    spiking operands of SpikeZIP-TF, :math:`Q_t k_t + q_t K_t - q_t k_t`, and that of ECMT.

    Sources: "mean" is the expectation compensation of Huang et al. 2024 (ECMT), arXiv 2502.21193;
    "sum" the temporal difference of You et al. 2024 (SpikeZIP-TF), arXiv 2406.03470.

    Args:
        function: of one or more tensors ``[N, ...]``; a module is a submodule here. It is called
            with all steps folded into the batch, ``[T * N, ...]``.
        convention: "mean" or "sum".

    Raises:
        ValueError: ``convention`` is neither; and when called on sequences of different T, or on
            others than those streamed before.

    >>> x = torch.tensor([[[1.0, 3.0]], [[2.0, -1.0]]])  # two steps, one sample
    >>> y = Accumulated(torch.nn.Softmax(-1), "mean")(x)
    >>> torch.allclose(y.mean(0), x.mean(0).softmax(-1))
    True
    """

    def __init__(self, function: Callable[..., Tensor], convention: Convention) -> None:
        super().__init__()
        check_convention(convention)
        self.function = function
        self.convention: Convention = convention

    def forward(self, *sequences: Tensor) -> Tensor:
        """Operands ``[T, N, ...]`` each to what is emitted at every step, ``[T, ...]``."""
        return self.apply_to(self.function, *sequences)

    def apply_to(self, function: Callable[..., Tensor], *sequences: Tensor) -> Tensor:
        """`forward` with a function given here, where what it closes over changes between calls."""
        _check_sequences(self, sequences)
        before, sums = self._unpacked(sequences)
        totals = [x.cumsum(0) for x in sequences]
        if before:
            totals = [total + start for total, start in zip(totals, sums, strict=True)]
        values = self._values(function, totals, before)
        earlier = torch.zeros_like(values[:1])
        if before:
            earlier = self._values(function, [start.unsqueeze(0) for start in sums], before - 1)
        self._keep(before + len(totals[0]), totals)
        return values - torch.cat([earlier, values[:-1]])

    def _values(self, function: Callable[..., Tensor], totals: list[Tensor], before: int) -> Tensor:
        """What has to have been emitted at every step, of the sums until then."""
        steps = len(totals[0])
        if self.convention == "sum":
            return _called(function, totals)
        counts = torch.arange(before + 1, before + steps + 1, device=totals[0].device)
        values = _called(function, [total / _column(counts, total) for total in totals])
        return values * _column(counts, values)

    def _keep(self, steps: int, totals: list[Tensor]) -> None:
        """State as one tensor: the number of steps, then the sums, flat."""
        if self._streams:
            last = [total[-1].flatten() for total in totals]
            self.carry(torch.cat([last[0].new_tensor([float(steps)]), *last]))

    def _unpacked(self, sequences: tuple[Tensor, ...]) -> tuple[int, list[Tensor]]:
        state = self.carried
        if state is None:
            return 0, []
        sizes = [x[0].numel() for x in sequences]
        if state.numel() != 1 + sum(sizes):
            shapes = ", ".join(str(list(x.shape)) for x in sequences)
            raise ValueError(
                f"Accumulated streams on other shapes than {shapes}; call stream.reset() to start "
                "another sequence"
            )
        parts = torch.split(state[1:], sizes)
        return int(state[0]), [
            part.view(x.shape[1:]) for part, x in zip(parts, sequences, strict=True)
        ]

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        name = getattr(self.function, "__name__", "")
        named = not isinstance(self.function, torch.nn.Module) and name
        return f"{name}, convention={self.convention!r}" if named else repr(self.convention)


class FirstStepBias(Stateful):
    """An affine layer under the "sum" convention: its constant part enters once.

    At the first step it is the layer itself, later only its linear part. Source: SpikeZIP-TF.

    Args:
        layer: affine, of ``[N, ...]``: linear, convolution, batch norm in evaluation mode.
        steps: the first steps over which the constant part is spread in equal parts; the released
            code of SpikeZIP-TF for language takes as many as there are levels.

    Raises:
        ValueError: ``steps`` is below 1, or the input no sequence.

    >>> layer = torch.nn.Linear(2, 1)
    >>> y = FirstStepBias(layer)(torch.zeros(3, 1, 2))
    >>> torch.allclose(y.sum(0), layer.bias) and not y[1:].any()
    True
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], steps: Size = 1) -> None:
        super().__init__()
        self.layer = layer
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, ...]`` to the layer's output at every step, ``[T, N, ...]``."""
        _check_sequences(self, (x,))
        before = 0 if self.carried is None else int(self.carried)
        constant = self.layer(torch.zeros_like(x[0]))
        y: Tensor = self.layer(x.flatten(0, 1)).unflatten(0, (len(x), -1))  # type: ignore[no-untyped-call]
        now = torch.arange(before, before + len(x), device=x.device)
        surplus = 1.0 - (now < self.steps).to(y.dtype) / self.steps
        self.carry(torch.tensor(float(before + len(x))))
        return y - constant * _column(surplus, y)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"steps={self.steps}"


def _called(function: Callable[..., Tensor], operands: list[Tensor]) -> Tensor:
    """The function on every step, all folded into the batch."""
    steps = len(operands[0])
    folded = function(*(x.flatten(0, 1) for x in operands))
    return folded.unflatten(0, (steps, -1))  # type: ignore[no-untyped-call, no-any-return]


def _column(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def _check_sequences(module: Stateful, sequences: tuple[Tensor, ...]) -> None:
    name = type(module).__name__
    for x in sequences:
        if x.dim() < 2 or not x.is_floating_point():
            raise ValueError(
                f"{name} takes floating point [T, N, ...] (time first), got {x.dtype} "
                f"{list(x.shape)}"
            )
    if len({len(x) for x in sequences}) != 1:
        shapes = " and ".join(str(list(x.shape)) for x in sequences) or "nothing"
        raise ValueError(f"{name} takes one or more sequences of one length T, got {shapes}")
