"""What every family promises: sequences in, every step out, streaming, training, clear errors."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import small

import rheobase
from rheobase.layers import DropPath
from rheobase.measure import firing_rates
from rheobase.models import create_model
from rheobase.models.ost import OST
from rheobase.models.sglformer import FullSizeConv, LocalSelfAttention
from rheobase.models.spike_driven_transformer_v3 import spike_driven
from rheobase.models.spikeformer_ct import SpikeformerCT
from rheobase.models.sstformer import SSTFormer
from rheobase.neurons import IF, LIF, PLIF, Neuron

STEPS = 6


def test_every_step_comes_out(net, images):
    if any(isinstance(module, FullSizeConv | SSTFormer) for module in net.modules()):
        assert net(images).shape == (1, 2, 10)  # one answer to the whole sequence, of T steps
        return
    one_step = isinstance(net, OST | SpikeformerCT)  # which put all steps together
    assert net(images).shape == (1 if one_step else net.T, 2, 10)
    sequence = images.expand(5, *images.shape).clone()
    assert net(sequence).shape == (1 if one_step else 5, 2, 10)


@pytest.mark.parametrize("training", [False, True])
def test_shapes_alone_pass_both_ways(net, images, training):
    """On the meta device no kernel may read memory, of which there is none."""
    net.to("meta").train(training)
    y = net(images.to("meta"))
    y.sum().backward()
    assert y.is_meta and y.shape[1:] == (2, 10)


def test_repeated_image_equals_the_same_frames(net, images):
    net.eval().double()
    images = images.double()
    frames = torch.stack([images] * net.T)
    torch.testing.assert_close(net(images), net(frames), rtol=1e-10, atol=1e-10)


def test_neurons_fire(net, images):
    rates = firing_rates(net, images)
    assert rates or net.T == 1
    assert all(0 < rate < 1 for rate in rates.values()), rates


@cache
def streamed(family):
    return small(family).eval().double()


STREAMED = [
    "spikformer", "spikformer_events", "sew_resnet", "spiking_vgg", "tdbn_resnet", "ms_resnet",
    "plif_net", "spiking_densenet", "snasnet", "autosnn", "tim",
]  # fmt: skip


@pytest.mark.parametrize("family", STREAMED)
@settings(max_examples=4, deadline=None)
@given(cuts=st.sets(st.integers(1, STEPS - 1)), seed=st.integers(0, 2**16))
def test_streaming_in_any_chunks_equals_one_call(family, cuts, seed):
    net = streamed(family)
    torch.manual_seed(seed)
    side = net.config.image_size
    x = torch.rand(STEPS, 1, net.config.channels, side, side, dtype=torch.float64)
    with torch.no_grad(), rheobase.streaming(net):
        pieces = [net(x[a:b]) for a, b in pairwise([0, *sorted(cuts), STEPS])]
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(pieces), net(x), rtol=1e-9, atol=1e-9)


def test_training_reaches_every_parameter_and_nothing_survives_a_call(net, images):
    net.train()
    for _ in range(2):
        net.zero_grad()
        net(images).mean(0).logsumexp(-1).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    stem = next(net.parameters())
    assert stem.grad.abs().max() > 0


@pytest.mark.parametrize("neuron", ["if", "plif", PLIF, lambda **kw: LIF(tau=3.0, **kw)])
@pytest.mark.parametrize("family", ["spikformer", "sew_resnet"])
def test_the_neuron_is_one_argument(family, neuron):
    net = small(family, neuron=neuron)
    side = net.config.image_size
    net(torch.rand(1, 3, side, side)).sum().backward()
    kinds = {type(m) for m in net.modules() if isinstance(m, Neuron)}
    assert kinds == {"if": {IF}, "plif": {PLIF}}.get(neuron, kinds)
    if kinds == {PLIF}:
        w = [p for name, p in net.named_parameters() if name.endswith(".w")]
        assert len(w) == sum(isinstance(m, PLIF) for m in net.modules())
        assert any(p.grad != 0 for p in w)


def test_neuron_kwargs_reach_the_papers_own_neuron():
    net = small("spikformer", neuron_kwargs={"tau": 3.0})
    (neuron,) = {m for m in net.stem.stages[0].modules() if isinstance(m, Neuron)}
    assert (neuron.tau, neuron.detach_reset, neuron.surrogate.alpha) == (3.0, True, 4.0)


def test_bad_input_is_refused_with_the_remedy(net, images):
    with pytest.raises(TypeError, match=r"int64.*\.float\(\)"):
        net(images.long())
    with pytest.raises(ValueError, match=r"unsqueeze"):
        net(images[0])
    with pytest.raises(ValueError, match="empty"):
        net(images[:0])
    channels = images.shape[1]
    with pytest.raises(ValueError, match=f"{channels} input channels.*channels={channels + 1}"):
        net(torch.cat([images, images[:, :1]], dim=1))


@pytest.mark.parametrize("family", ["spikformer", "spikformer_ann"])
def test_image_must_be_divisible_by_the_patch(family):
    with pytest.raises(ValueError, match="patch size 4"):
        small(family)(torch.rand(1, 3, 10, 8))


@pytest.mark.parametrize("family", ["spikformer", "spikformer_ann"])
def test_attention_maps_of_every_block(family):
    net = small(family, depth=2).eval()
    maps = net.attention_maps(torch.rand(2, 3, 8, 8))
    assert [tuple(m.shape) for m in maps] == 2 * [(net.T, 2, 2, 4, 4)]
    if family == "spikformer":
        assert torch.equal(maps[0] * 8, (maps[0] * 8).round())
    else:
        torch.testing.assert_close(maps[0].sum(-1), torch.ones(1, 2, 2, 4))


def test_the_twin_has_the_parameters_of_the_spikformer():
    def shapes(net):
        return sorted(tuple(p.shape) for p in net.parameters())

    assert shapes(small("spikformer")) == shapes(small("spikformer_ann"))


def test_the_twins_attention_is_the_softmax_of_its_maps():
    attention = small("spikformer_ann").blocks[0].attn.eval()
    x = torch.randn(1, 2, 32, 3, 3)
    y = attention.attention(x) @ attention._split(attention.v(x))
    torch.testing.assert_close(attention.proj(y.mT.reshape(x.shape)), attention(x))


@pytest.mark.parametrize("levels", [1, 4])
def test_integers_and_binary_spikes_compute_the_same(levels):
    net = small("spike_driven_transformer_v3", levels=levels).double().eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with_integers = net(x)
    with spike_driven(net):
        torch.testing.assert_close(net(x), with_integers, rtol=1e-12, atol=1e-12)
    assert with_integers.std() > 0
    net.stages[0][0].conv1.neuron = torch.nn.Identity()
    with spike_driven(net), pytest.raises(ValueError, match="no spikes"):
        net(x)


def test_a_branch_is_dropped_for_whole_samples_in_training_only():
    torch.manual_seed(0)
    drop, x = DropPath(0.5), torch.ones(2, 64, 3)
    assert torch.equal(drop.eval()(x), x)
    y = drop.train()(x)
    assert torch.equal(y, y[:1, :, :1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_the_output_of_two_heads_is_their_mean():
    net = small("spike_driven_transformer_v2").eval()
    x = torch.rand(2, 3, 32, 32)
    labels, teacher = net.heads(x)
    assert not torch.equal(labels, teacher)
    torch.testing.assert_close(net(x), (labels + teacher) / 2)
    with pytest.raises(ValueError, match="distilled=True"):
        small("spike_driven_transformer_v2", distilled=False).heads(x)


@pytest.mark.parametrize(("attention", "axis"), [("token", -2), ("channel", -1)])
def test_queries_decide_which_tokens_or_channels_of_the_keys_pass(attention, axis):
    attn = small("qkformer", attention=attention).eval().stages[0][0].attn
    x = torch.randint(0, 3, (3, 2, 8, 4, 4)).float()
    seen = []
    attn.proj.register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    attn(x)
    q, k = (unit(x).reshape(3, 2, 2, 4, 16) for unit in (attn.q, attn.k))  # heads, channels, tokens
    membrane, passes = torch.zeros(()), []
    for counts in q.sum(axis, keepdim=True):
        membrane = (membrane + counts) / 2
        passes.append((membrane >= 0.5).float())
        membrane = membrane * (1 - passes[-1])
    expected = torch.stack(passes) * k
    assert torch.equal(seen[0], expected.reshape(x.shape))
    assert 0 < expected.mean() < k.mean()


def test_an_sglformer_may_attend_locally_alone():
    net = small("sglformer", global_blocks=0).eval()  # the released code's with depths=2
    assert {type(block.attn) for block in net.groups[0].blocks} == {LocalSelfAttention}
    assert net(torch.rand(1, 3, 32, 32)).shape == (3, 1, 10)


def test_a_head_over_all_steps_wants_its_own():
    net = small("sglformer_cifar").eval()
    with pytest.raises(ValueError, match="16 tokens at 3 steps, got 16 tokens at 2 steps"):
        net(torch.rand(2, 1, 3, 16, 16))
    with pytest.raises(ValueError, match="not causal"), rheobase.streaming(net):
        pass


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_sew_blocks_start_as_the_identity(connect):
    net = small("sew_resnet", connect=connect)
    fresh = type(net)(type(net.config)(18, connect=connect, num_classes=10))
    spikes = (torch.rand(4, 2, 64, 4, 4) > 0.5).float()
    assert torch.equal(fresh.layer1(spikes), spikes)


def test_an_image_by_column_is_a_sequence_of_its_columns():
    net = create_model("spiking_mlp_mnist", hidden=(8,), image_size=6, by_column=True, T=6)
    images = torch.rand(2, 1, 6, 6)
    columns = torch.stack([images[..., i].flatten(1) for i in range(6)])
    assert torch.equal(net(images), net.layers(columns))
    assert net.layers[1].in_features == 6
    with pytest.raises(ValueError, match="columns are those of images"):
        net(images.expand(6, -1, -1, -1, -1))
    with pytest.raises(ValueError, match="6 columns has as many steps, got T=4"):
        create_model("spiking_mlp_mnist", image_size=6, by_column=True, T=4)
