"""What an ordinary network of the same shape would cost: each layer once, densely."""

from __future__ import annotations

from rheobase.measure.energy import CONVENTIONS
from rheobase.measure.operations import OperationReport

__all__ = ["activation_bits", "quantised_mac_pj", "twin_energies"]

# 45 nm (Horowitz 2014): 8-bit integers.
_MULTIPLY_8, _ADD_8 = 0.2, 0.03


def activation_bits(steps: int) -> int:
    """Bits of the quantised activation that says as much as a spike count over T steps.

    Zero to T spikes are T + 1 values: ceil(log2(T + 1)) bits.

    Source: Yan et al. 2024, arXiv 2409.08290.

    >>> [activation_bits(steps) for steps in (1, 3, 4, 15)]
    [1, 2, 3, 4]
    """
    return steps.bit_length()


def quantised_mac_pj(weight_bits: int, activation_bits: int) -> float:
    """Picojoules of a MAC of integers: a multiplication's share of 8 by 8 bits, and an addition.

    That a multiplication costs by the product of its bits is an assumption.

    >>> round(quantised_mac_pj(8, 8), 12), round(quantised_mac_pj(8, 3), 12)
    (0.23, 0.105)
    """
    return _MULTIPLY_8 * weight_bits * activation_bits / 64 + _ADD_8


def twin_energies(report: OperationReport) -> dict[str, float]:
    """Picojoules of one image in an ordinary network of the same layers, by what it computes in.

    T spikes say no more than a quantised activation of `activation_bits`, so such a network can be
    as accurate (Yan et al. 2024); whether yours is, only training it shows. No memory but in the
    last, which moves 4 bytes for each weight used and each bias, as "spikingjelly" does.
    """
    bits = activation_bits(report.steps)
    quantised = {f"8-bit weights, {bits}-bit activations": quantised_mac_pj(8, bits) * report.macs}
    with_memory = CONVENTIONS["spikingjelly"]
    biases = sum(layer.bias_adds / layer.steps for layer in report.layers)
    moved = 4 * with_memory.pj_per_byte * (report.macs + biases)
    return {
        "32-bit floating point": CONVENTIONS["ann"].mac_pj * report.macs,
        "8-bit integers": quantised_mac_pj(8, 8) * report.macs,
        **(quantised if report.neurons else {}),
        "32-bit floating point, memory included": with_memory.mac_pj * report.macs + moved,
    }
