"""The little language: what it refuses, and the arithmetic that generated kernels rely on."""

from typing import Any

import numpy as np
import pytest
import torch
from numba import njit

from rheobase.ops.numba_lang import bfloat16_to_float, exp32, expm1_32, float_to_bfloat16
from rheobase.ops.translate import Binding, load_module, translate

BINDING = Binding({"exp": "math.exp({0})", "abs": "abs({0})"}, literal="real({0})")


def _fine(z: Any, alpha: Any) -> Any:
    """A docstring is left out."""
    k = 0.5 * alpha
    return exp(-abs(k * z))  # noqa: F821


def _loops(z: Any) -> Any:
    for _ in range(3):
        z = z + 1.0
    return z


def _calls(z: Any) -> Any:
    return torch.relu(z)


def test_source_is_translated() -> None:
    source = translate(_fine, "derivative", BINDING, "@njit")
    assert source == (
        "@njit\ndef derivative(z, alpha):\n"
        "    k = real(0.5) * alpha\n"
        "    return math.exp(-abs(k * z))"
    )


def test_outside_the_language_is_refused() -> None:
    with pytest.raises(ValueError, match="only assignments and a return"):
        translate(_loops, "f", BINDING, "")
    with pytest.raises(ValueError, match=r"calls torch\.relu, which is no name of"):
        translate(_calls, "f", BINDING, "")


def test_a_changed_file_in_the_cache_is_not_run(tmp_path, monkeypatch) -> None:
    from rheobase import _paths

    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path))
    _paths.kernel_cache.cache_clear()
    try:
        module = load_module("probe", "answer = 42\n")
        path = next((tmp_path / "kernels").glob("probe_*.py"))
        path.write_text("answer = 'tampered'\n")
        assert load_module("probe", "answer = 42\n").answer == module.answer == 42
        assert path.read_text() == "answer = 42\n"
        assert (tmp_path / "kernels").stat().st_mode & 0o077 == 0
    finally:
        _paths.kernel_cache.cache_clear()


def test_exp_is_accurate() -> None:
    @njit
    def run(x, y):
        for i in range(x.size):
            y[i] = exp32(x[i])

    x = np.concatenate([np.linspace(-87, 88, 100_001), [0.0]]).astype(np.float32)
    y = np.empty_like(x)
    run(x, y)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(y - exact) / exact) < 3e-7
    assert y[-1] == 1.0
    beyond = np.array([-np.inf, -1e30, -88, 89, 1e30, np.inf], dtype=np.float32)
    y = np.empty_like(beyond)
    run(beyond, y)
    assert (y[:3] > 0).all() and (y[:3] < 1.3e-38).all()
    assert (y[3:] > 1.6e38).all() and np.isfinite(y).all()


def test_expm1_loses_no_digits_near_0() -> None:
    @njit
    def run(x, y):
        for i in range(x.size):
            y[i] = expm1_32(x[i])

    far = np.linspace(-87, 88, 100_001)
    x = np.concatenate([far, 1e-3 * far, 1e-7 * far, [0.0]]).astype(np.float32)
    y = np.empty_like(x)
    run(x, y)
    exact = np.expm1(x.astype(np.float64))
    assert np.max(np.abs(y - exact)[:-1] / np.abs(exact[:-1]).clip(1e-30)) < 1e-6
    assert y[-1] == 0.0


def test_bfloat16_rounds_as_torch() -> None:
    @njit
    def run(x, bits, back):
        for i in range(x.size):
            bits[i] = float_to_bfloat16(x[i])
            back[i] = bfloat16_to_float(bits[i])

    torch.manual_seed(0)
    x = torch.cat([torch.randn(10_000), torch.tensor([0.0, -0.0, 1e-40, torch.inf, torch.nan])])
    bits, back = torch.empty(x.numel(), dtype=torch.int16), torch.empty_like(x)
    run(x.numpy(), bits.numpy(), back.numpy())
    expected = x.bfloat16()
    assert torch.equal(bits.view(torch.bfloat16)[:-1], expected[:-1])
    torch.testing.assert_close(back, expected.float(), rtol=0, atol=0, equal_nan=True)
