from __future__ import annotations

import pytest
import torch
from torch import Tensor

import rheobase
from rheobase.layers.spike_response import SpikeResponse
from rheobase.models import create_model
from rheobase.neurons import CUBALIF, LIF


def run(x: Tensor, **options: object) -> tuple[SpikeResponse, Tensor]:
    torch.manual_seed(0)
    layer = SpikeResponse(x.shape[2], 6, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.mul_(4.0)
    return layer, layer(x)


def test_one_filter_is_a_lif_two_are_a_current_based_one() -> None:
    x = torch.rand(20, 3, 5, dtype=torch.float64)
    options = {"decay_input": False, "v_reset": None}
    # The membrane after a step decays with what the spike took away from it.
    layer, spikes = run(x, decays=(0.75,), refractory=(0.75, 0.75), bias=False)
    assert torch.equal(spikes, LIF(4.0, **options)(x @ layer.weight.T))  # type: ignore[arg-type]
    layer, spikes = run(x, decays=(0.5, 0.75), refractory=(0.75, 0.75), bias=False)
    cuba = CUBALIF(4.0, current_decay=0.5, v_reset=None)
    assert torch.equal(spikes, cuba(x @ layer.weight.T)) and 0.0 < spikes.mean() < 1.0


def test_lagged_filters_are_the_difference_of_two_exponentials() -> None:
    x = torch.zeros(10, 1, 1, dtype=torch.float64)
    x[0] = 1.0
    layer = SpikeResponse(1, 1, decays=(0.5, 0.8), lagged=True, threshold=9.0, bias=False).double()
    torch.nn.init.ones_(layer.weight)
    t = torch.arange(10.0, dtype=torch.float64)
    torch.testing.assert_close(layer.respond(x)[0].flatten(), (0.8**t - 0.5**t) / 0.3)


@pytest.mark.parametrize("recurrent", [False, True])
def test_it_streams(recurrent: bool) -> None:
    x = torch.rand(12, 3, 5, dtype=torch.float64)
    layer, whole = run(x, decays=(0.8, 0.9), recurrent=recurrent, adaptation=(0.9, 0.5))
    with rheobase.streaming(layer):
        pieces = [layer(x[:1]), layer(x[1:7]), layer(x[7:])]
        with pytest.raises(ValueError, match=r"stream\.reset"):
            layer(x[:, :2])
    assert torch.equal(torch.cat(pieces), whole) and 0.0 < whole.mean() < 1.0


def test_recurrence_and_adaptation_do_something() -> None:
    x = torch.rand(30, 3, 5, dtype=torch.float64)
    _, plain = run(x)
    assert not torch.equal(run(x, recurrent=True)[1], plain)
    assert run(x, adaptation=(0.9, 0.5))[1].sum() < plain.sum()


@pytest.mark.parametrize("name", ["eprop", "superspike", "decolle", "tempotron", "resume"])
def test_presets_run_on_images(name: str) -> None:
    net = create_model(f"{name}_mnist")
    logits = net(torch.rand(2, 1, 28, 28))
    assert logits.shape == (1 if name == "tempotron" else net.T, 2, 10)
    with pytest.raises(ValueError, match="features a step"):
        net(torch.rand(2, 1, 20, 20))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"factor in \[0, 1\], got 1.5"):
        SpikeResponse(2, 2, decays=(1.5,))
    with pytest.raises(ValueError, match="each with a gain"):
        SpikeResponse(2, 2, decays=(0.5, 0.6), gains=(1.0,))
    with pytest.raises(ValueError, match=r"\[T, N, 2\], got \[3, 2\]"):
        SpikeResponse(2, 2)(torch.rand(3, 2))
    with pytest.raises(ValueError, match="readout must be one of"):
        create_model("eprop_mnist", readout="potentials")
