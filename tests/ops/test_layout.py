"""The scan takes memory as it lies: any dense order, views, repeated images, any coefficients."""

import ctypes

import pytest
import torch
from torch import Tensor

from rheobase.neurons import LIF, PLIF
from rheobase.ops import threads
from rheobase.ops.scan import ScanSpec, scan, use_backend

T, N, C, H, W = 4, 2, 3, 5, 6


def _contiguous() -> Tensor:
    return torch.rand(T, N, C, H, W) * 2


def _channels_last() -> Tensor:
    x = _contiguous().flatten(0, 1).to(memory_format=torch.channels_last)
    return x.unflatten(0, (T, N))


def _repeated() -> Tensor:
    return (torch.rand(N, C, H, W) * 2).expand(T, N, C, H, W)


def _part_of_longer() -> Tensor:
    return (torch.rand(3 * T, N, C, H, W) * 2)[::3]


def _strided() -> Tensor:
    return (torch.rand(T, N, C, H, 2 * W) * 2)[..., ::2]


def _batch_first() -> Tensor:
    return (torch.rand(N, T, C, H, W) * 2).transpose(0, 1)


@pytest.mark.parametrize(
    "make", [_contiguous, _channels_last, _repeated, _part_of_longer, _strided, _batch_first]
)
def test_any_layout(make) -> None:
    torch.manual_seed(0)
    x = make()
    neuron = PLIF(channels=C)
    g = _channels_last()

    def run(backend: str) -> tuple[Tensor, Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        with use_backend(backend):
            spikes = neuron(leaf)
        gx, gw = torch.autograd.grad(spikes, [leaf, neuron.w], g)
        return spikes.detach(), gx, gw

    fast, reference = run("cpu"), run("reference")
    assert torch.equal(fast[0], reference[0])
    torch.testing.assert_close(fast[1], reference[1])
    torch.testing.assert_close(fast[2], reference[2])


def test_channels_last_stays() -> None:
    x = _channels_last()
    assert LIF()(x).stride() == x.stride()


@pytest.mark.parametrize(
    "shape", [(1,), (C, 1, 1), (H, W), (C, H, W), (N, 1, 1, 1), (T, 1, 1, 1, 1), (T, 1, C, 1, W)]
)
@pytest.mark.parametrize("make", [_contiguous, _channels_last])
def test_coefficients_of_any_shape(shape: tuple[int, ...], make) -> None:
    torch.manual_seed(1)
    x, spec = make(), ScanSpec("affine", "at_or_above", "soft", "ATan")
    gain = torch.rand(shape) + 0.5

    def run(backend: str) -> tuple[Tensor, Tensor]:
        leaf = gain.clone().requires_grad_()
        values = {"decay": 0.7, "gain": leaf, "bias": 0.1, "threshold": 1.0, "surrogate_alpha": 2.0}
        with use_backend(backend):
            spikes, _, _ = scan(x, 0.0, spec, values)
        return spikes.detach(), torch.autograd.grad(spikes.square().sum(), leaf)[0]

    fast, reference = run("cpu"), run("reference")
    assert torch.equal(fast[0], reference[0])
    torch.testing.assert_close(fast[1], reference[1], rtol=1e-4, atol=1e-4)


def test_a_coefficient_that_does_not_broadcast_is_refused() -> None:
    spec = ScanSpec("integrate", "at_or_above", "soft", "ATan")
    with pytest.raises(ValueError, match=r"\[7\] does not broadcast to the input \[4, 2, 3\]"):
        scan(torch.rand(4, 2, 3), 0.0, spec, {"threshold": torch.ones(7), "surrogate_alpha": 2.0})


def test_a_missing_coefficient_is_named() -> None:
    spec = ScanSpec("integrate", "at_or_above", "soft", "ATan")
    with pytest.raises(ValueError, match="needs a value for threshold"):
        scan(torch.rand(4, 2, 3), 0.0, spec, {"surrogate_alpha": 2.0})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_results(threads: int) -> None:
    torch.manual_seed(2)
    x = torch.rand(8, 1, 3, 70_000) * 2
    before = torch.get_num_threads()

    def run() -> tuple[Tensor, Tensor, Tensor]:
        neuron, leaf = PLIF(), x.clone().requires_grad_()
        spikes = neuron(leaf)
        gx, gw = torch.autograd.grad(spikes.square().sum(), [leaf, neuron.w])
        return spikes, gx, gw

    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(threads)
        many = run()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("openmp", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_team_calls_every_thread_once(
    openmp: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not openmp:
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    called = list[int]()
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(called.append)
    threads.run_team(entry, 7, count)
    assert called == [7] * count


def test_plain_threads_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 1, 300_000) * 2
    expected = LIF()(x)
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    assert torch.equal(LIF()(x), expected)


def test_little_work_stays_on_one_thread() -> None:
    assert threads.team_size(16, threads.SERIAL_BYTES - 1) == 1
    assert threads.team_size(16, threads.SERIAL_BYTES) == min(16, torch.get_num_threads())
    assert threads.team_size(1, threads.SERIAL_BYTES) == 1


def test_a_fire_of_one_side_before_a_reset_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="'above' and reset 'soft_both' do not go together"):
        ScanSpec("relax", "above", "soft_both", "ATan")
    with pytest.raises(ValueError, match="'both_beyond' and reset 'hard' do not go together"):
        ScanSpec("relax", "both_beyond", "hard", "ATan")
