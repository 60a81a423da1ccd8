"""Neurons under PyTorch's transforms: compile, export, functorch, forward mode."""

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap

from rheobase.neurons import CLIF, CUBALIF, KLIF, LIF, PLIF, DietLIF, Neuron, SlidingPSN

NEURONS = [
    LIF(),
    LIF(tau=1.5, v_reset=None),
    PLIF(channels=3),
    KLIF(),
    DietLIF(channels=3),
    CLIF(),
    SlidingPSN(k=2),
    CUBALIF(),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 2, 3, 5, generator=generator, dtype=torch.float64) * 3
    return x, torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_compile_whole_graph_in_training(neuron: Neuron) -> None:
    neuron, (x, g) = neuron.double(), _inputs()
    plain, compiled = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = neuron(plain * 1.1)
    expected.backward(g)
    expected_parameters = [p.grad.clone() for p in neuron.parameters()]
    neuron.zero_grad()
    actual = torch.compile(lambda y: neuron(y * 1.1), fullgraph=True, backend="aot_eager")(compiled)
    actual.backward(g)
    assert torch.equal(actual, expected)
    torch.testing.assert_close(compiled.grad, plain.grad)
    for parameter, wanted in zip(neuron.parameters(), expected_parameters, strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_export(neuron: Neuron) -> None:
    neuron, (x, _) = neuron.double(), _inputs()
    program = torch.export.export(neuron, (x,))
    assert torch.equal(program.module()(x), neuron(x))


@pytest.mark.parametrize("neuron", NEURONS, ids=repr)
def test_functorch_gradients_equal_autograd(neuron: Neuron) -> None:
    neuron, (x, g) = neuron.double(), _inputs()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((neuron(leaf) * g).sum(), leaf)
    torch.testing.assert_close(grad(lambda y: (neuron(y) * g).sum())(x), expected)
    batch = torch.stack([x, x.flip(0)])
    each = vmap(grad(lambda y: (neuron(y) * g).sum()))(batch)
    torch.testing.assert_close(each[0], expected)
    # Forward mode is the transpose: <g, J t> = <J^T g, t>.
    tangent = torch.ones_like(x)
    out, pushed = jvp(neuron, (x,), (tangent,))
    assert torch.equal(out, neuron(x))
    torch.testing.assert_close((pushed * g).sum(), (expected * tangent).sum())


def test_functorch_gradients_by_parameters() -> None:
    neuron, (x, g) = PLIF(channels=3).double(), _inputs()
    (expected,) = torch.autograd.grad((neuron(x) * g).sum(), neuron.w)
    parameters = dict(neuron.named_parameters())

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return (functional_call(neuron, p, (x,)) * g).sum()

    torch.testing.assert_close(grad(loss)({n: p.detach() for n, p in parameters.items()})["w"],
                               expected)  # fmt: skip


def test_operator_is_well_formed() -> None:
    neuron, (x, _) = PLIF(channels=3).double(), _inputs()
    values = neuron.coefficients(x)
    numbers = {n: v for n, v in values.items() if not isinstance(v, torch.Tensor)}
    tensors = {n: v.detach().requires_grad_() for n, v in values.items() if n not in numbers}
    torch.library.opcheck(
        torch.ops.rheobase.scan.default,
        (x.requires_grad_(), None, 0.0, neuron.spec.key, " ".join(numbers),
         list(numbers.values()), " ".join(tensors), list(tensors.values()), "v", True),
    )  # fmt: skip
