"""The encoders, to the spike."""

from __future__ import annotations

import math

import pytest
import torch

from rheobase.data import direct, latency, rate, sample_generator


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_direct_repeats_without_copying() -> None:
    x = images(2, 3, 4, 4) * 5 - 2  # normalised images are welcome
    spikes = direct(x, T=6)
    assert spikes.shape == (6, 2, 3, 4, 4)
    assert spikes.stride(0) == 0
    assert spikes.data_ptr() == x.data_ptr()
    assert all(torch.equal(step, x) for step in spikes)


def test_rate_has_the_pixel_as_its_probability() -> None:
    T = 20_000
    x = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    spikes = rate(x, T, torch.Generator().manual_seed(0))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert spikes[:, 0].sum() == 0
    assert spikes[:, 4].sum() == T
    error = (spikes.mean(0) - x).abs()
    assert (error <= 4 * (x * (1 - x) / T).sqrt()).all()


def test_rate_is_independent_over_time() -> None:
    T = 20_000
    spikes = rate(torch.tensor([0.3]), T, torch.Generator().manual_seed(0))[:, 0] - 0.3
    correlation = (spikes[1:] * spikes[:-1]).mean() / (0.3 * 0.7)
    assert abs(correlation) < 4 / math.sqrt(T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shapes_and_dtypes(dtype: torch.dtype) -> None:
    x = images(2, 3, 4, 4).to(dtype)
    for spikes in (direct(x, 5), rate(x, 5), latency(x, 5), latency(x, 5, tau=2.0)):
        assert spikes.shape == (5, 2, 3, 4, 4)
        assert spikes.dtype == dtype


def test_rate_is_keyed_by_seed_epoch_and_sample() -> None:
    x = images(1, 8, 8)
    first = rate(x, 4, sample_generator(0, 1, 2))
    assert torch.equal(first, rate(x, 4, sample_generator(0, 1, 2)))
    for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3), (1, 0, 2), (2, 1, 0)):
        assert not torch.equal(first, rate(x, 4, sample_generator(*key)))


def test_sample_generator_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    rate(images(4), 3, sample_generator(0, 0, 0))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="must not be negative"):
        sample_generator(0, -1, 0)


def test_linear_latency_by_hand() -> None:
    """Steps (T - 1)(1 - x): the example that snnTorch documents, with its times 3.92, 2 and 0."""
    spikes = latency(torch.tensor([0.02, 0.5, 1.0, 0.01, 0.0]), T=5)
    assert spikes.argmax(0)[:3].tolist() == [4, 2, 0]
    assert spikes.sum(0).tolist() == [1, 1, 1, 0, 0]


def test_logarithmic_latency_is_when_the_membrane_arrives() -> None:
    """A leaky membrane driven by x crosses the threshold at the step that is returned."""
    tau, threshold, T = 20.0, 0.2, 60
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    spikes = latency(x, T, tau=tau, threshold=threshold)
    time = torch.arange(0, 2 * T, 0.02, dtype=torch.float64)
    membrane = x[:, None] * (1 - torch.exp(-time / tau))
    for pixel, row, train in zip(x, membrane, spikes.T, strict=True):
        crossed = time[row >= threshold]
        if len(crossed) == 0 or crossed[0].round() > T - 1 or pixel <= threshold:
            assert train.sum() == 0
        else:
            assert train.sum() == 1
            assert abs(train.argmax().item() - crossed[0].item()) <= 0.52


def test_brighter_fires_sooner() -> None:
    x = images(500).sort(descending=True).values.clamp(min=0.02)
    for spikes in (latency(x, 50), latency(x, 50, tau=8.0)):
        fired = spikes.sum(0) == 1
        times = spikes.argmax(0)[fired]
        assert len(times) > 400
        assert (times.diff() >= 0).all()


@pytest.mark.parametrize("encode", [rate, latency])
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_values_outside_the_unit_interval(encode: object, bad: float) -> None:
    x = images(3, 3)
    x[1, 1] = bad
    with pytest.raises(ValueError, match=r"expected values in 0\.\.1"):
        encode(x, 4)  # type: ignore[operator]


@pytest.mark.parametrize("encode", [rate, latency])
def test_other_bad_input(encode: object) -> None:
    with pytest.raises(TypeError, match=r"x\.float\(\) / 255"):
        encode(torch.ones(3, dtype=torch.uint8), 4)  # type: ignore[operator]
    with pytest.raises(ValueError, match="empty shape"):
        encode(torch.ones(0, 3), 4)  # type: ignore[operator]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        encode(images(3), 0)  # type: ignore[operator]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        direct(images(3), 0)


def test_latency_parameters() -> None:
    x = images(3)
    for tau in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="tau must be"):
            latency(x, 4, tau=tau)
    for threshold in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="threshold must lie"):
            latency(x, 4, threshold=threshold)
    with pytest.raises(ValueError, match="above 0 with tau"):
        latency(x, 4, tau=1.0, threshold=0.0)
    assert latency(torch.tensor([1e-9]), 4, threshold=0.0).argmax(0).item() == 3
