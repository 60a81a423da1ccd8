"""Products of matrices in the caches, against the sums in float64."""

import numpy as np
import pytest
from numba import njit

from rheobase.ops.products.sizes import COLUMNS, ROWS, padded
from rheobase.ops.products.tiles import multiply


@njit
def _multiply(c, a, b, c_row, a_row, a_step, rows, depth, add):  # type: ignore[no-untyped-def]
    columns = b.shape[1]
    multiply(
        c.reshape(-1), c_row, a.reshape(-1), a_row, a_step, b.reshape(-1), columns,
        rows, columns, depth, add,
    )  # fmt: skip


# Columns for every combination of wide and narrow tiles.
@pytest.mark.parametrize("columns", [16, 48, 64, 112, 144])
@pytest.mark.parametrize(("rows", "depth"), [(4, 1), (12, 33), (40, 128)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_tile(
    columns: int, rows: int, depth: int, transposed: bool, add: bool, dtype: str
) -> None:
    draw = np.random.default_rng(0)
    a = draw.standard_normal((rows, depth)).astype(dtype)
    b = draw.standard_normal((depth, columns)).astype(dtype)
    # What lies behind the product's columns and rows is not its own.
    c = draw.standard_normal((rows + 1, columns + 3)).astype(dtype)
    before = c.copy()
    stored = np.ascontiguousarray(a.T) if transposed else a
    steps = (1, rows) if transposed else (depth, 1)
    _multiply(c, stored, b, columns + 3, *steps, rows, depth, add)
    exact = a.astype(np.float64) @ b + (before[:rows, :columns] if add else 0)
    assert np.abs(c[:rows, :columns] - exact).max() < 10 * np.finfo(dtype).eps * depth
    assert np.array_equal(c[rows], before[rows])
    assert np.array_equal(c[:, columns:], before[:, columns:])


def _drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = (rows, 100), (100, 80)
    a, b = (draw.standard_normal(shape).astype(np.float32) for shape in shapes)
    return a, b


def test_a_row_does_not_depend_on_the_others() -> None:
    a, b = _drawn(20)
    whole, part = (np.zeros((20, 80), np.float32) for _ in range(2))
    _multiply(whole, a, b, 80, 100, 1, 20, 100, False)
    _multiply(part, a[8:], b, 80, 100, 1, 4, 100, False)
    assert np.array_equal(whole[8:12], part[:4])


def test_a_sum_does_not_depend_on_how_it_is_cut() -> None:
    a, b = _drawn(4)
    whole, parts = (np.zeros((4, 80), np.float32) for _ in range(2))
    _multiply(whole, a, b, 80, 100, 1, 4, 100, False)
    _multiply(parts, a, b, 80, 100, 1, 4, 37, False)
    _multiply(parts, np.ascontiguousarray(a[:, 37:]), b[37:], 80, 63, 1, 4, 63, True)
    assert np.array_equal(whole, parts)


def test_padding() -> None:
    assert [padded(size) for size in (1, COLUMNS, COLUMNS + 1)] == [16, 16, 32]
    assert COLUMNS % ROWS == 0  # so that padded columns are whole rows of a transposed matrix
