"""Codes of a few spikes: a value, whole, to a short train of weighted spikes.

These have no membrane that outlives a value: a code sees the whole value and needs no history, so
one step of the network takes as many virtual steps as the code is long. In the network a code is
the value it carries; `spikes` gives the train.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase._numbers import Positive, Size, numbers_checked

__all__ = ["BinaryCode", "GreedyCode", "IntegerCode", "SalientCode", "affine_integers"]

Form = Literal["ternary", "bits", "signed_digits", "twos_complement"]


@numbers_checked
class IntegerCode(nn.Module):
    r"""Integers in units of the mean magnitude, each an integer number of spikes.

    :math:`s = \mathrm{round}(x / \theta)`, :math:`\theta = \mathrm{mean}|x| / k` over the last axis
    (one token's channels), clamped to [1e-5, 1e4]. The gradient passes straight through the
    rounding. Source: SpikingBrain 2025, arXiv 2509.05276.

    Args:
        k: levels up to the mean magnitude.
        form: of the train, see `spikes`.

    Raises:
        ValueError: ``k`` is not above 0, or ``form`` unknown.

    >>> IntegerCode(k=2.0)(torch.tensor([[1.0, -0.4, 0.1, 2.5]]))
    tensor([[ 1.0000, -0.5000,  0.0000,  2.5000]])
    """

    def __init__(self, k: Positive = 3.0, form: Form = "bits") -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(unknown_name("form of an integer code", form, get_args(Form)))
        self.k = k
        self.form: Form = form

    def threshold(self, x: Tensor) -> Tensor:
        """What one spike is worth: ``[..., C]`` to ``[..., 1]``."""
        return (x.detach().abs().mean(-1, keepdim=True) / self.k).clamp(1e-5, 1e4)

    def integers(self, x: Tensor) -> Tensor:
        """The integers that code ``x``, same shape."""
        return (x / self.threshold(x)).round()

    def forward(self, x: Tensor) -> Tensor:
        """The coded value, same shape."""
        coded = self.integers(x) * self.threshold(x)
        return x + (coded - x).detach()

    def spikes(self, x: Tensor) -> Tensor:
        """The trains of ``x``, ``[K, ...]``, as spikes -1, 0 or 1.

        By the code's form: "ternary", as many spikes of sign(s) as the integer is large, in the
        first steps; "bits", the bits of its magnitude, signed, highest first; "signed_digits",
        digits of either sign of which no two neighbours are set, the fewest there can be (about a
        third instead of half of the places), highest first; "twos_complement", its bits, highest
        (the sign) first.
        """
        s = self.integers(x)
        largest = int(s.abs().max())
        if self.form == "ternary":
            steps = torch.arange(largest, device=x.device).view(-1, *[1] * x.dim())
            return (s.abs() > steps) * s.sign()
        bits = largest.bit_length()
        if self.form == "bits":
            return _bits(s.abs(), bits) * s.sign()
        if self.form == "signed_digits":
            n = s.abs()
            return (_bits(3.0 * n, bits + 2) - _bits(n, bits + 2))[:-1] * s.sign()
        return _bits(torch.where(s < 0, s + 2.0 ** (bits + 1), s), bits + 1)

    def spike_count(self, x: Tensor) -> Tensor:
        """How many spikes code each value, same shape as ``x``."""
        return self.spikes(x).abs().sum(0)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"k={self.k}, form={self.form!r}"


@numbers_checked
class GreedyCode(nn.Module):
    r"""Signed spikes worth powers of two of a unit, sent where they bring the value nearer.

    The unit is that of `IntegerCode`, :math:`\theta = \mathrm{mean}|x| / k`. From the largest power
    down, a spike :math:`\pm 2^i \theta` is sent where what is left is at least three quarters of it
    (it is then the nearest power), and the last, :math:`\pm\theta`, where what is left exceeds
    ``dead_zone`` units. With 1/2 the value is rounded as by `IntegerCode`, in as few spikes as its
    "signed_digits"; a wider dead zone and a finer unit give less error for as many spikes. The
    gradient passes straight through. This is our own code.

    Args:
        k: units up to the mean magnitude.
        dead_zone: in units, at least 1/2.
        powers: how many; what is above all of them is cut off.

    Raises:
        ValueError: an argument is out of range.

    >>> code = GreedyCode(k=2.0)
    >>> x = torch.tensor([[1.0, -0.4, 0.1, 2.5]])
    >>> code(x), code.spike_count(x)
    (tensor([[ 1.0000, -0.5000,  0.0000,  2.5000]]), tensor([[1., 1., 0., 2.]]))
    """

    def __init__(self, k: Positive = 4.0, dead_zone: float = 0.5, powers: Size = 16) -> None:
        super().__init__()
        if not (k > 0.0 and dead_zone >= 0.5 and powers >= 1):
            raise ValueError(
                f"k must be above 0, dead_zone at least 0.5 and powers at least 1, got {k}, "
                f"{dead_zone}, {powers}"
            )
        self.k = k
        self.dead_zone = dead_zone
        self.powers = powers

    def threshold(self, x: Tensor) -> Tensor:
        """The unit: ``[..., C]`` to ``[..., 1]``."""
        return IntegerCode(self.k).threshold(x)

    def spikes(self, x: Tensor) -> Tensor:
        """The trains of ``x``, ``[powers, ...]``, as -1, 0 or 1, the largest power first."""
        left = x / self.threshold(x)
        train = []
        for power in range(self.powers - 1, -1, -1):
            worth = 2.0**power
            reached = 0.75 * worth if power else self.dead_zone
            sent = (left.abs() >= reached) * left.sign()
            left = left - sent * worth
            train.append(sent)
        return torch.stack(train)

    def forward(self, x: Tensor) -> Tensor:
        """The coded value, same shape."""
        powers = 2.0 ** torch.arange(self.powers - 1, -1, -1, device=x.device, dtype=x.dtype)
        worth = powers.view(-1, *[1] * x.dim())
        coded = (self.spikes(x) * worth).sum(0) * self.threshold(x)
        return x + (coded - x).detach()

    def spike_count(self, x: Tensor) -> Tensor:
        """How many spikes code each value, same shape as ``x``."""
        return self.spikes(x).abs().sum(0)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"k={self.k}, dead_zone={self.dead_zone}, powers={self.powers}"


@numbers_checked
class BinaryCode(nn.Module):
    r"""Binary fractions of a range: spike i is worth :math:`2^{-i}` of it, i = 1 ... steps.

    A value takes the smallest range that is above its magnitude, so that outliers get a coarse code
    and the others a fine one; the sign is the spikes' sign. A spike is sent where what is left is
    above its worth. The gradient passes straight through.
    Source: LAS 2025, arXiv 2505.09659 (outlier-aware neuron).

    Args:
        steps: length of the code.
        ranges: largest magnitudes, ascending; what is above the last is cut off there.

    Raises:
        ValueError: ``steps`` is below 1, or ``ranges`` not positive and ascending.

    >>> BinaryCode(steps=4, ranges=(8.0,))(torch.tensor([3.3, -7.9, 0.2]))
    tensor([ 3.0000, -7.5000,  0.0000])
    """

    def __init__(self, steps: Size = 16, ranges: tuple[float, ...] = (10.0, 500.0)) -> None:
        super().__init__()
        if not ranges or ranges[0] <= 0.0 or list(ranges) != sorted(set(ranges)):
            raise ValueError(f"ranges must be above 0 and ascending, got {ranges}")
        self.steps = steps
        self.ranges = ranges

    def spikes(self, x: Tensor) -> Tensor:
        """The trains of ``x``, ``[steps, ...]``, each spike with what it is worth."""
        left = x.abs()
        largest = torch.full_like(left, self.ranges[-1])
        for bound in reversed(self.ranges[:-1]):
            largest = torch.where(left < bound, bound, largest)
        train = []
        for i in range(1, self.steps + 1):
            worth = largest * 2.0**-i
            sent = (left > worth) * worth
            left = left - sent
            train.append(sent * x.sign())
        return torch.stack(train)

    def forward(self, x: Tensor) -> Tensor:
        """The coded value, same shape."""
        return x + (self.spikes(x).sum(0) - x).detach()

    def spike_count(self, x: Tensor) -> Tensor:
        """How many spikes code each value, same shape as ``x``."""
        return self.spikes(x).ne(0.0).sum(0)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"steps={self.steps}, ranges={self.ranges}"


@numbers_checked
class SalientCode(nn.Module):
    r"""Integers between a token's smallest and largest channel; salient channels get finer ones.

    .. math:: n = \mathrm{clip}(\mathrm{round}(x / s) + z, 0, m), \quad s = (\max x - \min x) / m,
       \quad z = \mathrm{round}(-\min x / s)

    over the last axis (one token's channels); the value is :math:`(n - z)\,s`. A channel of k steps
    has :math:`m = 2^b k - 1`: its neuron (`rheobase.neurons.GIF`) sends the integer in spikes of at
    most :math:`2^b - 1`, what b bits hold. So k steps carry k - 1 less than they should. In the
    released code, which is evaluated without spikes, that is not lost; here one step more sends it,
    or, with ``cut``, it is lost as it would be there with spikes. What is subtracted, z s, the next
    layer adds up without spikes. The gradient passes straight through.
    Source: Xing et al. 2024 (SpikeLLM), arXiv 2407.04752.

    Args:
        steps: of each channel ``[C]``, 1 or more; those of several are the salient ones.
        bits: b.
        cut: lose what the steps can't carry.

    Raises:
        ValueError: ``bits`` or a number of steps is below 1.

    >>> code = SalientCode(torch.tensor([1, 1, 2]), bits=2)
    >>> x = torch.tensor([[0.0, 1.0, 2.9]])
    >>> code(x), code.spikes(x)[:, 0]
    (tensor([[0.0000, 0.9667, 2.9000]]), tensor([[0., 1., 3.],
            [0., 0., 3.],
            [0., 0., 1.]]))
    """

    steps: Tensor

    def __init__(self, steps: Tensor, bits: Size = 4, *, cut: bool = False) -> None:
        super().__init__()
        if bool((steps < 1).any()):
            raise ValueError(f"a channel takes one step or more, got {steps.tolist()}")
        self.register_buffer("steps", steps.clone())
        self.bits = bits
        self.cut = cut

    @property
    def most(self) -> int:
        """The largest spike."""
        return int(2**self.bits) - 1

    def integers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The integers that code ``x``, their unit and the one that stands for 0; as ``x``."""
        n, unit, zero = affine_integers(x, 2**self.bits * self.steps - 1)
        return (torch.minimum(n, self.steps * self.most) if self.cut else n), unit, zero

    def forward(self, x: Tensor) -> Tensor:
        """The coded value, same shape."""
        n, unit, zero = self.integers(x.detach())
        return x + ((n - zero) * unit - x).detach()

    def spikes(self, x: Tensor) -> Tensor:
        """The trains of ``x``, ``[K, ...]``, integers from 0 to the largest spike."""
        left = self.integers(x.detach())[0]
        train: list[Tensor] = []
        while not train or bool(left.any()):
            train.append(left.clamp(max=self.most))
            left = left - train[-1]
        return torch.stack(train)

    def spike_count(self, x: Tensor) -> Tensor:
        """How many spikes of size 1 code each value, same shape as ``x``."""
        return self.integers(x.detach())[0]

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        salient = int((self.steps > 1).sum())
        return f"{salient} of {len(self.steps)} channels salient, bits={self.bits}, cut={self.cut}"


def affine_integers(
    x: Tensor, most: Tensor | int, *, shrink: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers 0 ... ``most`` between the smallest and largest value of the last axis.

    Args:
        x: ``[..., C]``.
        most: one number, or one for each of C.
        shrink: factor of both ends; what is beyond is cut off.

    Returns:
        the integers, their unit, and the integer that stands for 0, which broadcast to ``x``.
    """
    low, high = x.amin(-1, keepdim=True) * shrink, x.amax(-1, keepdim=True) * shrink
    unit = ((high - low) / most).clamp(1e-5, 1e4)
    zero = (-low / unit).clamp(-1e4, 1e4).round()
    n = (x / unit).round() + zero
    top = torch.as_tensor(most, dtype=x.dtype, device=x.device)
    return torch.minimum(n.clamp_min(0.0), top), unit, zero


def _bits(integers: Tensor, count: int) -> Tensor:
    """The ``count`` lowest bits of integers >= 0, highest first: ``[count, ...]``."""
    order = torch.arange(count - 1, -1, -1, device=integers.device)
    places = 2.0 ** order.view(-1, *[1] * integers.dim())
    return (integers / places).floor().remainder(2.0)
