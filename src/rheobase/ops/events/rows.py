"""Rows of a matrix added up where the input is not 0, on the CPU.

A weight lies with one row for each input. What an input sends is its row; a silent input costs
nothing. Sums of 64 or 128 columns stay in registers; wider ones are loaded and stored once for four
rows, which are read to their ends.
"""

# numba compiles these; their types are the compiler's, not mypy's.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"
from __future__ import annotations

import numpy as np
from numba import njit

from rheobase.ops.events.nonzero import nonzero
from rheobase.ops.numba_lang import arrays_do_not_overlap, copy, named, prefer_wide_vectors, window

__all__ = ["add_rows", "compress", "convolve", "gather", "line", "scatter"]


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def add_rows(into, matrix, values, which, count):
    """``into += sum of values[i] * matrix[which[i]]`` over the first ``count`` numbers i.

    ``matrix`` lies row by row in one line of memory, rows as long as ``into``.
    """
    add_parts(into, matrix, values, which, count, into.size)


def _in_registers(width):
    """`add_parts` for so many columns."""

    @njit(nogil=True, error_model="numpy", fastmath={"contract"})
    @named(width)
    def add(into, matrix, values, which, count, step):
        prefer_wide_vectors()
        arrays_do_not_overlap()
        for i in range(count):
            # Unsigned places: the compiler need not ask whether they count from the end.
            start, weight = np.uint64(which[i] * step), values[i]
            for k in range(width):
                into[k] += weight * matrix[start + np.uint64(k)]

    return add


_add_64, _add_128 = map(_in_registers, (64, 128))


def _from_registers(width):
    """`_spread` for so many columns."""

    @njit(nogil=True, error_model="numpy", fastmath={"contract"})
    @named(width)
    def spread(into, row, values, which):
        prefer_wide_vectors()
        arrays_do_not_overlap()
        for i in range(which.size):
            start, weight = np.uint64(which[i] * width), values[i]
            for k in range(width):
                into[start + np.uint64(k)] += weight * row[k]

    return spread


_spread_64, _spread_128 = map(_from_registers, (64, 128))


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _spread(into, row, values, which):
    """Add ``values[i] * row`` to row ``which[i]`` of ``into``."""
    prefer_wide_vectors()
    width = row.size
    if width == 64:
        _spread_64(into, row, values, which)
        return
    if width == 128:
        _spread_128(into, row, values, which)
        return
    for i in range(which.size):
        place, weight = window(into, which[i] * width, width), values[i]
        for k in range(width):
            place[k] += weight * row[k]


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def add_parts(into, matrix, values, which, count, step):
    """`add_rows` of the beginnings of rows that are ``step`` apart."""
    prefer_wide_vectors()
    width = into.size
    if width == 64:
        _add_64(into, matrix, values, which, count, step)
        return
    if width == 128:
        _add_128(into, matrix, values, which, count, step)
        return
    whole = count - count % 4
    for i in range(0, whole, 4):
        a, b = which[i] * step, which[i + 1] * step
        c, d = which[i + 2] * step, which[i + 3] * step
        row_a, row_b = matrix[a : a + width], matrix[b : b + width]
        row_c, row_d = matrix[c : c + width], matrix[d : d + width]
        w_a, w_b, w_c, w_d = values[i], values[i + 1], values[i + 2], values[i + 3]
        for j in range(width):
            into[j] += w_a * row_a[j] + w_b * row_b[j] + w_c * row_c[j] + w_d * row_d[j]
    for i in range(whole, count):
        row, weight = matrix[which[i] * step : which[i] * step + width], values[i]
        for j in range(width):
            into[j] += weight * row[j]


@njit(nogil=True, error_model="numpy")
def compress(first_chunk, last_chunk, x, which, values, starts, counts, inputs, room, rows, chunk):
    """Places and values of what is not 0 in each row of ``x``: where they start, and how many.

    Rows of a chunk share a ``room`` of both arrays; a first count of -1 says that it was too small.
    """
    for number in range(first_chunk, last_chunk):
        first, last = number * chunk, min((number + 1) * chunk, rows)
        used, end = number * room, (number + 1) * room
        for r in range(first, last):
            if used + inputs > end:  # even a row without zeros must fit
                counts[first] = -1
                break
            line = x[r * inputs : (r + 1) * inputs]
            starts[r] = used
            counts[r] = nonzero(line, which[used:], values[used:])
            used += counts[r]


@njit(nogil=True, error_model="numpy")
def gather(
    first_chunk, last_chunk, which, values, starts, counts, matrix, bias, out, outputs, rows, chunk
):
    """``out[r] = bias + sum of values * rows of matrix``, for chunks of rows r."""
    for r in range(first_chunk * chunk, min(last_chunk * chunk, rows)):
        into = out[r * outputs : (r + 1) * outputs]
        into[:] = bias
        add_rows(into, matrix, values[starts[r] :], which[starts[r] :], counts[r])


@njit(nogil=True, error_model="numpy")
def line(first_chunk, last_chunk, x, which, values, matrix, bias, out, inputs, outputs, chunk):
    """`gather` of one row ``x`` that is not compressed, for chunks of columns.

    ``which`` and ``values`` have room for a row in each chunk.
    """
    for number in range(first_chunk, last_chunk):
        first = number * chunk
        last = min(first + chunk, outputs)
        mine = slice(number * inputs, (number + 1) * inputs)
        count = nonzero(x, which[mine], values[mine])
        into = out[first:last]
        into[:] = bias[first:last]
        add_parts(into, matrix[first:], values[mine], which[mine], count, outputs)


@njit(nogil=True, error_model="numpy")
def scatter(
    first_chunk, last_chunk, which, values, starts, counts, g, grad, inputs, outputs, rows,
    parts, columns,
):  # fmt: skip
    """``grad[k] += values * g[r]`` for every event k of row r; a chunk is a part and some columns.

    ``grad`` has a sum for each of so many ``parts`` of the rows, in it the chunks of columns one
    behind another, since threads that write into neighbouring lines of memory wait for each other.
    """
    pieces = (outputs + columns - 1) // columns
    for number in range(first_chunk, last_chunk):
        part, first = number // pieces, number % pieces * columns
        size = min(columns, outputs - first)
        sums = window(grad, (part * outputs + first) * inputs, size * inputs)
        for r in range(rows * part // parts, rows * (part + 1) // parts):
            row, count = window(g, r * outputs + first, size), counts[r]
            some, places = window(values, starts[r], count), window(which, starts[r], count)
            _spread(sums, row, some, places)


def _pixel_in_registers(outputs):
    """An output pixel of so many channels: its sum over the places of the kernel in the image."""

    @njit(nogil=True, error_model="numpy", fastmath={"contract"})
    @named(outputs)
    def add(
        into, which, values, starts, counts, matrices, top, bottom, left, right, origin, width,
        kernel_width, inputs,
    ):  # fmt: skip
        prefer_wide_vectors()
        arrays_do_not_overlap()
        for ky in range(top, bottom):
            for kx in range(left, right):
                source, place = origin + ky * width + kx, (ky * kernel_width + kx) * inputs
                for i in range(starts[source], starts[source] + counts[source]):
                    start, weight = np.uint64((place + which[i]) * outputs), values[i]
                    for k in range(outputs):
                        into[k] += weight * matrices[start + np.uint64(k)]

    return add


_pixel_64, _pixel_128 = map(_pixel_in_registers, (64, 128))


@njit(nogil=True, error_model="numpy")
def _pixel(
    into, which, values, starts, counts, matrices, top, bottom, left, right, origin, width,
    kernel_width, inputs,
):  # fmt: skip
    """The same for any number of channels."""
    outputs = into.size
    for ky in range(top, bottom):
        for kx in range(left, right):
            source, place = origin + ky * width + kx, (ky * kernel_width + kx) * inputs
            start, count = starts[source], counts[source]
            some, places = window(values, start, count), window(which, start, count)
            add_parts(into, matrices[place * outputs :], some, places, count, outputs)


@njit(nogil=True, error_model="numpy")
def convolve(
    first_chunk, last_chunk, which, values, starts, counts, matrices, bias, out, inputs, outputs,
    height, width, out_height, out_width, kernel_height, kernel_width, stride_y, stride_x, pad_y,
    pad_x, rows, chunk,
):  # fmt: skip
    """A convolution for chunks of output pixels; events by input pixel, channels last.

    ``matrices``: for every place of the kernel a matrix with a row for each input channel.
    """
    for r in range(first_chunk * chunk, min(last_chunk * chunk, rows)):
        into = window(out, r * outputs, outputs)
        copy(into, bias)
        image, pixel = r // (out_height * out_width), r % (out_height * out_width)
        y = pixel // out_width * stride_y - pad_y
        x = pixel % out_width * stride_x - pad_x
        top, bottom = max(0, -y), min(kernel_height, height - y)
        left, right = max(0, -x), min(kernel_width, width - x)
        origin = (image * height + y) * width + x
        add = (which, values, starts, counts, matrices, top, bottom, left, right, origin, width,
               kernel_width, inputs)  # fmt: skip
        if outputs == 64:
            _pixel_64(into, *add)
        elif outputs == 128:
            _pixel_128(into, *add)
        else:
            _pixel(into, *add)
