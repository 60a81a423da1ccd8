import copy
import itertools

import pytest
import torch
from torch import nn

from rheobase.layers import (
    ChannelMaskAttention,
    ConvNormNeuron,
    MembraneSelfAttention,
    SpikingSelfAttention,
    ThresholdDependentBatchNorm2d,
    over_time,
    repeat,
    sew_join,
)
from rheobase.neurons import LIF, neuron_factory
from rheobase.ops import average_pool


def test_sew_joins_follow_their_truth_tables():
    branch, identity = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2))).T
    assert sew_join(branch, identity, "ADD").tolist() == [0, 1, 1, 2]
    assert sew_join(branch, identity, "AND").tolist() == [0, 0, 0, 1]
    assert sew_join(branch, identity, "IAND").tolist() == [0, 1, 0, 0]


def test_unknown_join_offers_the_nearest():
    with pytest.raises(ValueError, match=r"'NAND'.*'AND'"):
        sew_join(torch.zeros(1), torch.zeros(1), "NAND")


def test_unit_is_conv_then_norm_then_neuron():
    unit = ConvNormNeuron(3, 4, LIF(), kernel_size=3, bias=True).eval()
    x = torch.randn(5, 2, 3, 6, 6)
    expected = unit.neuron(torch.stack([unit.norm(unit.conv(step)) for step in x]))
    torch.testing.assert_close(unit(x), expected)


def test_a_repeated_image_meets_the_first_convolution_once():
    unit = ConvNormNeuron(3, 4, LIF(), kernel_size=3)
    shapes = []
    unit.conv.register_forward_hook(lambda _m, inputs, _out: shapes.append(inputs[0].shape[0]))
    unit(repeat(torch.randn(2, 3, 6, 6), 4))
    assert shapes == [2]


@pytest.mark.parametrize("nested", [False, True])
def test_dropout_draws_anew_for_every_step_of_a_repeated_image(nested):
    torch.manual_seed(0)
    conv, norm, dropout = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
    modules = (conv, nn.Sequential(dropout, norm)) if nested else (conv, dropout, norm)
    x = repeat(torch.randn(2, 3, 6, 6), 4)
    for behind in ((), (LIF(),)):
        y = over_time(x, *modules, *behind)
        assert not any(torch.equal(y[0], step) for step in y[1:])
    dropout.eval()
    assert torch.equal(*over_time(x, *modules)[:2])


def test_a_norm_within_a_module_counts_every_copy_of_a_repeated_image():
    within = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).double()
    expected, image = copy.deepcopy(within), torch.rand(2, 3, 6, 6).double()
    expected(repeat(image, 4).flatten(0, 1))
    over_time(repeat(image, 4), within)
    torch.testing.assert_close(within.state_dict(), expected.state_dict())


def test_a_repeated_single_value_is_normalised_over_its_copies():
    norm, apart = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    x = repeat(torch.randn(1, 4), 3)
    for neuron in (nn.ReLU(), LIF()):
        expected = neuron(apart(x.flatten(0, 1)).view(3, 1, 4))
        assert torch.equal(over_time(x, norm, neuron), expected)
        assert torch.equal(norm.running_var, apart.running_var)
        assert torch.equal(norm.running_mean, apart.running_mean)


@pytest.mark.parametrize("side", [2, 5], ids=["tokens < d", "tokens > d"])
def test_attention_is_the_exact_integer_product_in_either_order(side):
    torch.manual_seed(0)
    heads, dim = 2, 16
    attention = SpikingSelfAttention(dim, heads, neuron_factory("lif")).eval()
    x = 4 * torch.randn(3, 2, dim, side, side)
    seen = []
    attention.neuron.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    assert attention(x).shape == x.shape

    q, k, v = (
        unit(x).reshape(3, 2, heads, dim // heads, side * side).mT
        for unit in (attention.q, attention.k, attention.v)
    )  # [T, N, heads, tokens, d], as in the paper
    expected = (q.long().double() @ k.mT.double() @ v.double()) * 0.125
    got = seen[0].reshape(3, 2, heads, dim // heads, side * side).mT
    assert expected.max() > 0
    assert torch.equal(got.double(), expected)
    assert torch.equal(attention.attention(x), (q @ k.mT) * 0.125)


def test_neuron_after_the_product_has_half_the_threshold():
    attention = SpikingSelfAttention(16, 2, neuron_factory("lif", v_threshold=1.0))
    thresholds = {n: m.v_threshold for n, m in attention.named_modules() if isinstance(m, LIF)}
    assert thresholds.pop("neuron") == 0.5
    assert set(thresholds.values()) == {1.0}


def test_tdbn_is_batch_norm_times_the_threshold_without_its_bias():
    norm, plain = ThresholdDependentBatchNorm2d(3, 0.5, alpha=0.5), nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    nn.init.constant_(norm.bias, 0.7)
    for training in (True, False):
        norm.train(training), plain.train(training)
        torch.testing.assert_close(norm(x), 0.25 * plain(x) + 0.7)
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_var, plain.running_var)


def test_convolutions_under_a_transform():
    """Inside `torch.func.vmap` memory order cannot be asked for; results are those outside."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, padding=1)
    x = torch.rand(2, 4, 1, 3, 6, 6)
    mapped = torch.func.vmap(lambda one: over_time(one, conv))(x)
    alone = torch.stack([over_time(one, conv) for one in x])
    torch.testing.assert_close(mapped, alone)
    assert over_time(x[0], conv)[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "last"), [(8, False), (16, True)])
def test_few_channels_of_a_strided_1x1_convolution_are_not_channels_last(channels, last):
    """PyTorch 2.13 writes past its memory in the gradient of such a weight."""
    conv = nn.Conv2d(channels, 8, 1, stride=2)
    seen = []
    conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(6, channels, 8, 8).contiguous(memory_format=torch.channels_last)
    y = over_time(x.unflatten(0, (2, 3)), conv)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is last
    torch.testing.assert_close(y.flatten(0, 1), conv(x.contiguous()))


def test_a_part_that_knows_time_makes_the_whole_know_it() -> None:
    torch.manual_seed(0)
    conv, two = nn.Conv2d(2, 3, 1), nn.Sequential(LIF(), nn.Sequential(LIF()))
    x = torch.rand(4, 5, 2, 6, 6) * 3
    spikes = over_time(x, conv, two)
    assert spikes.shape == (4, 5, 3, 6, 6)
    assert torch.equal(spikes, two(over_time(x, conv)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [2, 3])
def test_average_pooling_channels_last_is_that_of_pytorch(size: int, dtype: torch.dtype) -> None:
    """To the last bit, gradient too; other layouts and windows are left to PyTorch."""
    pool = nn.AvgPool2d(size)
    x = torch.randn(2, 3, 37, 6, 6, dtype=dtype)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 3))
    leaves = [x.clone().requires_grad_(), last.clone(memory_format=torch.preserve_format)]
    assert average_pool.takes(leaves[1].flatten(0, 1), pool)
    outputs = [over_time(leaf.requires_grad_(), pool) for leaf in leaves]
    g = torch.randn_like(outputs[0])
    expected = pool(x.flatten(0, 1)).unflatten(0, (2, 3))
    for y in outputs:
        assert torch.equal(y, expected)
        y.backward(g)
    assert torch.equal(leaves[0].grad, leaves[1].grad)
    for other in (nn.AvgPool2d(3, 2), nn.AvgPool2d(4), nn.AvgPool2d(2, padding=1)):
        assert not average_pool.takes(last.flatten(0, 1), other)


def test_hooks_of_average_pooling_are_run() -> None:
    pool = nn.AvgPool2d(2)
    pool.register_forward_hook(lambda module, inputs, output: -output)
    last = torch.rand(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    expected = -nn.functional.avg_pool2d(last, 2)
    assert torch.equal(over_time(last.unflatten(0, (2, 3)), pool).flatten(0, 1), expected)


def parts(dim: int) -> dict[str, nn.Module]:
    units = {name: ConvNormNeuron(dim, dim, LIF()) for name in "qkv"}
    for unit in units.values():
        nn.init.normal_(unit.conv.weight, std=4.0)
    return {"input": LIF(), **units, "proj": nn.Identity()}


@pytest.mark.parametrize("with_values", [True, False], ids=["SDSA-1", "SDSA-2"])
def test_keys_and_values_decide_which_channels_of_the_queries_pass(with_values):
    torch.manual_seed(0)
    given = parts(8) | {"mask": LIF(v_threshold=2.0)} | ({} if with_values else {"v": None})
    attention = ChannelMaskAttention(**given).eval()
    x = 4 * torch.randn(3, 2, 8, 4, 4)
    q, k, v = (given[name](given["input"](x)) if given[name] else 1 for name in "qkv")
    membrane, steps = torch.zeros(2, 8), []
    for step in range(3):
        membrane = (membrane + (k * v)[step].sum((-2, -1))) / 2
        passes = (membrane >= 2.0).float()
        membrane = membrane * (1 - passes)
        steps.append(q[step] * passes[..., None, None])
    expected = torch.stack(steps)
    assert 0 < expected.sum() < q.sum(), "some channels pass and some do not"
    assert torch.equal(attention(x), expected)


def test_a_learned_scale_is_a_learned_threshold():
    """SDSA-4: with scale c and threshold V the spikes are those of scale 1 and threshold V / c."""
    torch.manual_seed(0)
    given = parts(8) | {"neuron": LIF(v_threshold=0.5)}
    attention = MembraneSelfAttention(2, **given, learn_scale=True)
    assert [name for name, _ in attention.named_parameters()].count("scale") == 1
    x = 4 * torch.randn(3, 2, 8, 4, 4)
    attention(x).sum().backward()
    assert attention.scale.grad.isfinite() and attention.scale.grad != 0

    given["neuron"] = LIF(v_threshold=2.0)
    with torch.no_grad():
        attention.scale.copy_(0.25)
        spikes = attention.eval()(x)
        assert 0 < spikes.mean() < 1
        assert torch.equal(spikes, MembraneSelfAttention(2, **given, scale=1.0).eval()(x))
