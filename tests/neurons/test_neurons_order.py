"""Every neuron takes any dense order of memory as it lies, also where no kernel runs it."""

import pytest
import torch

from rheobase.neurons import NEURONS, StepNeuron
from rheobase.ops.scan import use_backend

T = 4
ARGUMENTS = {
    **{name: {"T": T} for name in ("psn", "glif", "im_lif")},
    "masked_psn": {"T": T, "k": 2},
    "sliding_psn": {"k": 2},
    "cuba_lif": {"refractory": 2},
}
WITHOUT_TAP = ("psn", "masked_psn", "sliding_psn")


@pytest.mark.parametrize("order", [(0, 1, 3, 4, 2), (0, 3, 2, 4, 1)], ids=["channels last", "any"])
@pytest.mark.parametrize("name", NEURONS)
def test_the_memory_order_is_kept_step_by_step(
    name: str, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepNeuron, "_program", lambda self, x: None)
    neuron = NEURONS[name](**ARGUMENTS.get(name, {})).double()
    plain = 2.0 * torch.randn(T, 2, 3, 4, 5, dtype=torch.float64)
    there = [order.index(axis) for axis in range(5)]
    found = []
    for x in (plain, plain.permute(order).contiguous().permute(there)):
        leaf = x.clone().requires_grad_()
        with use_backend("reference"):
            spikes = neuron(leaf)
            tapped = () if name in WITHOUT_TAP else (neuron(x, "h")[1], neuron(x, "v")[1])
        (gradient,) = torch.autograd.grad(spikes, leaf, x)
        for made in (spikes, *tapped, gradient):
            if made.stride(0):  # the gradient of a rate is one for all steps
                assert made.stride() == x.stride()
        found.append((spikes, *tapped, gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
