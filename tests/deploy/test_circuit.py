"""A circuit's synapses and events, held to what gradients and spikes of the layers say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rheobase.data import MNISTSample
from rheobase.deploy import CHIPS, Circuit, Population, circuit_of, map_circuit
from rheobase.layers import Recurrent, over_time, repeat
from rheobase.models import create_model
from rheobase.neurons import CLIF, GLIF, IF, LIF, PSN, TernaryIF

T, N = 4, 3


@pytest.fixture(scope="module")
def digits() -> Tensor:
    data = MNISTSample(train=False)
    return torch.stack([data[i][0] for i in range(N)])


class Pooled(nn.Module):
    """Two convolutions with an average pooling between, a shortcut, a maximum, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
        self.chain = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1)
        )
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.grouped = nn.Conv2d(6, 4, 3, groups=2)
        self.maximum = nn.MaxPool2d(2)
        self.wide, self.head = nn.Linear(6 * 9, 54), nn.Linear(54, 10)
        self.n1, self.n2, self.n3, self.n4 = LIF(), IF(), LIF(), LIF()

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.n2(over_time(first, self.chain) + over_time(first, self.shortcut))
        third = over_time(second, self.maximum)
        side = self.n3(over_time(second, self.grouped))
        fourth = self.n4(over_time(third.flatten(2), self.wide))
        return over_time(fourth, self.head) + side.mean((2, 3, 4)).unsqueeze(-1)

    def first(self, x: Tensor) -> Tensor:
        return self.n1(over_time(repeat(5.0 * x, T), self.encode))


def by_name(circuit: Circuit) -> dict[str, Population]:
    return {one.name: one for one in circuit.populations}


def reached(layers: nn.Module, spikes: Tensor) -> tuple[int, float]:
    """Pairs of an input and an output that depend on each other, and spikes times those."""
    x = torch.rand(spikes.shape[2:])
    matrix = torch.autograd.functional.jacobian(lambda x: layers(x.unsqueeze(0)).flatten(), x)
    pairs = (matrix.flatten(1) != 0).double()
    sent = spikes.flatten(0, 1).flatten(1).double().sum(0)
    return int(pairs.sum()), float((pairs @ sent).sum()) / spikes.shape[1]


def test_layers_between_neurons_become_synapses(digits: Tensor) -> None:
    net = Pooled().eval()
    circuit = circuit_of(net, digits)
    found = by_name(circuit)
    assert list(found) == ["n1", "n2", "maximum", "n3", "n4", "readout"]
    assert [one.kind for one in found.values()] == [
        "encoder", "neurons", "maxima", "neurons", "neurons", "readout",
    ]  # fmt: skip
    assert [one.shape for one in found.values()] == [
        (4, 14, 14), (6, 7, 7), (6, 3, 3), (4, 5, 5), (54, 1), (10, 1),
    ]  # fmt: skip
    with torch.no_grad():
        first = net.first(digits)
        second = net.n2(over_time(first, net.chain) + over_time(first, net.shortcut))
        third = over_time(second, net.maximum)
    assert found["n1"].spikes * N == first.sum() > 0
    assert found["n2"].spikes * N == second.sum() > 0
    assert found["maximum"].spikes * N == third.sum()
    chain, shortcut = found["n2"].inputs
    assert chain.layers == ("chain.1", "chain.3") and shortcut.layers == ("shortcut",)
    for projection, layers, spikes in [
        (chain, net.chain, first),
        (shortcut, net.shortcut, first),
        (found["n3"].inputs[0], net.grouped, second),
        (found["n4"].inputs[0], nn.Sequential(nn.Flatten(), net.wide), third),
    ]:
        pairs, events = reached(layers, spikes)
        assert projection.connections.synapses == pairs
        assert projection.events == pytest.approx(events)
    assert found["maximum"].synapses == 6 * 9 * 4
    assert found["n2"].dynamics == "integrator" and found["n3"].dynamics == "leaky"
    assert circuit.obstacles == ()


def test_neurons_in_place_of_a_maximum_fire_as_it_does() -> None:
    """Weights of one, a threshold of one, a reset to zero."""
    spikes = (torch.rand(20, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    summed = nn.Conv2d(3, 3, 2, stride=2, groups=3, bias=False)
    nn.init.ones_(summed.weight)
    fired = IF(v_threshold=1.0, v_reset=0.0)(over_time(spikes, summed))
    assert torch.equal(fired, over_time(spikes, nn.MaxPool2d(2)))


class Layers(nn.Module):
    """Steps of an image through modules that know time."""

    def __init__(self, *modules: nn.Module, steps: int = T) -> None:
        super().__init__()
        self.steps, self.modules_ = steps, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return over_time(repeat(x, self.steps) if x.dim() < 5 else x, *self.modules_)


def test_events_of_an_event_camera_reach_the_chip() -> None:
    frames = torch.poisson(torch.full((T, 2, 2, 6, 6), 0.3), torch.Generator().manual_seed(1))
    conv = nn.Conv2d(2, 3, 3)
    circuit = circuit_of(Layers(conv, LIF(), nn.Flatten(), nn.Linear(48, 5)), frames)
    assert circuit.input_spikes * 2 == frames.sum()
    first = circuit.populations[0]
    assert first.kind == "neurons"
    assert first.inputs[0].events == pytest.approx(reached(conv, frames)[1])


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.neuron = nn.Linear(12, 5), LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(over_time(x, self.fc))


def test_a_sequence_of_spikes_over_channels() -> None:
    x = (torch.rand(30, 2, 12, generator=torch.Generator().manual_seed(2)) < 0.2).float()
    circuit = circuit_of(Sequence(), x)
    assert circuit.steps == 30 and circuit.input_spikes * 2 == x.sum()
    (only,) = circuit.populations
    assert only.kind == "neurons" and only.inputs[0].events * 2 == x.sum() * 5


def test_a_recurrent_layer_sends_to_itself() -> None:
    net = Layers(nn.Flatten(), nn.Linear(784, 20), Recurrent(20, LIF()), nn.Linear(20, 10))
    (layer, readout) = circuit_of(net, torch.rand(2, 1, 28, 28)).populations
    assert [p.source for p in layer.inputs] == ["input", layer.name]
    assert layer.inputs[1].connections.synapses == 400
    assert readout.inputs[0].connections.synapses == 200


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.neuron = nn.Linear(784, 8), nn.Linear(8, 8), LIF()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron(over_time(repeat(x.flatten(1), T), self.a))
        return self.neuron(over_time(spikes, self.b))


def test_a_module_used_twice_is_two_populations(digits: Tensor) -> None:
    circuit = circuit_of(Shared(), digits)
    assert [one.name for one in circuit.populations] == ["neuron", "neuron@2"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(28, 28), LIF()
        self.q, self.k, self.out = LIF(), LIF(), LIF()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(over_time(repeat(x.squeeze(1), T), self.first))
        return self.out(self.q(x) @ self.k(x).mT).mean(2)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Attention(), "out takes the product of activations in Attention"),
        (
            Layers(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), LIF(), nn.Flatten()),
            "modules_.2 takes the maximum of values that are no spikes in modules_.1",
        ),
        (
            Layers(nn.Flatten(), nn.Linear(784, 9), LIF(), nn.LayerNorm(9), LIF()),
            "modules_.4 takes the layer_norm in modules_.3",
        ),
        (
            create_model("spikformer_lt_fourier_cifar10dvs_2_256", T=1, image_size=64, channels=1),
            "blocks.0.attn.neuron takes the Fourier transform in blocks.0.attn",
        ),
        (
            Layers(nn.Flatten(), nn.Linear(784, 9), LIF(), nn.Linear(9, 4), nn.Softmax(-1)),
            "the output takes the softmax in modules_.4",
        ),
        (
            Layers(nn.Flatten(), nn.Linear(784, 9), TernaryIF()),
            "modules_.2 sends other values than 0 and 1",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_no_synapse_can_do_is_named(net: nn.Module, message: str, digits: Tensor) -> None:
    size = getattr(getattr(net, "config", None), "image_size", 28)
    x = nn.functional.interpolate(5.0 * digits, size)
    assert message in circuit_of(net, x).obstacles


def test_values_around_the_encoder_are_named(digits: Tensor) -> None:
    net = create_model("ms_resnet18", T=1, image_size=32, num_classes=4)
    obstacles = circuit_of(net, torch.rand(1, 3, 32, 32)).obstacles
    assert "stages.0.1.sn1 takes values of the input beside spikes" in obstacles


def test_norms_that_change_from_step_to_step_are_named() -> None:
    circuit = circuit_of(create_model("spiking_vgg9_cifar10", T=2), torch.rand(1, 3, 32, 32))
    assert circuit.obstacles[0] == "the gains of features.1 change from step to step"


@pytest.mark.parametrize("neuron", [CLIF(), GLIF(T), PSN(T)], ids=repr)
def test_neurons_that_do_more_than_to_leak(neuron: nn.Module, digits: Tensor) -> None:
    circuit = circuit_of(Layers(nn.Flatten(), nn.Linear(784, 9), neuron), digits)
    assert circuit.populations[0].dynamics == "other"
    (obstacle,) = map_circuit(circuit, CHIPS["loihi"]).obstacles or ("",)
    assert obstacle == "" and circuit.kinds == ("encoder",)  # beside the chip it may be any
    deeper = Layers(nn.Flatten(), nn.Linear(784, 9), LIF(), nn.Linear(9, 5), neuron)
    (obstacle,) = map_circuit(circuit_of(deeper, digits), CHIPS["loihi"]).obstacles
    assert obstacle.endswith("Intel Loihi has no such neurons")
    assert map_circuit(circuit_of(deeper, digits), CHIPS["spinnaker"]).fits


def test_a_network_without_neurons_is_refused(digits: Tensor) -> None:
    with pytest.raises(ValueError, match="Layers has no spiking neurons"):
        circuit_of(Layers(nn.Flatten(), nn.Linear(784, 9)), digits)


@pytest.mark.parametrize(
    ("name", "overrides", "obstacle"),
    [
        ("plif_net_mnist", {"width": 4, "hidden": 16}, ""),
        ("vggsnn", {"features": "8/2 8 8/2", "channels": 1, "image_size": 28, "T": 1}, ""),
        ("sew_resnet18", {"T": 1, "image_size": 32, "num_classes": 4}, ""),
        ("tdbn_resnet18_cifar10", {"T": 1}, ""),
        ("spikformer_mnist_2_64", {"T": 1}, "blocks.0.attn.neuron takes the product of"),
    ],
)
def test_registered_models(name: str, overrides: dict, obstacle: str) -> None:
    """Every neuron is placed, every weight used, and attention is the only obstacle."""
    net = create_model(name, **overrides)
    size = net.config.image_size if hasattr(net.config, "image_size") else 32
    circuit = circuit_of(net, torch.rand(1, getattr(net.config, "channels", 3), size, size))
    neurons = {one.name.partition("@")[0] for one in circuit.populations if one.kind != "maxima"}
    assert {n for n, m in net.named_modules() if isinstance(m, LIF | IF)} <= neurons | {"readout"}
    used = {layer for one in circuit.populations for p in one.inputs for layer in p.layers}
    assert {n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)} == used
    others = [one for one in circuit.obstacles if "attn.neuron takes the product" not in one]
    assert others == [] and bool(circuit.obstacles) == bool(obstacle)
