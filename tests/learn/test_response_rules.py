"""Rules on spike-response networks, against autograd where theory says so, and their equations."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rheobase.learn import DECOLLE, EProp, Lesson, ReSuMe, SuperSpikeRule, Tempotron
from rheobase.models.spike_response_net import SpikeResponseConfig, SpikeResponseNet
from rheobase.surrogate import LinearDecay, SuperSpike
from rheobase.train import TET, cross_entropy_of_mean

EVERY_STEP = TET(lamb=0.0)


def build(readout: str, hidden: tuple[int, ...] = (6,), scale: float = 4.0, **layer: object):
    torch.manual_seed(0)
    last = {"recurrent": False, "adaptation": (0.0, 0.0)}
    if readout != "spikes":
        last["refractory"] = (0.0, 0.0)
    surrogate = (lambda: LinearDecay(0.3)) if readout == "potential" else SuperSpike
    config = SpikeResponseConfig(
        hidden, num_classes=3, inputs=5, T=12, readout=readout,
        layer={"decays": (0.8,), **layer}, last=last, surrogate=surrogate,
    )  # fmt: skip
    net = SpikeResponseNet(config).double()
    with torch.no_grad():
        for made in net.layers:
            made.weight.mul_(scale)
            made.bias.uniform_(0.0, 0.5)
    return net


def lesson(net: nn.Module, loss: object = EVERY_STEP, T: int = 12) -> Lesson:
    rng = torch.Generator().manual_seed(1)
    x = (torch.rand(T, 4, 5, generator=rng) < 0.4).double()
    return Lesson(net, x, torch.tensor([0, 1, 2, 1]), loss)  # type: ignore[arg-type]


def gradients(rule: object, lesson: Lesson) -> dict[str, Tensor]:
    lesson.net.zero_grad()
    rule(lesson)  # type: ignore[operator]
    return {name: p.grad.clone() for name, p in lesson.net.named_parameters() if p.grad is not None}


def backpropagated(lesson: Lesson) -> dict[str, Tensor]:
    return gradients(lambda given: given.loss(given.net(given.inputs), given.target).backward(),
                     lesson)  # fmt: skip


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-13, msg=name)
    assert all(g.abs().sum() > 0 for g in theirs.values())


@pytest.mark.parametrize("adaptation", [(0.0, 0.0), (0.95, 0.3)])
@pytest.mark.parametrize("decays", [(0.8,), (0.6, 0.8)])
def test_eprop_is_exact_without_recurrence(
    adaptation: tuple[float, float], decays: tuple[float, ...]
) -> None:
    net = build("potential", adaptation=adaptation, decays=decays)
    assert_equal(gradients(EProp(), lesson(net)), backpropagated(lesson(net)))


def test_eprop_of_recurrent_weights_is_the_sum_of_the_paper() -> None:
    """Eqs. 1, 22 and 23, written with loops over synapses."""
    net = build("potential", recurrent=True, adaptation=(0.9, 0.2))
    given = lesson(net)
    ours = gradients(EProp(), given)
    hidden, out = net.layers
    T, N, d = 12, 4, 0.8
    rho, beta = 0.9, 0.2
    state = hidden.start(given.inputs[0])
    expected = torch.zeros(6, 6).double()
    eps = torch.zeros(N, 6, 6).double()
    bar, y = torch.zeros(N, 6, 6).double(), torch.zeros(N, 6).double()
    with torch.no_grad():
        for t in range(T):
            response = hidden.step(given.inputs[t], state)
            state = response.state
            psi = 0.3 * (1.0 - response.z.abs()).clamp_min(0.0)
            p_own = state.recurrent[-1]
            e = psi[:, :, None] * (p_own[:, None, :] - beta * eps)
            eps = psi[:, :, None] * p_own[:, None, :] + (rho - psi[:, :, None] * beta) * eps
            bar = d * bar + e
            y = d * y + response.spikes
            logits = y @ out.weight.T + out.bias
            delta = (logits.softmax(-1) - nn.functional.one_hot(given.target, 3)) / (N * T)
            expected += ((delta @ out.weight)[:, :, None] * bar).sum(0)
    expected.fill_diagonal_(0.0)
    torch.testing.assert_close(ours["layers.0.recurrent"], expected, rtol=1e-10, atol=1e-14)
    whole = backpropagated(given)["layers.0.recurrent"]
    assert not torch.allclose(whole, expected)  # what spikes do through others is left out
    cosine = nn.functional.cosine_similarity(whole.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.5


def test_random_feedback_reaches_every_layer() -> None:
    net = build("potential", hidden=(6, 7))
    found = gradients(EProp("random"), lesson(net))
    assert set(found) == {name for name, _ in net.named_parameters()}
    again = gradients(EProp("random"), lesson(net))
    assert all(torch.equal(found[name], again[name]) for name in found)
    other = gradients(EProp("random", seed=5), lesson(net))
    assert not torch.equal(found["layers.0.weight"], other["layers.0.weight"])


@pytest.mark.parametrize("hidden", [(6, 7), (6, 6)])
def test_symmetric_feedback_to_a_deep_network_is_refused(hidden: tuple[int, ...]) -> None:
    """When the rule is prepared, and when it is called without; equal widths too."""
    for rule, readout in ((EProp(), "potential"), (SuperSpikeRule(), "spikes")):
        net = build(readout, hidden=hidden)
        for use in (rule.check, lambda net, rule=rule: rule(lesson(net))):
            with pytest.raises(ValueError, match="take feedback=random"):
                use(net)
    EProp("uniform").check(build("potential", hidden=hidden))
    for make in (EProp, lambda kind: SuperSpikeRule(feedback=kind)):
        with pytest.raises(ValueError, match="unknown feedback 'symetric'; did you mean 'symm"):
            make("symetric")


def van_rossum(logits: Tensor, desired: Tensor) -> Tensor:
    """Half the squared distance of spike trains behind a double exponential."""
    rise, decay = math.exp(-1 / 5.0), math.exp(-1 / 10.0)
    risen = value = torch.zeros_like(logits[0])
    total = torch.zeros(()).double()
    for t in range(logits.shape[0]):
        risen = rise * risen + logits[t] - desired[t]
        value = decay * value + risen
        total = total + 0.5 * value.square().sum()
    return total / logits.shape[1]


@pytest.mark.parametrize("decays", [(0.8,), (0.6, 0.8)])
def test_superspike_is_the_gradient_of_the_van_rossum_distance(decays: tuple[float, ...]) -> None:
    net = build("spikes", hidden=(), decays=decays)
    x = lesson(net).inputs
    desired = (torch.rand(12, 4, 3, generator=torch.Generator().manual_seed(2)) < 0.3).double()
    given = Lesson(net, x, desired, van_rossum)
    assert_equal(gradients(SuperSpikeRule(), given), backpropagated(given))
    torch.testing.assert_close(SuperSpikeRule()(given), van_rossum(net(x), desired).detach())


def test_superspike_of_hidden_layers_is_the_sum_of_the_paper() -> None:
    net = build("spikes")
    given = lesson(net)
    ours = gradients(SuperSpikeRule(period=4), given)
    hidden, out = net.layers
    desired = torch.zeros(12, 4, 3).double()
    for n, label in enumerate(given.target.tolist()):
        desired[3::4, n, label] = 1.0
    with torch.no_grad():
        u, s = hidden.respond(given.inputs)
        wrong = out(s) - desired
        pre = torch.zeros_like(given.inputs)
        pre[0] = given.inputs[0]
        for t in range(1, 12):
            pre[t] = 0.8 * pre[t - 1] + given.inputs[t]
        slope = hidden.surrogate(u - 1.0)
        rise, decay = math.exp(-1 / 5.0), math.exp(-1 / 10.0)
        kernel = [sum(rise**k * decay ** (n - k) for k in range(n + 1)) for n in range(12)]
        expected = torch.zeros(6, 5).double()
        for t in range(12):
            error = sum(kernel[t - a] * wrong[a] for a in range(t + 1)) @ out.weight / 4
            product = sum(
                kernel[t - a] * slope[a][:, :, None] * pre[a][:, None, :] for a in range(t + 1)
            )
            expected += (error[:, :, None] * product).sum(0)
    torch.testing.assert_close(ours["layers.0.weight"], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("feedback", ["symmetric", "random", "uniform"])
def test_feedbacks_of_superspike(feedback: str) -> None:
    found = gradients(SuperSpikeRule(feedback=feedback), lesson(build("spikes")))
    assert found["layers.0.weight"].abs().sum() > 0


def test_decolle_is_local_in_layers_and_time() -> None:
    """Each layer's gradient is autograd's through that layer alone, its traces given."""
    net = build("potential", hidden=(6, 7))
    given = lesson(net)
    rule = DECOLLE()
    ours = gradients(rule, given)
    x, net_layers = given.inputs, list(net.layers)
    for i, layer in enumerate(net_layers):
        w = layer.weight.detach().clone().requires_grad_()
        with torch.no_grad():
            u, s = layer.respond(x)
        total, trace = torch.zeros(()).double(), torch.zeros(4, x.shape[2]).double()
        for t in range(12):
            trace = 0.8 * trace + x[t]
            membrane = trace @ w.T
            membrane = membrane - membrane.detach() + u[t]
            if i < 2:
                slope = layer.surrogate(u[t] - 1.0)
                spikes = s[t] + slope * (membrane - membrane.detach())
                logits = spikes @ rule.readout(3, layer.out_features, i).double().T
            else:
                logits = membrane
            total = total + EVERY_STEP(logits.unsqueeze(0), given.target) / 12
        (expected,) = torch.autograd.grad(total, w)
        torch.testing.assert_close(ours[f"layers.{i}.weight"], expected, rtol=1e-10, atol=1e-14)
        x = s


def tempotron_cost(net: nn.Module, given: Lesson) -> float:
    with torch.no_grad():
        above = net(given.inputs)[0]  # the peak less the threshold
    own = nn.functional.one_hot(given.target, 3).bool()
    wrong = torch.where(own, (-above).clamp_min(0), above.clamp_min(0))
    return float(wrong.sum() / len(given.target))


def test_the_tempotron_goes_down_its_cost() -> None:
    net = build("peak", hidden=(), scale=1.5, decays=(0.5, 0.9), lagged=True)
    given = lesson(net)
    found = gradients(Tempotron(), given)
    weight = net.layers[0].weight
    for o in range(3):
        for i in range(5):
            costs = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    weight[o, i] += step
                costs.append(tempotron_cost(net, given))
                with torch.no_grad():
                    weight[o, i] -= step
            slope = (costs[0] - costs[1]) / 2e-6
            assert found["layers.0.weight"][o, i].item() == pytest.approx(slope, abs=1e-8)
    assert Tempotron()(given).item() == pytest.approx(tempotron_cost(net, given))


def test_the_tempotron_learns_random_patterns_to_the_last() -> None:
    """Its known task: random latency patterns, classified by firing or not."""
    torch.manual_seed(3)
    config = SpikeResponseConfig(
        (), num_classes=2, inputs=60, T=50, readout="peak",
        layer={"decays": (math.exp(-4 / 15), math.exp(-1 / 15)), "lagged": True,
               "gains": (1.0, 0.36), "refractory": (0.0, 0.0), "bias": False},
    )  # fmt: skip
    net = SpikeResponseNet(config)
    x = torch.zeros(50, 40, 60).scatter_(0, torch.randint(50, (1, 40, 60)), 1.0)
    given = Lesson(net, x, torch.randint(2, (40,)), cross_entropy_of_mean)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    for _ in range(200):
        optimizer.zero_grad()
        Tempotron()(given)
        optimizer.step()
    fires = net(x)[0] >= 0
    assert torch.equal(fires, nn.functional.one_hot(given.target, 2).bool())


def test_resume_changes_weights_at_desired_and_fired_spikes() -> None:
    net = build("spikes", hidden=())
    given = lesson(net)
    ours = gradients(ReSuMe(tau=5.0, a=0.1, period=4), given)
    desired = torch.zeros(12, 4, 3).double()
    for n, label in enumerate(given.target.tolist()):
        desired[3::4, n, label] = 1.0
    with torch.no_grad():
        missing = desired - net(given.inputs)
    expected = torch.zeros(3, 5).double()
    for n in range(4):
        for o in range(3):
            for t in range(12):
                for i in range(5):
                    past = sum(math.exp(-(t - a) / 5.0) * given.inputs[a, n, i].item()
                               for a in range(t + 1))  # fmt: skip
                    expected[o, i] -= missing[t, n, o] * (0.1 + past) / 4
    torch.testing.assert_close(ours["layers.0.weight"], expected, rtol=1e-10, atol=1e-13)
    assert set(ours) == {"layers.0.weight"}  # the bias stays


@pytest.mark.parametrize("rule", [ReSuMe(tau=3.0, a=0.0), SuperSpikeRule()],
                         ids=lambda r: type(r).__name__)  # fmt: skip
def test_a_layer_learns_to_fire_at_given_times(rule: object) -> None:
    torch.manual_seed(4)
    config = SpikeResponseConfig(
        (), num_classes=1, inputs=150, T=80,
        layer={"decays": (math.exp(-1 / 2), math.exp(-1 / 5)), "refractory": (0.8, 1.0),
               "bias": False},
    )  # fmt: skip
    net = SpikeResponseNet(config)
    x = (torch.rand(80, 1, 150) < 0.02).float()
    desired = torch.zeros(80, 1, 1)
    desired[[20, 41, 63]] = 1.0
    given = Lesson(net, x, desired, cross_entropy_of_mean)
    exact = isinstance(rule, ReSuMe)
    sgd, adam = torch.optim.SGD, torch.optim.Adam
    optimizer = (sgd if exact else adam)(net.parameters(), lr=0.01)
    with torch.no_grad():
        first = float(van_rossum(net(x).double(), desired.double()))
    for _ in range(200):
        optimizer.zero_grad()
        rule(given)  # type: ignore[operator]
        optimizer.step()
    with torch.no_grad():
        fired = net(x)
    assert float(van_rossum(fired.double(), desired.double())) < 0.5 * first
    if exact:
        times = fired.flatten().nonzero().flatten().tolist()
        assert len(times) == 3
        assert all(abs(a - b) <= 1 for a, b in zip(times, [20, 41, 63], strict=True))


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors alive at once that are no views of given ones."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.ignored = given.untyped_storage().data_ptr()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() != self.ignored:
                size = tensor.numel() * tensor.element_size()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(tensor, self.free, size)
        return out

    def free(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize(
    "rule", [EProp(), DECOLLE(), SuperSpikeRule()], ids=lambda r: type(r).__name__
)
def test_memory_does_not_grow_with_the_number_of_steps(rule: object) -> None:
    def most(T: int) -> int:
        local = isinstance(rule, SuperSpikeRule)
        net = build("spikes", hidden=()) if local else build("potential", recurrent=True)
        given = lesson(net, T=T)
        if local:  # what is desired is given, and no memory of the rule
            given = replace(given, target=torch.zeros(T, 4, 3).double())
        with LiveBytes(given.inputs) as seen:
            rule(given)  # type: ignore[operator]
        return seen.peak

    short, long = most(8), most(64)
    assert 0 < long < 1.2 * short


def test_another_network_is_refused() -> None:
    with pytest.raises(TypeError, match="spike-response layers, got Linear"):
        EProp().check(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="readout 'potential', this one has 'spikes'"):
        DECOLLE().check(build("spikes"))
    with pytest.raises(ValueError, match="trains one layer"):
        ReSuMe().check(build("spikes"))
    with pytest.raises(ValueError, match="desired spikes are labels"):
        SuperSpikeRule()(Lesson(build("spikes"), lesson(build("spikes")).inputs,
                                torch.zeros(3, 4, 3), EVERY_STEP))  # fmt: skip
