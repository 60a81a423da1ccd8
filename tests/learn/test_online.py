from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.layers.sequential import TimeSequential
from rheobase.learn import OTTT, SLTT, LearningRule, Lesson, TruncatedBPTT, learning_rule
from rheobase.learn.traces import decay_of
from rheobase.neurons import (
    ALIF,
    CLIF,
    CUBALIF,
    DSRLIF,
    EIF,
    IF,
    KLIF,
    LIF,
    LSGLIF,
    PLIF,
    PSN,
    QIF,
    AdaptiveQIF,
    DietLIF,
    MultiThreshold,
    Neuron,
    PhysicalLIF,
)
from rheobase.ops import winograd
from rheobase.train import TET, cross_entropy_of_mean

EVERY_STEP = TET(lamb=0.0)


class Net(nn.Module):
    """Convolution, norm, neuron, pooling, linear, neuron, linear."""

    def __init__(self, norm: bool = False, make: Callable[[], nn.Module] = LIF) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1, dtype=torch.float64)
        self.norm = nn.BatchNorm2d(4, dtype=torch.float64) if norm else nn.Identity()
        self.hidden = nn.Linear(16, 8, dtype=torch.float64)
        self.head = nn.Linear(8, 3, dtype=torch.float64)
        self.first, self.second = make(), make()
        with torch.no_grad():  # so that both fire
            self.conv.weight.mul_(2.0)
            self.hidden.weight.mul_(8.0)

    def forward(self, x: Tensor) -> Tensor:
        x = over_time(x, self.conv, self.norm, self.first)
        x = over_time(x, nn.AvgPool2d(2), nn.Flatten(), self.hidden, self.second)
        return over_time(x, self.head)


def lesson(net: nn.Module, T: int = 6, seed: int = 1, loss: object = EVERY_STEP) -> Lesson:
    rng = torch.Generator().manual_seed(seed)
    x = 3.0 * torch.rand(T, 5, 1, 4, 4, generator=rng, dtype=torch.float64)
    return Lesson(net, x, torch.randint(3, (5,), generator=rng), loss)  # type: ignore[arg-type]


def gradients(rule: LearningRule | None, lesson: Lesson) -> dict[str, Tensor]:
    lesson.net.zero_grad()
    if rule is None:
        lesson.loss(lesson.net(lesson.inputs), lesson.target).backward()
    else:
        rule(lesson)
    return {name: p.grad.clone() for name, p in lesson.net.named_parameters()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-14, msg=name)


def test_one_piece_is_backpropagation_through_time() -> None:
    given = lesson(Net())
    assert_equal(gradients(TruncatedBPTT(6), given), gradients(None, given))
    shorter = gradients(TruncatedBPTT(2), given)
    assert not torch.allclose(shorter["conv.weight"], gradients(None, given)["conv.weight"])
    assert_equal(gradients(TruncatedBPTT(1), given), gradients(SLTT(), given))


@pytest.mark.parametrize("make", [lambda: LIF(tau=1.5), lambda: IF(v_reset=None)])
def test_ottt_is_the_sum_of_errors_times_traces(make: Callable[[], nn.Module]) -> None:
    """An independent reading of eqs. 6 to 9 of the paper, on a linear layer fed by neurons."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(5, 7), make(), nn.Linear(7, 6), make(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        net[0].weight.mul_(3.0)
        net[2].weight.mul_(3.0)
    x = 3.0 * torch.rand(8, 4, 5, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 1])
    ours = gradients(OTTT(), Lesson(net, x, target, EVERY_STEP))
    decay = 1.0 - 1.0 / 1.5 if isinstance(net[1], LIF) else 1.0
    (w1, b1), (w2, b2), (w3, b3) = ((m.weight.detach(), m.bias.detach()) for m in net[::2])
    with torch.no_grad():
        s1, h1 = net[1](x @ w1.T + b1, tap="h")
        s2, h2 = net[3](s1 @ w2.T + b2, tap="h")
    gain = 1.0 / 1.5 if isinstance(net[1], LIF) else 1.0
    trace = torch.zeros_like(s1[0])
    expected = torch.zeros_like(w2)
    first = torch.zeros_like(w1)
    for t in range(8):
        trace = decay * trace + s1[t]
        logits = s2[t] @ w3.T + b3
        error = (logits.softmax(-1) - nn.functional.one_hot(target, 3)) / (4 * 8)
        by_h2 = (error @ w3) * net[3].surrogate(h2[t] - 1.0) * gain
        expected += by_h2.T @ trace
        by_h1 = (by_h2 @ w2) * net[1].surrogate(h1[t] - 1.0) * gain
        first += by_h1.T @ x[t]
    assert 0.1 < float(s1.mean()) < 0.9 and float(s2.mean()) > 0.02
    torch.testing.assert_close(ours["2.weight"], expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(ours["0.weight"], first, rtol=1e-10, atol=1e-14)


def test_wide_convolutions_learn_from_traces_too() -> None:
    """Those that have a faster way than the layer's own forward (Winograd), on float32."""
    torch.manual_seed(3)
    conv, head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 3)
    net = TimeSequential(LIF(), conv, LIF(v_threshold=0.2), nn.AvgPool2d(16), nn.Flatten(), head)
    x = 2.0 * torch.rand(6, 4, 16, 16, 32).permute(0, 1, 4, 2, 3)  # channels last
    assert winograd.takes(x[0], conv)
    target = torch.tensor([0, 1, 2, 1])
    ours, spatial = (
        gradients(rule, Lesson(net, x, target, EVERY_STEP))["1.weight"] for rule in (OTTT(), SLTT())
    )
    expected = gradients(OTTT(), Lesson(net.double(), x.double(), target, EVERY_STEP))["1.weight"]
    assert (ours - expected).norm() < 1e-3 * expected.norm()
    assert (spatial - expected).norm() > 0.1 * expected.norm()


def test_a_frozen_first_layer_leaves_the_traces_of_later_ones() -> None:
    given = lesson(Net())
    whole = gradients(OTTT(), given)
    given.net.conv.requires_grad_(False)  # type: ignore[union-attr]
    given.net.zero_grad()
    OTTT()(given)
    torch.testing.assert_close(given.net.hidden.weight.grad, whole["hidden.weight"])  # type: ignore[union-attr]
    assert not given.net.conv.weight.requires_grad  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make",
    [
        LIF,
        lambda: PLIF(3.0),
        lambda: DietLIF(0.9),
        lambda: LSGLIF(0.4),
        lambda: ALIF(5.0),
        lambda: CLIF(3.0),
        DSRLIF,
    ],
    ids=["LIF", "PLIF", "DietLIF", "LSGLIF", "ALIF", "CLIF", "DSRLIF"],
)
def test_traces_decay_as_the_membrane_does(make: Callable[[], Neuron]) -> None:
    neuron = make()
    x = torch.tensor([[[0.01]], [[0.0]]])
    with torch.no_grad():
        first, second = neuron(x, tap="h")[1].flatten().tolist()
    assert decay_of(neuron) == pytest.approx(second / first, rel=1e-5)


@pytest.mark.parametrize(
    "make", [KLIF, CUBALIF, QIF, EIF, AdaptiveQIF, PhysicalLIF, lambda: PLIF(channels=4)]
)
def test_ottt_refuses_membranes_of_no_single_decay(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"has no single one; give decay="):
        OTTT().check(Net(make=make))


def test_ottt_can_move_the_weights_at_every_step() -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    updates = []

    def update() -> None:
        updates.append(float(net.head.weight.grad.norm()))  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()

    given = lesson(net)
    OTTT(every_step=True)(Lesson(net, given.inputs, given.target, given.loss, update=update))
    assert len(updates) == 5 and max(updates) > 0  # the last one is the training loop's
    with pytest.raises(ValueError, match="give the lesson an update"):
        OTTT(every_step=True)(given)


def test_sltt_k_learns_from_k_random_steps() -> None:
    given = lesson(Net())
    full = gradients(SLTT(), given)
    assert_equal(gradients(SLTT(k=6), given), full)
    torch.manual_seed(3)
    several = [gradients(SLTT(k=2), given)["head.weight"] for _ in range(400)]
    torch.testing.assert_close(
        torch.stack(several).mean(0), full["head.weight"] / 3, rtol=0.2, atol=3e-3
    )
    assert not torch.equal(several[0], several[1])
    with pytest.raises(ValueError, match=r"k=7 .* T=6"):
        SLTT(k=7)(given)


def saved_bytes(run: Callable[[], object]) -> int:
    """The most bytes that were saved for backward at one time."""
    now = most = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal now, most
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            now += self.size
            most = max(most, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        run()
    assert now == 0
    return most


@pytest.mark.parametrize("rule", [OTTT(), SLTT(), TruncatedBPTT(2)], ids=lambda r: type(r).__name__)
def test_memory_does_not_grow_with_the_number_of_steps(rule: LearningRule) -> None:
    net = Net()
    short, long = (saved_bytes(lambda T=T: rule(lesson(net, T))) for T in (4, 64))
    assert short > 0 and long == short
    whole = [saved_bytes(lambda T=T: gradients(None, lesson(net, T))) for T in (4, 64)]
    assert whole[1] > 10 * whole[0]


def test_batch_norm_takes_the_statistics_of_every_step() -> None:
    net = Net(norm=True)
    given = lesson(net)
    SLTT()(given)
    assert int(net.norm.num_batches_tracked) == 6  # type: ignore[arg-type]
    assert net.norm.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_a_network_that_looks_ahead_is_refused() -> None:
    for rule in (OTTT(), SLTT(), TruncatedBPTT(3)):
        name = type(rule).__name__
        with pytest.raises(ValueError, match=rf"{name} .* first \(PSN\) is not causal.*rule=bptt"):
            rule.check(Net(make=lambda: PSN(6)))
        with pytest.raises(ValueError, match="not causal"):
            rule(lesson(Net(make=lambda: PSN(6))))


def test_neurons_without_a_decay_need_one_given() -> None:
    with pytest.raises(ValueError, match="decay factor of MultiThreshold"):
        OTTT().check(Net(make=MultiThreshold))
    OTTT(decay=0.5).check(Net(make=MultiThreshold))


def test_nothing_is_left_behind() -> None:
    net = Net()
    before = net(lesson(net).inputs)
    OTTT()(lesson(net))
    assert not any("forward" in vars(m) for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(net(lesson(net).inputs), before)


def test_numbers_out_of_their_domain_are_refused() -> None:
    for make in (lambda: TruncatedBPTT(0), lambda: SLTT(0), lambda: OTTT(decay=2.0)):
        with pytest.raises(ValueError, match=r"as (steps|k|decay), got"):
            make()
    with pytest.raises(ValueError, match="unknown learning rule 'otttt'; did you mean 'ottt'"):
        learning_rule("otttt")
    with pytest.raises(ValueError, match="unknown option of sltt 'kk'"):
        learning_rule("sltt", kk=2)


def test_a_loss_of_the_mean_is_taken_step_by_step() -> None:
    given = lesson(Net(), loss=cross_entropy_of_mean)
    assert_equal(gradients(OTTT(), given), gradients(OTTT(), lesson(Net())))


def test_images_are_repeated() -> None:
    net, image = Net(), torch.rand(5, 1, 4, 4, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 1, 0])
    repeated = gradients(OTTT(), Lesson(net, image, target, EVERY_STEP, repeats=3))
    whole = gradients(OTTT(), Lesson(net, image.expand(3, *image.shape), target, EVERY_STEP))
    assert_equal(repeated, whole)
