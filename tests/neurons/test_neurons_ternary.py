"""Neurons with spikes of both signs, on the scan."""

import pytest
import torch

import rheobase
from rheobase.layers import Recurrent
from rheobase.neurons import ImbalancedSignedIF, MagnitudeResetTernaryIF, TernaryIF, TernaryLIF
from rheobase.ops.scan import scan_to_bytes, use_backend
from rheobase.surrogate import Sigmoid


def by_hand(x, upper, lower, detach_reset):
    """The equations with autograd, the spike's gradient put in as a straight line."""
    g = Sigmoid(4.0)
    u, out = torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        h = u + x_t
        up, down = h - upper, -h - lower
        s = (up >= 0).double() - (down >= 0).double()
        slope = (g(up) + g(down)).detach()
        s = s.detach() + (h - h.detach()) * slope
        u = h * (1 - (s.detach() if detach_reset else s).abs())
        out.append(s)
    return torch.stack(out)


@pytest.mark.parametrize("detach_reset", [False, True])
def test_spikes_and_gradients(detach_reset):
    torch.manual_seed(0)
    x = torch.randn(5, 40, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, 40, dtype=torch.float64)
    neuron = MagnitudeResetTernaryIF(
        v_threshold=0.8, v_negative=0.5, detach_reset=detach_reset, surrogate=Sigmoid(4.0)
    )
    ours, theirs = neuron(x), by_hand(x, 0.8, 0.5, detach_reset)
    assert set(ours.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.equal(ours, theirs)
    mine = torch.autograd.grad((ours * weight).sum(), x)
    expected = torch.autograd.grad((theirs * weight).sum(), x)
    torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def each_side(x, upper, lower, v_reset, decay, detach_reset):
    """Two spiking neurons on one membrane, step by step: spikes, and the membranes after reset."""
    g = Sigmoid(4.0)

    def fired(z):
        return (z >= 0).double() + (z - z.detach()) * g(z).detach()

    u, out, after = torch.full_like(x[0], v_reset or 0.0), [], []
    for x_t in x.unbind(0):
        h = u + (x_t - (u - (v_reset or 0.0))) / 3.0 if decay else u + x_t
        up, down = fired(h - upper), fired(-h - lower)
        a, b = (up.detach(), down.detach()) if detach_reset else (up, down)
        u = h - a * upper + b * lower if v_reset is None else h * (1 - a - b) + v_reset * (a + b)
        out.append(up - down)
        after.append(u)
    return torch.stack(out), torch.stack(after)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("kind", ["hard", "soft", "imbalanced"])
def test_each_side_is_an_event_of_its_own(kind, detach_reset, backend):
    torch.manual_seed(0)
    x = (2.0 * torch.randn(7, 2, 40, dtype=torch.float64)).requires_grad_()
    upper = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    options = {"detach_reset": detach_reset, "surrogate": Sigmoid(4.0)}
    if kind == "imbalanced":
        neuron = ImbalancedSignedIF(0.5, v_threshold=upper, **options)
        wanted = [x, neuron.v_threshold]
        theirs, membrane = each_side(x, upper, upper / 0.5, None, False, detach_reset)
        expected_by = [x, upper]
    else:
        v_reset = -0.1 if kind == "hard" else None
        neuron = TernaryLIF(3.0, v_threshold=0.8, v_reset=v_reset, **options)
        wanted = expected_by = [x]
        theirs, membrane = each_side(x, 0.8, 0.8, v_reset, True, detach_reset)
    with use_backend(backend):
        ours, v = neuron(x, tap="v")
    assert set(ours.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(v, membrane, rtol=1e-12, atol=1e-14)
    weight = torch.randn(2, *x.shape, dtype=torch.float64)
    with use_backend(backend):
        mine = torch.autograd.grad((ours * weight[0] + v * weight[1]).sum(), wanted)
    expected = torch.autograd.grad((theirs * weight[0] + membrane * weight[1]).sum(), expected_by)
    torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_what_takes_no_negative_spikes_refuses_them():
    neuron, x = TernaryIF(), torch.randn(3, 2, 4)
    with pytest.raises(ValueError, match="fires -1 too, which uint8 does not hold"):
        scan_to_bytes(x, 0.0, neuron.spec, neuron.coefficients(x))
    with pytest.raises(TypeError, match="of the scan that fires on one side"):
        Recurrent(4, neuron)


def test_taps_streaming_and_half_precision():
    torch.manual_seed(0)
    x, neuron = torch.randn(6, 9), MagnitudeResetTernaryIF()
    spikes, charged = neuron(x, tap="h")
    after = neuron(x, tap="v")[1]
    assert torch.equal(after, charged * (1 - spikes.abs()))
    with rheobase.streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:2]), neuron(x[2:])]), spikes)
    assert neuron(x.bfloat16()).dtype == torch.bfloat16


def test_refusals():
    with pytest.raises(ValueError, match="v_negative"):
        MagnitudeResetTernaryIF(v_negative=-0.5)
    with pytest.raises(TypeError, match="float"):
        MagnitudeResetTernaryIF()(torch.zeros(2, 3, dtype=torch.long))
