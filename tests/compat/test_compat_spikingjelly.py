"""Code as it was written for SpikingJelly 0.0.0.0.12 and 0.0.0.0.14."""

import sys

import pytest
import torch
from torch import nn

import rheobase.compat.spikingjelly as sj
from rheobase.compat.spikingjelly import base
from rheobase.ops.scan import use_backend


@pytest.fixture
def old():
    """The modules, under their own names; most tests need no kernel to be compiled."""
    with sj.installed(), use_backend("reference"):
        from spikingjelly import activation_based, clock_driven

        yield clock_driven, activation_based


def test_imports_of_published_code_work_only_while_installed():
    with sj.installed():
        from spikingjelly.activation_based import base, encoding, functional, layer  # noqa: F401
        from spikingjelly.activation_based.layer import SeqToANNContainer
        from spikingjelly.cext import neuron as cext_neuron
        from spikingjelly.clock_driven import neuron, surrogate  # noqa: F401
        from spikingjelly.clock_driven.neuron import (
            MultiStepLIFNode,
            MultiStepParametricLIFNode,
        )

        with sj.installed():
            pass
        assert "spikingjelly" in sys.modules
        with pytest.raises(ModuleNotFoundError, match="datasets"):
            import spikingjelly.datasets  # noqa: F401
    assert not [name for name in sys.modules if name.startswith("spikingjelly")]
    assert cext_neuron.MultiStepIFNode(detach_reset=True).surrogate_function.alpha == 2.0
    assert isinstance(MultiStepParametricLIFNode(), nn.Module)
    assert MultiStepLIFNode and SeqToANNContainer


def test_what_neurons_of_published_code_import_beside_the_api():
    with sj.installed():
        import spikingjelly
        from spikingjelly import configure
        from spikingjelly.clock_driven import base, lava_exchange, surrogate  # noqa: F401

        assert spikingjelly.clock_driven.base is base
        assert spikingjelly.configure is configure
    assert configure.cuda_compiler_backend == "nvrtc"
    with pytest.raises(AttributeError, match="has no Lava; give backend='torch'"):
        lava_exchange.to_lava_neuron(None)


def test_arguments_by_place_of_clock_driven(old):
    clock_driven, _ = old
    node = clock_driven.neuron.MultiStepLIFNode(
        3.0, True, 0.5, None, clock_driven.surrogate.ATan(), True, "torch"
    )
    assert (node.tau, node.v_threshold, node.v_reset, node.detach_reset) == (3.0, 0.5, None, True)
    assert (node.backend, node.step_mode) == ("torch", "m")
    single = clock_driven.neuron.IFNode(0.5, 0.0, clock_driven.surrogate.ATan(), True, False)
    assert (single.v_threshold, single.step_mode, single.detach_reset) == (0.5, "s", True)


def test_membrane_of_one_sample_goes_on_in_a_batch_and_others_are_refused():
    with sj.installed():
        from spikingjelly.clock_driven.neuron import MultiStepLIFNode
    one, batch = torch.rand(1, 1, 5), 2 * torch.rand(3, 2, 5)
    node = MultiStepLIFNode(detach_reset=True)
    node(one)
    together = node(batch)
    for i in range(2):
        alone = MultiStepLIFNode(detach_reset=True)
        alone(one)
        assert torch.equal(alone(batch[:, i : i + 1]), together[:, i : i + 1])
    with pytest.raises(ValueError, match=r"shape \[2, 5\], a step of this one \[3, 5\].*reset_net"):
        node(torch.rand(3, 3, 5))


def test_spikingjelly_itself_is_not_replaced(monkeypatch):
    real = type(sys)("spikingjelly")
    monkeypatch.setitem(sys.modules, "spikingjelly", real)
    with pytest.raises(RuntimeError, match="imported already"):
        sj.install()
    sj.uninstall()
    assert sys.modules["spikingjelly"] is real


def test_defaults_of_both_versions(old):
    for version in old:
        for name in ("IFNode", "LIFNode", "ParametricLIFNode"):
            node = getattr(version.neuron, name)()
            assert (node.v_threshold, node.v_reset, node.detach_reset, node.v) == (
                1.0,
                0.0,
                False,
                0.0,
            )
            assert repr(node.surrogate_function) == "Sigmoid(alpha=4.0, spiking=True)"
        assert version.neuron.LIFNode().tau == 2.0
        assert version.neuron.LIFNode().decay_input is True
        alphas = {"ATan": 2.0, "Sigmoid": 4.0, "PiecewiseQuadratic": 1.0, "PiecewiseExp": 1.0}
        alphas |= {"SoftSign": 2.0, "Erf": 2.0, "QPseudoSpike": 2.0, "NonzeroSignLogAbs": 1.0}
        for name, alpha in alphas.items():
            assert getattr(version.surrogate, name)().alpha == alpha
        assert (version.neuron.QIFNode().v_reset, version.neuron.EIFNode().theta_rh) == (-0.1, 0.8)


def test_state_dict_holds_w_of_plif_and_nothing_else(old):
    for version in old:
        assert list(version.neuron.LIFNode().state_dict()) == []
        assert list(version.neuron.ParametricLIFNode(init_tau=3.0).state_dict()) == ["w"]
        tau = 1 / version.neuron.ParametricLIFNode(init_tau=3.0).w.sigmoid()
        assert tau.item() == pytest.approx(3.0)


def test_representations(old):
    clock_driven, activation_based = old
    with pytest.warns(UserWarning, match="'cupy' has no effect"):
        base.note_backend.cache_clear()
        node = clock_driven.neuron.MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy")
    assert node.extra_repr() == (
        "v_threshold=1.0, v_reset=0.0, detach_reset=True, tau=2.0, backend=cupy"
    )
    assert activation_based.neuron.LIFNode(step_mode="m").extra_repr() == (
        "v_threshold=1.0, v_reset=0.0, detach_reset=False, step_mode=m, backend=torch, tau=2.0"
    )
    with pytest.raises(ValueError, match="'lava' is not known"):
        activation_based.neuron.IFNode(backend="lava")


def test_membrane_lasts_until_reset_net(old):
    clock_driven, activation_based = old
    x = torch.full((3, 2), 0.4)
    for functional, node in (
        (clock_driven.functional, clock_driven.neuron.MultiStepIFNode()),
        (activation_based.functional, activation_based.neuron.IFNode(step_mode="m")),
    ):
        net = nn.Sequential(node)
        first, second = net(x), net(x)
        assert first[:, 0].tolist() == [0.0, 0.0, 1.0]
        assert torch.equal(second, first)
        net(x[:1])
        assert node.v.tolist() == pytest.approx([0.4, 0.4])
        assert net(x)[:, 0].tolist() == [0.0, 1.0, 0.0]
        functional.reset_net(net)
        assert node.v == 0.0
        assert torch.equal(net(x), first)


def test_reset_of_clock_driven_brings_thresholds_back(old):
    clock_driven, activation_based = old
    node = clock_driven.neuron.LIFNode()
    node.v_threshold = 0.25
    assert node(torch.ones(1)).item() == 1.0
    node.reset()
    assert node.v_threshold == 1.0
    node = activation_based.neuron.LIFNode()
    node.v_threshold = 0.25
    node.reset()
    assert node.v_threshold == 0.25


def test_other_neurons_and_surrogates_go_step_by_step(old):
    _, version = old

    class Decaying(version.neuron.BaseNode):
        def neuronal_charge(self, x):
            self.v = self.v * 0.5 + x

    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return (z >= 0).to(z)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    x = torch.rand(5, 3, dtype=torch.float64)
    ours = version.neuron.LIFNode(2.0, False, v_reset=None, step_mode="m", store_v_seq=True)
    own = Decaying(v_reset=None, step_mode="m", store_v_seq=True)
    assert torch.equal(own(x), ours(x))
    torch.testing.assert_close(own.v_seq, ours.v_seq, rtol=1e-12, atol=1e-12)
    assert own.as_rheobase() is None
    node = version.neuron.IFNode(surrogate_function=Straight.apply, step_mode="m")
    z = x.clone().requires_grad_()
    node(z).sum().backward()
    assert bool((z.grad > 0).any())


def test_detached_membranes_end_the_gradient(old):
    _, version = old
    node = version.neuron.IFNode()
    first = torch.full((1,), 0.25, requires_grad=True)
    node(first)
    version.functional.detach_net(node)
    node(torch.full((1,), 0.25, requires_grad=True)).sum().backward()
    assert first.grad is None


def test_step_modes_and_containers(old):
    clock_driven, version = old
    layer, functional = version.layer, version.functional
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        version.neuron.LIFNode(surrogate_function=version.surrogate.ATan()),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(4 * 4 * 4, 20),
        layer.VotingLayer(10),
    ).eval()
    x = torch.rand(3, 2, 2, 8, 8) * 4
    by_steps = torch.stack([net(step) for step in x])
    functional.reset_net(net)
    functional.set_step_mode(net, "m")
    assert net(x).shape == (3, 2, 2)
    functional.reset_net(net)
    torch.testing.assert_close(net(x), by_steps)
    assert "step_mode=m" in repr(net[0])
    plain = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)).eval()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k[0] in "01"})
    folded = clock_driven.layer.SeqToANNContainer(*plain)
    torch.testing.assert_close(folded(x), functional.seq_to_ann_forward(x, plain))
    torch.testing.assert_close(functional.multi_step_forward(x, plain), folded(x))
    torch.testing.assert_close(functional.chunk_multi_step_forward(2, x, folded), folded(x))
    with pytest.raises(ValueError, match="step_mode"):
        folded.step_mode = "s"


def test_step_mode_containers_are_left_alone(old):
    _, version = old
    node = version.neuron.IFNode()
    net = nn.Sequential(version.layer.StepModeContainer(True, node))
    version.functional.set_step_mode(net, "m")
    assert (net[0].step_mode, node.step_mode) == ("m", "s")
    assert net(torch.full((3, 1), 0.5)).flatten().tolist() == [0.0, 1.0, 0.0]


def test_dropout_keeps_its_mask_until_reset(old):
    clock_driven, version = old
    torch.manual_seed(0)
    for drop in (version.layer.Dropout(0.5, step_mode="m"), clock_driven.layer.MultiStepDropout()):
        x = torch.ones(4, 2, 64)
        first = drop(x)
        assert torch.equal(first, drop(x))
        assert torch.equal(first[0], first[3])
        assert sorted(first.unique().tolist()) == [0.0, 2.0]
        drop.reset()
        assert not torch.equal(first, drop(x))
        assert torch.equal(drop.eval()(x), x)


def test_threshold_dependent_norm_starts_at_alpha_times_threshold(old):
    _, version = old
    norm = version.layer.ThresholdDependentBatchNorm2d(0.5, 1.5, 3)
    assert norm.weight.tolist() == [0.75] * 3
    x = torch.randn(4, 2, 3, 5, 5)
    assert norm(x).std().item() == pytest.approx(0.75, abs=0.01)


def test_encoders(old):
    _, version = old
    encoding, x = version.encoding, torch.tensor([0.0, 0.5, 1.0])
    latency = encoding.LatencyEncoder(5)
    assert torch.stack([latency(x) for _ in range(5)]).argmax(0).tolist() == [4, 2, 0]
    assert latency(x).tolist() == [0.0, 0.0, 1.0]  # in turns
    phase = encoding.WeightedPhaseEncoder(3)
    assert torch.stack([phase(torch.tensor([0.625])) for _ in range(3)]).flatten().tolist() == [
        1.0, 0.0, 1.0,
    ]  # fmt: skip
    torch.manual_seed(0)
    rate = torch.stack([encoding.PoissonEncoder()(torch.full((500,), 0.3)) for _ in range(8)])
    assert rate.mean().item() == pytest.approx(0.3, abs=0.03)
    spikes = torch.eye(3)
    periodic = encoding.PeriodicEncoder(spikes)
    assert torch.equal(torch.stack([periodic() for _ in range(4)]), spikes[[0, 1, 2, 0]])


def test_tet_loss(old):
    _, version = old
    x, labels = torch.randn(4, 3, 5), torch.tensor([0, 3, 1])
    each = [nn.functional.cross_entropy(step, labels) for step in x]
    loss = version.functional.temporal_efficient_training_cross_entropy(x, labels)
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_a_network_of_old_code_trains(old):
    """As in the published scripts: forward, backward, step, ``reset_net``."""
    clock_driven, _ = old

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.bn = nn.BatchNorm1d(8)
            self.lif = clock_driven.neuron.MultiStepLIFNode(
                tau=2.0, detach_reset=True, backend="torch"
            )
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            T, B, _ = x.shape
            x = self.bn(self.fc(x.flatten(0, 1))).reshape(T, B, -1).contiguous()
            return self.head(self.lif(x * 3)).mean(0)

    torch.manual_seed(0)
    net, x = Block(), torch.randn(16, 8)
    labels = (x[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(x.unsqueeze(0).repeat(4, 1, 1)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock_driven.functional.reset_net(net)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
