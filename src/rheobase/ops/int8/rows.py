"""Rows of 8-bit weights added up where the input is not 0, on the CPU."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.events.nonzero import places
from rheobase.ops.int8.weights import BLOCKS
from rheobase.ops.numba_lang import arrays_do_not_overlap, named, prefer_wide_vectors

__all__ = ["compress", "convolve_64", "convolve_128"]

# So many rows of weights up to 127 cannot overflow an int16.
_ROWS = 256


@njit(nogil=True, error_model="numpy")
def _repeat(line, which, start, used, end, width):
    """Add the events of inputs above 1 behind the others; where they end, or -1 without room."""
    for i in range(start, used):
        for _ in range(1, line[which[i] // width]):
            if used == end:
                return -1
            which[used] = which[i]
            used += 1
    return used


@njit(nogil=True, error_model="numpy")
def compress(
    first_chunk, last_chunk, x, which, starts, counts, inputs, width, room, pixels, chunk
):  # fmt: skip
    """Where the rows of each pixel's events begin: an input of n gives n events.

    Pixels of a chunk share a ``room``; a first count of -1 says that it was too small.
    """
    for number in range(first_chunk, last_chunk):
        first, last = number * chunk, min((number + 1) * chunk, pixels)
        used, end = number * room, (number + 1) * room
        for r in range(first, last):
            line = x[r * inputs : (r + 1) * inputs]
            starts[r] = used
            if used + inputs > end:
                counts[first] = -1
                break
            total = 0
            for j in range(inputs):
                total += line[j]
            used += places(line, width, which[used:])
            if total > used - starts[r]:
                used = _repeat(line, which, starts[r], used, end, width)
                if used < 0:
                    counts[first] = -1
                    break
            counts[r] = used - starts[r]


def _in_blocks(block):
    """`convolve`, compiled for a block: its sums stay in registers over four rows."""

    @njit(nogil=True, error_model="numpy")
    @named(block)
    def add_rows(into, rows, which, place, first, last):
        """``into += sum of the rows that begin at place + which[first:last]``; int16, int8."""
        prefer_wide_vectors()
        arrays_do_not_overlap()
        for lo in range(0, into.size, block):
            part = into[lo : lo + block]
            # Unsigned places: the compiler need not ask whether they count from the end.
            base = np.uint64(place + lo)
            i = first
            while i + 4 <= last:
                a, b = base + np.uint64(which[i]), base + np.uint64(which[i + 1])
                c, d = base + np.uint64(which[i + 2]), base + np.uint64(which[i + 3])
                for k in range(block):
                    j = np.uint64(k)
                    part[k] += rows[a + j] + rows[b + j] + rows[c + j] + rows[d + j]
                i += 4
            while i < last:
                a = base + np.uint64(which[i])
                for k in range(block):
                    part[k] += rows[a + np.uint64(k)]
                i += 1

    @njit(nogil=True, error_model="numpy")
    @named(block)
    def convolve(
        first_chunk, last_chunk, which, starts, counts, rows, scale, bias, out, inputs, outputs,
        width, height, across, out_height, out_width, kernel_height, kernel_width, stride_y,
        stride_x, pad_y, pad_x, pixels, chunk,
    ):  # fmt: skip
        """A convolution for chunks of output pixels; events by input pixel, channels last.

        ``rows``: for every place of the kernel a row of ``width`` weights for each input channel.
        """
        prefer_wide_vectors()
        short, total = np.empty(width, np.int16), np.empty(width, np.int32)
        for r in range(first_chunk * chunk, min(last_chunk * chunk, pixels)):
            image, pixel = r // (out_height * out_width), r % (out_height * out_width)
            top = pixel // out_width * stride_y - pad_y
            left = pixel % out_width * stride_x - pad_x
            total[:] = 0
            short[:] = 0
            left_over = _ROWS
            for ky in range(max(0, -top), min(kernel_height, height - top)):
                for kx in range(max(0, -left), min(kernel_width, across - left)):
                    source = (image * height + top + ky) * across + left + kx
                    place = (ky * kernel_width + kx) * inputs * width
                    first, last = starts[source], starts[source] + counts[source]
                    while last - first > left_over:
                        add_rows(short, rows, which, place, first, first + left_over)
                        first += left_over
                        left_over = _ROWS
                        for j in range(width):
                            total[j] += short[j]
                            short[j] = 0
                    add_rows(short, rows, which, place, first, last)
                    left_over -= last - first
            into = out[r * outputs : (r + 1) * outputs]
            for j in range(outputs):
                into[j] = (total[j] + short[j]) * scale[j] + bias[j]

    return convolve


convolve_64, convolve_128 = map(_in_blocks, BLOCKS)
