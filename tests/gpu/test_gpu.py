"""What only a GPU can show: the CPU's results, compiled graphs. Skipped where there is none."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from rheobase import neurons
from rheobase.layers import over_time, repeat
from rheobase.layers.norms import ThresholdDependentBatchNorm2d
from rheobase.models import create_model
from rheobase.neurons import LIF, PLIF
from rheobase.ops import conformance

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    "case",
    list(conformance.cases("fast", (torch.float32, torch.bfloat16, torch.float16))),
    ids=lambda c: f"{c.spec.key}-{c.dtype}-{c.layout}",
)
def test_kernel_equals_reference(case: conformance.Case) -> None:
    row = conformance.check(case, "triton", "cuda")
    assert row.ok, row


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("neuron", "scale"),
    [(neurons.CLIF(), 1.0), (neurons.SignedIF(), 1.0), (neurons.HodgkinHuxley(dt=0.05), 40.0)],
)
def test_kernel_of_a_step_equals_the_cpu(
    neuron: neurons.StepNeuron, scale: float, dtype: torch.dtype
) -> None:
    x = scale * (0.7 + torch.randn(19, 3, 700, dtype=dtype))
    given, on_gpu = x.clone().requires_grad_(), x.cuda().requires_grad_()
    expected, found = neuron(given), neuron(on_gpu)
    if dtype == torch.float32:
        assert type(found.grad_fn).__name__ == "_StepsBackward"
    differ = (found.cpu() != expected).double().mean()
    assert differ < 2e-3  # exp is another one
    if differ == 0.0:
        g = torch.randn_like(x)
        (ours,) = torch.autograd.grad(found, on_gpu, g.cuda())
        (theirs,) = torch.autograd.grad(expected, given, g)
        assert (ours.cpu() - theirs).abs().max() <= 2e-3 * theirs.abs().max()


@pytest.mark.parametrize(
    ("channels_last", "repeated", "steps"),
    list(itertools.product((False, True), (False, True), (4, 20))),
)
def test_norm_and_pool_in_the_neurons_pass(channels_last: bool, repeated: bool, steps: int) -> None:
    """Outputs, gradients and running statistics are those of the CPU, in float64."""
    torch.manual_seed(0)
    layers = nn.ModuleList([
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), LIF(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, 1), LIF(),
        nn.Conv2d(8, 16, 3), ThresholdDependentBatchNorm2d(16), PLIF(),
    ]).double()  # fmt: skip
    nn.init.normal_(layers[4].weight, std=2.0)  # negative gains too
    x = torch.randn(2 if repeated else 2 * steps, 3, 16, 16, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    g = torch.randn(steps, 2, 16, 6, 6, dtype=torch.float64)

    def run(device: str) -> list[Tensor]:
        net = copy.deepcopy(layers).to(device)
        images = x.detach().to(device, copy=True).requires_grad_()
        sequence = repeat(images, steps) if repeated else images.unflatten(0, (steps, 2))
        spikes = over_time(sequence, *net)
        spikes.backward(g.to(device))
        assert images.grad is not None
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        return [spikes.detach(), images.grad, *gradients, *net.buffers()]

    expected = run("cpu")
    assert 0.01 < expected[0].mean() < 0.5
    for a, b in zip(run("cuda"), expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_network(mode: str) -> None:
    """`torch.compile`, also onto CUDA graphs: the same logits and gradients."""
    torch.manual_seed(0)
    eager = create_model("spikformer_cifar10_4_256", depth=1).cuda().train()
    net = copy.deepcopy(eager)
    compiled = torch.compile(net, mode=mode, fullgraph=True)
    x = torch.randn(8, 3, 32, 32, device="cuda")
    for _ in range(3):
        for each in (eager, net):
            each.zero_grad()
        logits, expected = compiled(x), eager(x)
        logits.square().mean().backward()
        expected.square().mean().backward()
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    for a, b in zip(net.parameters(), eager.parameters(), strict=True):
        if b.grad is not None:
            assert a.grad is not None
            assert (a.grad - b.grad).abs().max() <= 0.02 * b.grad.abs().max() + 1e-6


def test_less_is_kept_for_the_backward_pass_as_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    net = create_model("spikformer_cifar10_4_256", depth=1).cuda().train()
    x = torch.randn(8, 3, 32, 32, device="cuda")

    def kept() -> tuple[int, Tensor]:
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", torch.bfloat16):
            loss = net(x).float().square().mean()
        after = torch.cuda.memory_allocated()
        (gradient,) = torch.autograd.grad(loss, [net.head.weight])
        return after - before, gradient

    kept()  # what is asked for once: workspaces, statistics
    bits, gradient = kept()
    monkeypatch.setattr("rheobase.ops.packed.largest", lambda x: None)
    dense, expected = kept()
    assert bits < dense
    torch.testing.assert_close(gradient, expected)
