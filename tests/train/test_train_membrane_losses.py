"""Losses on membranes, STCA and distillation, by themselves and in a training run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from train_toys import CLASSES, config, images

from rheobase.layers import over_time, repeat
from rheobase.neurons import DSRIF, LIF, Membrane, TandemIF, record_membranes
from rheobase.train import (
    STCA,
    Distillation,
    MembraneTerm,
    MPDLoss,
    Objective,
    Trainer,
    cross_entropy_of_mean,
    im_loss,
    rmp_loss,
    train,
)
from rheobase.train.config import LossConfig, ModelConfig, TeacherConfig
from rheobase.train.losses import build_objective

# Compiles many kernels.
pytestmark = pytest.mark.long


class SpikingNet(nn.Module):
    """Convolution, norm, neuron, linear over four steps."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.neuron = LIF()
        self.head = nn.Linear(54, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neuron(over_time(repeat(x, 4), self.conv, self.norm))
        return over_time(spikes.flatten(2), self.head)


def membrane(h: Tensor, threshold: float = 1.0) -> Membrane:
    return Membrane("n", h, (h >= threshold).float(), threshold)


def test_im_loss_is_the_squared_distance_of_the_mean_averaged_over_layers() -> None:
    layers = [membrane(torch.tensor([[[0.0, 1.0]]])), membrane(torch.full((2, 3, 4), 0.2), 0.5)]
    assert im_loss(layers).item() == pytest.approx((0.25 + 0.09) / 2)


def test_im_loss_of_one_step_is_that_of_the_released_code() -> None:
    """There (input.mean() - 0.5 / T) ** 2 of what neurons of threshold 1/2 are given."""
    currents = torch.randn(1, 5, 3, 4, 4)
    net = nn.Sequential(LIF(4 / 3, decay_input=False, v_threshold=0.5, strict=True))
    with record_membranes(net) as found:
        net(currents)
    assert im_loss(found).item() == pytest.approx((currents.mean().item() - 0.5) ** 2, rel=1e-5)


def test_rmp_loss_pulls_membranes_to_their_spikes() -> None:
    h = torch.tensor([[[0.25, 1.5, 1.0]]], requires_grad=True)
    loss = rmp_loss([membrane(h)])
    assert loss.item() == pytest.approx((0.0625 + 0.25) / 3)
    (gradient,) = torch.autograd.grad(loss, h)
    torch.testing.assert_close(gradient, torch.tensor([[[0.5, 1.0, 0.0]]]) / 3)


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (1.0, 0.5, 0.0),  # spread over the threshold, inside and outside the gradient
        (3.0, 0.5, (2.0 - 2 * 0.5) ** 2),  # degenerate: |m| - 2 d
        (1.0, 2.0, (0.6745 * 2.0 - 0.5) ** 2),  # saturated: k_s d - w
        (1.0, 0.1, (0.5 - 0.2) ** 2),  # mismatched: w - 2 d
    ],
)
def test_mpd_loss_is_three_hinges(mean: float, deviation: float, expected: float) -> None:
    h = torch.tensor([mean - deviation, mean + deviation]).view(2, 1, 1).expand(2, 4, 3)
    assert MPDLoss()([membrane(h)]).item() == pytest.approx(expected, abs=1e-5)


def test_mpd_loss_looks_at_every_channel() -> None:
    h = torch.zeros(4, 5, 2, 3, 3)
    h[:, :, 0] = 3.0
    h[:, :, 1] = -2.0
    assert MPDLoss()([membrane(h)]).item() == pytest.approx((4.0 + 9.0) / 2, rel=1e-4)
    constant = torch.full((2, 3, 4), 2.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(MPDLoss()([membrane(constant)]), constant)
    assert gradient.isfinite().all()


def test_a_membrane_loss_needs_neurons() -> None:
    net, x = nn.Linear(3, 2), torch.rand(4, 5, 3)
    objective = Objective(cross_entropy_of_mean, [MembraneTerm(im_loss)])
    with pytest.raises(ValueError, match="needs a network with neurons"):
        objective(net, net, x, torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("neuron", [DSRIF(), TandemIF()], ids=["DSR", "tandem"])
def test_a_membrane_loss_needs_membranes_with_a_gradient(neuron: nn.Module) -> None:
    net, x = nn.Sequential(nn.Linear(3, 2), neuron), torch.rand(4, 5, 3)
    objective = Objective(cross_entropy_of_mean, [MembraneTerm(im_loss)])
    with pytest.raises(ValueError, match="would change nothing"):
        objective(net, net, x, torch.zeros(5, dtype=torch.int64))


def test_stca_credits_single_moments() -> None:
    logits = torch.tensor([[0.2, 0.5], [0.7, 1.5], [0.1, 1.2]]).unsqueeze(1).requires_grad_()
    loss = STCA()(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.3 + 0.2)  # the cluster's last spike, at 1.2
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.squeeze(1).tolist() == [[0, 0], [-1, 0], [0, 1]]
    assert STCA()(logits, torch.tensor([1])).item() == 0.0
    # Nowhere could a second cluster begin; with a gap of 0 every spike is one.
    assert STCA(count=2)(logits, torch.tensor([1])).item() == 0.0
    assert STCA(count=3, gap=0)(logits, torch.tensor([1])).item() == pytest.approx(0.5)


def credited(v: list[float], wanted: int, gap: int) -> tuple[float, int | None]:
    """The paper's rule for one output, by its definitions: its loss, and the step that pays."""
    spikes = [t for t, value in enumerate(v) if value >= 1.0]
    clusters: list[list[int]] = []
    for t in spikes:
        if clusters and t - clusters[-1][-1] <= gap:
            clusters[-1].append(t)
        else:
            clusters.append([t])
    free = [t for t in range(len(v)) if all(abs(t - s) > gap for s in spikes)]
    if len(clusters) < wanted and free:
        step = max(free, key=lambda t: v[t])
        return 1.0 - v[step], step
    if len(clusters) > wanted:
        step = min(clusters, key=len)[-1]
        return v[step] - 1.0, step
    return 0.0, None


@pytest.mark.parametrize("count, gap", [(1, 1), (2, 1), (1, 2), (3, 0)])
def test_stca_is_the_papers_rule_on_spike_clusters(count: int, gap: int) -> None:
    torch.manual_seed(gap)
    logits = (0.6 + torch.randn(9, 40, 3, dtype=torch.float64)).requires_grad_()
    target = torch.randint(3, (40,))
    loss = STCA(count=count, gap=gap)(logits, target)
    expected, gradient = 0.0, torch.zeros_like(logits)
    for n in range(40):
        for c in range(3):
            wanted = count if c == target[n] else 0
            value, step = credited(logits[:, n, c].tolist(), wanted, gap)
            expected += value / 40
            if step is not None:
                gradient[step, n, c] = (1.0 if logits[step, n, c] >= 1.0 else -1.0) / 40
    assert loss.item() == pytest.approx(expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], gradient)


def test_stca_says_what_it_takes() -> None:
    with pytest.raises(ValueError, match="losses take every time step"):
        STCA()(torch.zeros(2, 5), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no mixup"):
        STCA()(torch.zeros(3, 2, 5), torch.full((2, 5), 0.2))
    with pytest.raises(ValueError, match="at least 1 as count, got 0"):
        STCA(count=0)


class Twin(nn.Module):
    """An ordinary network with the student's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.student = SpikingNet(1)

    def forward(self, x: Tensor) -> Tensor:
        student = self.student
        return student.head(torch.relu(student.norm(student.conv(x))).flatten(1))


def value_of(term: Distillation, net: nn.Module, x: Tensor) -> Tensor:
    with term.watching(net, x) as value:
        logits = net(x)
    return value(logits)


def test_distillation_of_logits_is_the_divergence_at_a_temperature() -> None:
    net, teacher, x = SpikingNet(), Twin(), torch.rand(3, 1, 8, 8)
    term = Distillation(teacher, alpha=0.5, temperature=2.0)
    found = value_of(term, net, x)
    ours = (net(x).mean(0) / 2).softmax(-1)
    theirs = (teacher(x) / 2).softmax(-1)
    expected = 0.5 * (theirs * (theirs / ours).log()).sum(-1).mean()
    torch.testing.assert_close(found, expected)
    found.backward()
    assert net.head.weight.grad is not None
    assert all(p.grad is None for p in teacher.parameters())


class WithDoubled(SpikingNet):
    """With a head besides its output."""

    def __init__(self) -> None:
        super().__init__()
        self.doubled = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        self.doubled(2.0 * logits)
        return logits


def test_a_hard_teacher_names_a_class_for_a_head_of_its_own() -> None:
    net, teacher, x = SpikingNet().eval(), Twin(), torch.rand(3, 1, 8, 8)
    net.head_kd = nn.Linear(net.head.in_features, net.head.out_features)
    value = value_of(Distillation(teacher, alpha=2.0, hard=True), net, x)
    named = teacher(x).argmax(-1)
    torch.testing.assert_close(value, 2.0 * F.cross_entropy(net(x).mean(0), named))
    target = torch.tensor([0, 1, 2])
    objective = Objective(cross_entropy_of_mean, head="doubled")
    net = WithDoubled().eval()
    judged = objective(net, net, x, target)
    torch.testing.assert_close(judged, objective.loss(2.0 * net(x), target))
    with pytest.raises(AttributeError, match="nothing"):
        Objective(cross_entropy_of_mean, head="nothing")(net, net, x, target)


def test_distillation_of_features_compares_means_over_time() -> None:
    net, x = SpikingNet().eval(), torch.rand(3, 1, 8, 8)
    pairs = {"conv": "student.conv", "neuron": "student.norm"}
    term = Distillation(Twin(), alpha=0.0, beta=2.0, features=pairs)
    twin = term.teacher.student
    spikes = net.neuron(over_time(repeat(x, 4), net.conv, net.norm))
    images_ = net.conv(x) - twin.conv(x)
    means = spikes.mean(0) - twin.norm(twin.conv(x))
    expected = 2.0 * (images_.square().mean() + means.square().mean())
    # The student sees each image at every step, so that its convolution gives [T * N, ...].
    moving = SeesSteps(net)
    pairs = {f"net.{ours}": theirs for ours, theirs in pairs.items()}
    term.features = pairs
    torch.testing.assert_close(value_of(term, moving, x), expected)


class SeesSteps(nn.Module):
    """Gives a network a sequence that is not known to be a repetition."""

    def __init__(self, net: SpikingNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        sequence = repeat(x, 4).contiguous()
        net = self.net
        spikes = net.neuron(over_time(sequence, net.conv, net.norm))
        return over_time(spikes.flatten(2), net.head)


def test_a_spiking_teacher_is_averaged_too() -> None:
    net, x = SpikingNet(), torch.rand(3, 1, 8, 8)
    term = Distillation(SpikingNet(), beta=1.0, features={"neuron": "neuron"})
    net.eval()
    assert value_of(term, net, x).item() == pytest.approx(0.0, abs=1e-6)


def test_distillation_names_what_does_not_fit() -> None:
    x = torch.rand(3, 1, 8, 8)
    with pytest.raises(ValueError, match="above 0 as temperature, got 0"):
        Distillation(Twin(), temperature=0.0)
    with pytest.raises(ValueError, match=r"features of 'head' are \[3, 4\]"):
        value_of(Distillation(Twin(), features={"head": "student.conv"}), SpikingNet(), x)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    with pytest.raises(ValueError, match=r"teacher's logits are \[3, 9\], the student's \[3, 4\]"):
        value_of(Distillation(wide), SpikingNet(), x)
    with pytest.raises(AttributeError, match="nothing"):
        value_of(Distillation(Twin(), features={"nothing": "student.conv"}), SpikingNet(), x)


def test_weights_follow_the_course_of_training() -> None:
    net, x, target = SpikingNet(), torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    objective = build_objective(LossConfig(membrane="rmp", membrane_weight=2.0))
    plain = objective.loss(net(x), target)
    with MembraneTerm(rmp_loss).watching(net, x) as value:
        penalty = value(net(x))
    for fraction in (0.0, 0.5, 1.0):
        objective.set_progress(fraction)
        torch.testing.assert_close(objective(net, net, x, target), plain + 2 * fraction * penalty)


@pytest.mark.parametrize("membrane_loss", ["im", "mpd", "rmp"])
def test_a_run_with_a_membrane_loss_lowers_it(tmp_path: Path, membrane_loss: str) -> None:
    loss = LossConfig(membrane=membrane_loss, membrane_weight=5.0)  # type: ignore[arg-type]
    found = {}
    for name, cfg in (("with", loss), ("without", LossConfig())):
        net, data = SpikingNet(), images(64)
        nn.init.constant_(net.norm.weight, 0.1)  # far below the threshold at first
        train(config(tmp_path / name, loss=cfg, epochs=6), net, data, data)
        objective = build_objective(loss)
        objective.set_progress(1.0)
        inputs, labels = data.tensors
        with torch.no_grad():
            found[name] = float(
                objective(net, net, inputs, labels) - objective.loss(net(inputs), labels)
            )
    assert found["with"] < found["without"]


def test_a_run_learns_from_the_run_of_a_teacher(tmp_path: Path) -> None:
    overrides = {"depth": 1, "dim": 16, "heads": 2, "channels": 1, "num_classes": CLASSES}
    teacher = ModelConfig("spikformer_ann_cifar10_4_256", overrides)
    small, labels = images(32).tensors
    bigger = TensorDataset(F.interpolate(small, 16), labels)
    train(config(tmp_path / "teacher", model=teacher, epochs=1), None, bigger, bigger)
    student = ModelConfig("spikformer_cifar10_4_256", overrides)
    loss = LossConfig(
        teacher=TeacherConfig(run=str(tmp_path / "teacher"), beta=0.1, features={"stem": "stem"})
    )
    cfg = config(tmp_path / "student", model=student, loss=loss, epochs=1)
    trainer = Trainer(cfg, None, bigger, bigger)
    try:
        losses = [event.values["loss"] for event in trainer.events() if event.kind == "step"]
    finally:
        trainer.close()
    assert all(math.isfinite(value) for value in losses)
    with pytest.raises(FileNotFoundError):
        build_objective(LossConfig(teacher=TeacherConfig(run=str(tmp_path / "nowhere"))))
