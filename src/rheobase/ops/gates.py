"""GLIF's coefficients from what it learns, and the gradient on the way back, for the CPU.

They are some fifty operations on a few hundred numbers, which take PyTorch longer than the neuron
that runs on them. ``values`` are the sigmoids of what is learnt, ``[7 + T, count]``: alpha, beta,
gamma, tau, leak, what the reset subtracts, the threshold, and the conductance of each step.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import math

from numba import njit

__all__ = ["coefficients", "gradients"]


@njit(nogil=True, error_model="numpy")
def coefficients(
    first_chunk, last_chunk, alpha, beta, gamma, tau, leak, subtracted, theta, conductance,
    values, found, least
):  # fmt: skip
    """``values``, and decay, bias, threshold, kept, amount and each step's gain in ``found``.

    ``least`` is the smallest of ``values``, or not a number where one of them is not.
    """
    count = alpha.size
    begin = 0
    least[0] = 1
    for learnt in (alpha, beta, gamma, tau, leak, subtracted, theta, conductance):
        for m in range(learnt.size):
            value = 1 / (1 + math.exp(-learnt[m]))
            values[begin + m] = value
            if value < least[0] or value != value:
                least[0] = value
        begin += learnt.size
    of = values.reshape(-1, count)
    into = found.reshape(-1, count)
    for c in range(count):
        into[0, c] = 1 - of[0, c] * (1 - of[3, c])
        into[1, c] = (of[0, c] - 1) * of[4, c]
        into[2, c] = of[6, c]
        into[3, c] = 1 - of[2, c]
        into[4, c] = (1 - of[2, c]) * of[5, c] / into[0, c]
        for t in range(len(of) - 7):
            into[5 + t, c] = 1 - of[1, c] * (1 - of[7 + t, c])


@njit(nogil=True, error_model="numpy")
def gradients(
    first_chunk, last_chunk, values, found, g_decay, g_bias, g_threshold, g_kept, g_amount, g_gain,
    by_learnt
):  # fmt: skip
    """The gradient of what is learnt, laid out as ``values``, from that of the coefficients."""
    count = g_decay.size
    of, by = values.reshape(-1, count), by_learnt.reshape(-1, count)
    for c in range(count):
        decay, amount = found[c], found[4 * count + c]
        # The amount is divided by the decay.
        by_amount = g_amount[c] / decay
        by_decay = g_decay[c] - by_amount * amount
        by[0, c] = g_bias[c] * of[4, c] - by_decay * (1 - of[3, c])
        by[1, c] = 0
        by[2, c] = -g_kept[c] - by_amount * of[5, c]
        by[3, c] = by_decay * of[0, c]
        by[4, c] = g_bias[c] * (of[0, c] - 1)
        by[5, c] = by_amount * (1 - of[2, c])
        by[6, c] = g_threshold[c]
        for t in range(len(of) - 7):
            g = g_gain[t * count + c]
            by[1, c] -= g * (1 - of[7 + t, c])
            by[7 + t, c] = g * of[1, c]
        for i in range(len(of)):
            by[i, c] *= of[i, c] * (1 - of[i, c])
