"""Norms over a whole sequence: their calling convention, statistics, folding and streaming."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import rheobase
from rheobase.layers import (
    BGN,
    BNTT,
    MPBN,
    TAB,
    TEBN,
    NeuNorm,
    ThresholdDependentBatchNorm2d,
    norms,
    over_time,
    repeat,
)
from rheobase.layers.norms import FusedNormNeuron
from rheobase.layers.sync_norm import convert_sync_batchnorm
from rheobase.neurons import LIF
from rheobase.ops.scan import use_backend
from rheobase.surrogate import Dspike

# Compiles many kernels.
pytestmark = pytest.mark.long

T, N, C = 4, 6, 8
MAKERS = {
    "tdBN": lambda: ThresholdDependentBatchNorm2d(C, 0.5, 0.7),
    "BNTT": lambda: BNTT(C, T),
    "TEBN": lambda: TEBN(C, T),
    "TAB": lambda: TAB(C, T),
    "BGN": lambda: BGN(C, groups=2),
}
OF_EACH_STEP = ["BNTT", "TAB"]


def sequence(seed: int = 0) -> Tensor:
    return torch.randn(T, N, C, 5, 5, generator=torch.Generator().manual_seed(seed)).double()


def trained(norm: nn.Module) -> nn.Module:
    """With parameters of both signs and running statistics that are not the initial ones."""
    torch.manual_seed(1)
    norm.double()
    for parameter in norm.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    for seed in range(3):
        over_time(1.5 * sequence(seed) + 0.3, norm)
    return norm.eval()


@pytest.mark.parametrize("name", MAKERS)
def test_fold_gives_the_same_spikes(name: str) -> None:
    norm, x = trained(MAKERS[name]()), sequence(9)
    neuron, before = LIF(), over_time(x, norm)
    norm.fold()
    torch.testing.assert_close(over_time(x, norm), before, rtol=1e-12, atol=1e-12)
    assert torch.equal(neuron(over_time(x, norm)), neuron(before))
    assert list(norm.parameters()) == []
    with pytest.raises(ValueError, match="folded already"):
        norm.fold()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["tdBN", "TEBN", "BGN"])
def test_fold_into_the_layer_before(name: str, bias: bool) -> None:
    norm = trained(MAKERS[name]())
    conv = nn.Conv2d(C, C, 3, padding=1, bias=bias).double()
    x, neuron = sequence(9), LIF()
    before = over_time(x, conv, norm)
    norm.fold(conv)
    after = over_time(x, conv, norm)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
    assert torch.equal(neuron(after), neuron(before))


def test_fold_says_what_cannot_be() -> None:
    for name in OF_EACH_STEP:
        with pytest.raises(ValueError, match="differs from step to step"):
            MAKERS[name]().fold(nn.Conv2d(C, C, 3))
    with pytest.raises(TypeError, match="not MaxPool2d"):
        TEBN(C, T).fold(nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"8 channels, the layer 4 outputs"):
        TEBN(C, T).fold(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="keeps a trace of past spikes"):
        NeuNorm((C, 5, 5)).fold()


@pytest.mark.parametrize("name", MAKERS)
def test_failed_fold_leaves_the_norm_as_it_was(name: str) -> None:
    norm = trained(MAKERS[name]())
    before = over_time(sequence(), norm)
    with pytest.raises((TypeError, ValueError)):
        norm.fold(nn.Linear(3, C + 1))
    assert torch.equal(over_time(sequence(), norm), before)


@pytest.mark.parametrize("name", ["BNTT", "TEBN", "TAB"])
def test_another_number_of_steps_is_refused_by_name(name: str) -> None:
    for norm in (MAKERS[name](), trained(MAKERS[name]())):
        with pytest.raises(ValueError, match=rf"{name} was made for T=4 .* given T=3"):
            norm(sequence()[:3])


@pytest.mark.parametrize("name", [*MAKERS, "NeuNorm"])
def test_halves_stay_halves_by_float32_parameters(name: str) -> None:
    norm = NeuNorm((C, 5, 5)) if name == "NeuNorm" else MAKERS[name]()
    x = sequence().bfloat16()
    assert over_time(x, norm).dtype == torch.bfloat16
    if name != "NeuNorm":
        norm.fold()
        assert over_time(x, norm).dtype == torch.bfloat16


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_tdbn_refuses_a_threshold_that_is_none(threshold: float) -> None:
    with pytest.raises(ValueError, match="finite number above 0 as v_threshold"):
        ThresholdDependentBatchNorm2d(C, threshold)


@pytest.mark.parametrize("name", ["BNTT", "TEBN", "TAB", "BGN"])
def test_another_number_of_channels_or_axes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"8 channels.*has 5"):
        MAKERS[name]()(torch.zeros(T, N, 5, 3, 3))
    with pytest.raises(ValueError, match=r"\[T, N, C, \.\.\.\].*got shape \[6, 8\]"):
        MAKERS[name]()(torch.zeros(N, C))


def _fused() -> FusedNormNeuron:
    norm = trained(MAKERS["BGN"]())
    norm.fold()
    return FusedNormNeuron(norm, LIF())


# In evaluation mode each of these is fed in pieces.
STREAMING = {name: lambda make=make: trained(make()) for name, make in MAKERS.items()} | {
    "NeuNorm": lambda: NeuNorm((C, 5, 5)).double().eval(),
    "MPBN": lambda: trained(MPBN(C)),
    "FusedNormNeuron": _fused,
}


def test_no_norm_is_left_out() -> None:
    assert {type(make()) for make in STREAMING.values()} == {
        getattr(norms, name) for name in norms.__all__
    }


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", STREAMING)
def test_norms_stream_in_evaluation(name: str, folded: bool) -> None:
    if folded and name in ("NeuNorm", "FusedNormNeuron"):
        pytest.skip("does not fold, or is folded as it is")
    norm, x = STREAMING[name](), sequence(9)
    if folded:
        norm.fold()
    expected = over_time(x, norm)
    assert not torch.equal(expected, x)
    with rheobase.streaming(norm) as stream:
        pieces = [over_time(piece, norm) for piece in (x[:1], x[1:3], x[3:])]
        assert torch.equal(torch.cat(pieces), expected)
        if name in ("BNTT", "TEBN", "TAB"):
            with pytest.raises(ValueError, match=r"made for T=4 .* given T=5"):
                norm(x[:1])
        stream.reset()
        assert torch.equal(over_time(x, norm), expected)


@pytest.mark.parametrize("name", ["BNTT", "TEBN", "TAB", "BGN"])
def test_streaming_in_training_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="training mode"), rheobase.streaming(MAKERS[name]()):
        pass


def test_neunorm_streams_in_both_modes() -> None:
    norm, x = NeuNorm((C, 5, 5)).double(), (sequence() > 0).double()
    with rheobase.streaming(norm):
        pieces = torch.cat([norm(x[:1]), norm(x[1:3]), norm(x[3:])])
    assert torch.equal(pieces, norm(x))
    with pytest.raises(ValueError, match=r"\(8, 5, 5\), input is \(8, 5, 4\)"):
        norm(x[..., :4])


def test_neunorm_is_its_recurrence() -> None:
    norm, x = NeuNorm((2, 1, 1), k=0.5, shared=True), torch.ones(3, 1, 2, 1, 1)
    nn.init.ones_(norm.w)
    assert norm.w.shape == (1, 1, 1)
    # m = 0.5 m + 0.5 / 4 * 2
    assert norm(x)[:, 0, 0, 0, 0].tolist() == [0.75, 0.625, 0.5625]


def test_bntt_is_a_batch_norm_without_shift_at_every_step() -> None:
    norm, x = BNTT(C, T).double(), sequence()
    plain = [nn.BatchNorm2d(C, eps=1e-4).double() for _ in range(T)]
    expected = torch.stack([bn(step) for bn, step in zip(plain, x, strict=True)])
    torch.testing.assert_close(norm(x), expected)
    assert [name for name, _ in norm.named_parameters()] == [f"bn.{t}.weight" for t in range(T)]


def test_tab_normalises_by_the_steps_so_far() -> None:
    norm, x = TAB(C, T).double(), sequence()
    nn.init.constant_(norm.p, -2.0)
    y = norm(x)
    for t in range(T):
        past = x[: t + 1].transpose(1, 2).flatten(2)  # [t + 1, C, N * H * W]
        mean, variance = past.mean((0, 2)), past.var((0, 2), correction=0)
        normal = (x[t] - mean.view(-1, 1, 1)) / (variance + 1e-5).sqrt().view(-1, 1, 1)
        torch.testing.assert_close(y[t], 4.0 * normal)
    torch.testing.assert_close(norm.bn[1].running_mean, 0.1 * x[:2].mean((0, 1, 3, 4)))


def test_bgn_is_batch_norm_where_every_channel_is_a_group() -> None:
    x, norm, plain = sequence(), BGN(C, groups=C).double(), nn.BatchNorm2d(C).double()
    torch.testing.assert_close(norm(x), over_time(x, plain))
    one = BGN(C, groups=1).double()(x)
    torch.testing.assert_close(one, (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt())
    with pytest.raises(ValueError, match="groups=3 does not divide channels=8"):
        BGN(C, groups=3)


def test_bgn_is_its_equation() -> None:
    torch.manual_seed(0)
    norm, x = BGN(6, groups=2).double(), torch.randn(3, 4, 6, 5, 5, dtype=torch.float64) + 0.5
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = torch.empty_like(x)
    for group in (slice(0, 3), slice(3, 6)):
        of_group = x[:, :, group]
        mean, variance = of_group.mean(), of_group.var(correction=0)
        expected[:, :, group] = (of_group - mean) / (variance + 1e-5).sqrt()
    expected = expected * norm.weight.view(6, 1, 1) + norm.bias.view(6, 1, 1)
    torch.testing.assert_close(norm(x), expected)


def test_over_time_hands_the_sequence_to_what_knows_time() -> None:
    conv, norm, neuron, x = nn.Conv2d(C, C, 3).double(), TEBN(C, T).double(), LIF(), sequence()
    expected = neuron(norm(over_time(x, conv)))
    assert torch.equal(over_time(x, conv, norm, neuron), expected)


def test_a_repeated_image_is_still_convolved_once() -> None:
    conv, norm = nn.Conv2d(C, C, 3).double(), TEBN(C, T).double()
    shapes = []
    conv.register_forward_hook(lambda _m, inputs, _out: shapes.append(inputs[0].shape[0]))
    assert over_time(repeat(sequence()[0], T), conv, norm).shape[:2] == (T, N)
    assert shapes == [N]


@pytest.mark.parametrize("name", ["BNTT", "TEBN", "TAB", "BGN"])
def test_they_can_be_synchronised(name: str) -> None:
    norm, x = MAKERS[name]().double(), sequence()
    expected = copy.deepcopy(norm)(x)
    assert torch.equal(convert_sync_batchnorm(norm)(x), expected)


def mpbn(**options: object) -> MPBN:
    neuron = trained(MPBN(C, **options))
    neuron.bn.weight.data[0] = 0.0
    neuron.bn.bias.data[:2] = torch.tensor([5.0, 0.2])
    return neuron


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        {"membrane": "raw"},
        {"membrane": "raw", "learn_threshold": True},
        {"membrane": "normalised", "v_reset": -0.2},
        {"membrane": "normalised", "v_reset": None, "learn_threshold": True},
    ],
    ids=str,
)
def test_mpbn_folds_exactly(how: dict[str, object], decay_input: bool, strict: bool) -> None:
    neuron, x = mpbn(decay_input=decay_input, strict=strict, tau=1.7, **how), 2 * sequence(9)
    assert (neuron.bn.weight < 0).any()
    assert (neuron.bn.weight == 0).any()
    with use_backend("reference"):  # every combination compiled would take minutes
        expected = neuron(x)
        assert 0.05 < expected.mean() < 0.95
        neuron.fold()
        assert torch.equal(neuron(x), expected)
        with rheobase.streaming(neuron):
            assert torch.equal(torch.cat([neuron(x[:1]), neuron(x[1:])]), expected)
    assert list(neuron.parameters()) == []
    with pytest.raises(ValueError, match="folded already"):
        neuron.fold()


def test_mpbn_folds_to_thresholds_alone() -> None:
    neuron = mpbn(v_threshold=0.5, strict=True, tau=4 / 3, decay_input=False, surrogate=Dspike(3.0))
    norm = copy.deepcopy(neuron.bn)
    neuron.fold()
    signs = torch.where(norm.weight < 0, -1.0, 1.0)
    assert torch.equal(neuron.fold_scale, signs.double())
    deviation = (norm.running_var + norm.eps).sqrt()
    expected = signs * ((0.5 - norm.bias) * deviation / norm.weight + norm.running_mean)
    torch.testing.assert_close(neuron.fold_threshold[1:], expected[1:])
    assert neuron.fold_threshold[0] < -1e300  # gamma 0 and beta above: it always fires


def test_mpbn_streams_and_taps_before_folding() -> None:
    neuron, x = mpbn(), sequence(9)
    with rheobase.streaming(neuron):
        assert torch.equal(torch.cat([neuron(x[:2]), neuron(x[2:])]), neuron_alone(neuron, x))
    spikes, h = neuron(x, tap="h")
    assert torch.equal(spikes, (h >= 1.0).double())
    _, v = neuron(x, tap="v")
    assert torch.equal(v * spikes, torch.zeros_like(v))


def neuron_alone(neuron: MPBN, x: Tensor) -> Tensor:
    fresh = copy.deepcopy(neuron)
    fresh._streams, fresh._state = False, None
    return fresh(x)


def test_mpbn_refuses_what_it_is_not() -> None:
    with pytest.raises(ValueError, match="resets to 0, got v_reset=None"):
        MPBN(C, v_reset=None)
    with pytest.raises(ValueError, match="'raw' or 'normalised'"):
        MPBN(C, membrane="folded")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"8 channels.*has 3"):
        MPBN(C)(torch.zeros(T, N, 3))


@pytest.mark.parametrize("name", MAKERS)
def test_gradcheck(name: str) -> None:
    norm = MAKERS[name]().double()
    x = torch.randn(T, 2, C, 2, 1, dtype=torch.float64, requires_grad=True)
    given = (x, *norm.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: over_time(x, norm), given, fast_mode=True)


def test_gradcheck_of_neunorm() -> None:
    norm = NeuNorm((2, 3, 3)).double()
    x = torch.rand(T, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, norm.w), fast_mode=True)
