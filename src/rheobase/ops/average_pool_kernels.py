"""Average pooling's two passes over memory on the CPU: see `rheobase.ops.average_pool`.

Images lie pixel by pixel, the channels of one behind another. ``load`` and ``store`` turn what
lies in memory into numbers of the kind ``real`` and back.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import prefer_wide_vectors

__all__ = ["make_averages", "make_shares"]


def make_averages(load, store, real):
    """The kernel that writes the mean of every window, for chunks of rows of windows."""

    @njit(nogil=True, error_model="numpy")
    def averages(first_chunk, last_chunk, whole, pooled, rows, chunk, width, channels, size):
        prefer_wide_vectors()
        total = np.empty(channels, real)
        line = width * size * channels  # a row of pixels
        count = real(size * size)
        for row in range(first_chunk * chunk, min(last_chunk * chunk, rows)):
            for column in range(width):
                place = row * size * line + column * size * channels
                total[:] = real(0.0)
                for y in range(size):
                    for x in range(size):
                        start = place + y * line + x * channels
                        pixel = whole[start : start + channels]
                        for c in range(channels):
                            total[c] += load(pixel[c])
                into = pooled[(row * width + column) * channels :][:channels]
                for c in range(channels):
                    into[c] = store(total[c] / count)

    return averages


def make_shares(load, store, real):
    """The kernel that gives every pixel its share of its window's gradient."""

    @njit(nogil=True, error_model="numpy")
    def share_out(into, g, line, channels, size, count):
        """One window: ``into`` begins at its first pixel."""
        prefer_wide_vectors()
        for y in range(size):
            for x in range(size):
                pixel = into[y * line + x * channels :][:channels]
                for c in range(channels):
                    pixel[c] = store(load(g[c]) / count)

    @njit(nogil=True, error_model="numpy")
    def shares(first_chunk, last_chunk, whole, pooled, rows, chunk, width, channels, size):
        line = width * size * channels
        count = real(size * size)
        for row in range(first_chunk * chunk, min(last_chunk * chunk, rows)):
            for column in range(width):
                g = pooled[(row * width + column) * channels :][:channels]
                place = row * size * line + column * size * channels
                share_out(whole[place:], g, line, channels, size, count)

    return shares
