"""Single pieces of released conversions: few-spike codes, thresholds by least squares, DSR."""

from __future__ import annotations

import pytest
import torch

from conversion_files import cases_of, files, load
from rheobase.convert import FewSpikeNeuron
from rheobase.convert.statistics import best_threshold
from rheobase.neurons import DSRIF

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("name", files("unit_neurons"))
def test_pieces(name: str) -> None:
    arrays = load(name)
    for case in cases_of(arrays, ".y"):
        if not case.startswith("fs."):
            continue
        code = [arrays[f"{case}.{letter}"] for letter in "Thd"]
        neuron = FewSpikeNeuron(*code)
        current = torch.zeros(len(code[0]), len(arrays["fs.x"]))
        current[0] = arrays["fs.x"]
        with torch.no_grad():
            value = (neuron(current) * neuron.weights.unsqueeze(1)).sum(0)
        torch.testing.assert_close(value, arrays[f"{case}.y"], rtol=1e-5, atol=1e-5)
    activations = arrays["mse.act"]
    for case in cases_of(arrays, ".layer"):
        steps = int(case.removeprefix("mse.T"))
        layer = best_threshold(activations.reshape(1, -1), steps)
        channels = activations.transpose(0, 1).flatten(1)
        torch.testing.assert_close(layer[0], arrays[f"{case}.layer"], rtol=1e-5, atol=0.0)
        channel = best_threshold(channels, steps)
        torch.testing.assert_close(channel, arrays[f"{case}.channel"], rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("name", files("unit_neurons"))
def test_dsr_forward_and_backward(name: str) -> None:
    """Spikes of the threshold's size; the gradient is that of the clipped mean input."""
    arrays = load(name)
    official = arrays["dsr.if.y"]
    neuron = DSRIF(float(official.max())).to(official.dtype)
    x = arrays["dsr.if.x"].requires_grad_(True)
    y = neuron(x)
    assert torch.equal(y, official)
    (y * arrays["dsr.if.g"]).sum().backward()
    assert torch.equal(x.grad, arrays["dsr.if.gx"])
    torch.testing.assert_close(neuron.v_threshold.grad.double(), arrays["dsr.if.gvth"].double())
