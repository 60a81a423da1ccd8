"""Convolutions of spikes on the CPU: codes of four spikes each, and rows of tables added up."""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.lookup.sizes import CODES, GROUP, VECTOR
from rheobase.ops.lookup.sums import PIXELS, adder
from rheobase.ops.numba_lang import arrays_do_not_overlap, named, prefer_wide_vectors

__all__ = [
    "convolve_float32_1",
    "convolve_float32_2",
    "convolve_float64_1",
    "convolve_float64_2",
    "encode",
    "fill_tables",
]

# Values that are taken to bytes at once: they stay in the nearest cache.
_PIECE = 1024
# The same of tables, in bytes.
_CACHE = 1 << 17


@njit(nogil=True, error_model="numpy")
def _to_bytes(line, spikes):
    """Whether every value is 0 or 1, and which."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    others = 0
    for i in range(line.size):
        spike = line[i] == 1
        others += 0 if spike or line[i] == 0 else 1
        spikes[i] = 1 if spike else 0
    return others == 0


@njit(nogil=True, error_model="numpy")
def _to_codes(spikes, codes, scale):
    """The four bytes of a word, 0 or 1, as one number: bit k from byte k."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    for i in range(codes.size):
        codes[i] = ((spikes[i] * np.uint32(0x01020408)) >> np.uint32(24)) * np.uint32(scale)


@njit(nogil=True, error_model="numpy")
def encode(
    first_chunk, last_chunk, x, codes, binary, channels, height, width, pad_y, pad_x, scale,
    pixels, chunk,
):  # fmt: skip
    """Codes of images ``[N, H, W, C]``, C a multiple of 4, into the middle of padded ones.

    ``binary`` says of each chunk whether all of it were spikes, 0 or 1.
    """
    groups = channels // GROUP
    spikes = np.empty(_PIECE, np.uint8)
    for number in range(first_chunk, last_chunk):
        binary[number] = 1
        pixel, last = number * chunk, min((number + 1) * chunk, pixels)
        while pixel < last:
            row, col = pixel // width, pixel % width
            run = min(width - col, last - pixel)
            image, row = row // height, row % height
            top = image * (height + 2 * pad_y) + row + pad_y
            place = (top * (width + 2 * pad_x) + col + pad_x) * groups
            for start in range(0, run * channels, _PIECE):
                size = min(_PIECE, run * channels - start)
                first = pixel * channels + start
                if not _to_bytes(x[first : first + size], spikes):
                    binary[number] = 0
                first = place + start // 4
                _to_codes(spikes[:size].view(np.uint32), codes[first : first + size // 4], scale)
            pixel += run


@njit(nogil=True, error_model="numpy")
def _fill_table(weights, table, start, step, block):
    """The sums of every set of four rows of weights."""
    prefer_wide_vectors()
    arrays_do_not_overlap()
    table[:block] = 0
    for k in range(4):
        row = weights[start + k * step : start + k * step + block]
        for code in range(1 << k):  # the sets with row k, from those without any later one
            had = code * block
            into = had + (block << k)
            for j in range(block):
                table[into + j] = table[had + j] + row[j]


@njit(nogil=True, error_model="numpy")
def fill_tables(first_chunk, last_chunk, weights, tables, blocks, block, count, chunk):
    """Tables ``[blocks, count, CODES, block]`` of weights ``[count, 4, blocks, block]``."""
    for i in range(first_chunk * chunk, min(last_chunk * chunk, count)):
        for number in range(blocks):
            table = (number * count + i) * CODES * block
            start, step = (4 * i * blocks + number) * block, blocks * block
            _fill_table(weights, tables[table : table + CODES * block], start, step, block)


def _convolution(dtype, vectors):
    """`convolve` for numbers of a kind, and rows of tables of so many vectors."""
    add = adder(dtype, vectors)
    row = VECTOR * vectors

    @njit(nogil=True, error_model="numpy")
    @named(dtype, vectors)
    def convolve(
        first_chunk, last_chunk, codes, tables, bias, out, blocks, height, width, padded_height,
        padded_width, groups, kernel_height, kernel_width, stride_y, stride_x, pixels, chunk,
    ):  # fmt: skip
        """A convolution for chunks of output pixels, whole `PIXELS` of which have room in ``out``.

        Args:
            codes: ``[N, padded height, padded width, groups]``.
            tables: ``[blocks, kernel height, kernel width * groups, CODES, a block]``.
            bias: ``[blocks, a block]``.
            out: ``[pixels and more, blocks * a block]``.
            others: sizes; height and width are the output's.
        """
        prefer_wide_vectors()
        line, count = padded_width * groups, kernel_width * groups
        table = CODES * row
        # Either all of a block's tables are in the cache, or pieces of a line of the kernel.
        lines, piece = kernel_height, count
        if lines * piece * table > _CACHE:
            lines, piece = 1, max(1, min(count, _CACHE // table))
        places = np.empty(PIXELS, np.int64)
        code_at, table_at, bias_at, out_at, places_at = (
            codes.ctypes.data, tables.ctypes.data, bias.ctypes.data, out.ctypes.data,
            places.ctypes.data,
        )  # fmt: skip
        across, down = stride_x * groups, stride_y * line
        first, last = first_chunk * chunk, min(last_chunk * chunk, pixels)
        for block in range(blocks):
            for top in range(0, kernel_height, lines):
                for left in range(0, count, piece):
                    where = table_at + ((block * kernel_height + top) * count + left) * table
                    starts = top == 0 and left == 0
                    y, x = first // width, first % width
                    corner = code_at + top * line + left
                    at = corner + (y // height * padded_height + y % height * stride_y) * line
                    at, to_end, to_bottom = at + x * across, width - x, height - y % height
                    for pixel in range(first, last, PIXELS):
                        for p in range(PIXELS):
                            places[p] = at
                            at += across
                            to_end -= 1
                            if to_end == 0:
                                to_end = width
                                at += down - width * across
                                to_bottom -= 1
                                if to_bottom == 0:
                                    to_bottom = height
                                    at += padded_height * line - height * down
                        for p in range(max(0, pixels - pixel), PIXELS):
                            places[p] = corner
                        into = out_at + (pixel * blocks + block) * row
                        start = bias_at + block * row if starts else into
                        add(
                            into, blocks * row, start, 0 if starts else blocks * row, where,
                            places_at, line, lines, min(piece, count - left),
                        )  # fmt: skip

    return convolve


convolve_float32_1, convolve_float32_2 = (_convolution("float32", n) for n in (1, 2))
convolve_float64_1, convolve_float64_2 = (_convolution("float64", n) for n in (1, 2))
