"""Where released code and paper differ: ``compat="official"`` is the one, the default the other.

That each of the two is right, goldens say (`tests/test_goldens_models.py`); here, that they differ,
and in what the docstrings name.
"""

import dataclasses

import pytest
import torch
from model_toys import small

from rheobase.models.registry import families
from rheobase.models.spike_driven_transformer import erode_image, erode_tokens
from rheobase.models.sstformer_parts import MemoryConfig, MemoryTransformer

# The toys that show it: in what they compute,
COMPUTES = {
    "qkformer": "qkformer",
    "qkformer_events": "qkformer",
    "sglformer": "sglformer",
    "tim": "tim",
    "spike_driven_transformer_events": "spike_driven_transformer",
    "spike_driven_transformer_v3_large": "spike_driven_transformer_v3_large",
    "max_former_events": "max_former",
    "swformer": "swformer",
    "swformer_events": "swformer",
    "sts_transformer": "sts_transformer",
    "sstformer": "sstformer",
}
# or in how they train.
TRAINS = {
    "ost": "ost",
    "ost_events": "ost",
    "revs_resnet": "revs_resnet",
    "revs_resnet_events": "revs_resnet",
    "revsformer": "revsformer",
}
ELSEWHERE = {"rate_coded_vit"}  # tests/convert

long = pytest.mark.long


def readings(toy, **options):
    """The paper's reading and the released code's, with the same weights; and images for both."""
    paper, official = (small(toy, compat=compat, **options) for compat in (None, "official"))
    official.load_state_dict(paper.state_dict())
    torch.manual_seed(1)
    side = paper.config.image_size
    return paper, official, torch.rand(2, paper.config.channels, side, side)


def with_compat():
    for family in families():
        config = next(iter(family.presets.values()))
        if any(field.name == "compat" for field in dataclasses.fields(config)):
            yield family.name, config


def test_every_family_with_two_readings_is_told_apart():
    assert {name for name, _ in with_compat()} == {
        *COMPUTES.values(), *TRAINS.values(), *ELSEWHERE,
    }  # fmt: skip


def test_there_is_no_third_reading():
    for name, config in with_compat():
        with pytest.raises(ValueError, match="compat must be one of None, 'official', got"):
            dataclasses.replace(config, compat="offical")
        meaning = type(config).__doc__.partition("    compat: ")[2]
        assert '"official"' in meaning.partition("\n\n")[0], name


@long
@pytest.mark.parametrize("toy", COMPUTES)
def test_they_compute_different_things(toy):
    paper, official, x = readings(toy)
    assert not torch.equal(paper.eval()(x), official.eval()(x))


@long
@pytest.mark.parametrize("toy", TRAINS)
def test_they_train_differently(toy):
    paper, official, x = readings(toy)
    assert torch.equal(paper.eval()(x), official.eval()(x))
    left = []
    for net in (paper, official):
        net.train()(x).square().sum().backward()
        left.append({name: tuple(value.flatten()) for name, value in net.named_buffers()})
        left[-1] |= {name: p.grad is None for name, p in net.named_parameters()}
    assert left[0] != left[1]


@long
@pytest.mark.parametrize("toy", ["revs_resnet", "revs_resnet_events", "revsformer"])
def test_the_released_norms_of_reversible_blocks_count_batches_twice(toy):
    paper, official, x = readings(toy)
    for net, inside in ((paper, 1), (official, 2)):
        net.train()(x).square().sum().backward()
        blocks = "blocks." if toy == "revsformer" else "stages."
        counts = {
            (name.startswith(blocks), int(value))
            for name, value in net.named_buffers()
            if name.endswith("num_batches_tracked")
        }
        assert counts == {(True, inside), (False, 1)}


@pytest.mark.parametrize("family", ["qkformer", "qkformer_events", "sglformer"])
def test_samples_mix_only_with_the_released_leak(family):
    """The released code lets membranes leak from sample to sample (facts of its goldens)."""
    paper, official, _ = readings(family)
    side = paper.eval().config.image_size
    x = torch.rand(3, paper.config.channels, side, side)
    assert torch.equal(paper(x)[:, 1], paper(x[1:2])[:, 0])
    assert not torch.equal(official.eval()(x)[:, 1], official(x[1:2])[:, 0])
    assert torch.equal(official(x[:1]), paper(x[:1]))


@long
@pytest.mark.parametrize(("layout", "leaks"), [("imagenet", True), ("imagenet_early", False)])
def test_one_of_two_released_files_leaks_in_the_stem_too(layout, leaks):
    stem = small("sglformer", layout=layout, compat="official").eval().stem
    x = torch.rand(3, 2, 3, 32, 32)
    assert torch.equal(stem(x)[:, 1:], stem(x[:, 1:])) is not leaks


def test_the_released_thresholds_silence_the_queries_of_tim():
    paper, official, x = readings("tim")
    seen = []
    for net in (paper, official):
        net.eval().blocks[0].attn.interaction.register_forward_hook(
            lambda _m, _in, out: seen.append(out[1:])
        )
        net(x)
    assert seen[0].sum() > 0
    assert seen[1].sum() == 0


def test_the_released_erosion_runs_over_channels():
    """Of one spike the paper's 3x3 windows make nine pixels, the released ones nine of the plane
    of tokens and channels of its head."""
    spike = torch.zeros(1, 1, 8, 4, 4)
    spike[0, 0, 1, 1, 2] = 1.0  # token 6
    pixels, plane = erode_image(spike), erode_tokens(spike, heads=2)
    assert pixels.nonzero()[:, 2].unique().tolist() == [1]
    assert pixels[0, 0, 1].nonzero().unique(dim=0).tolist() == [
        [y, x] for y in (0, 1, 2) for x in (1, 2, 3)
    ]
    assert plane[0, 0].flatten(1).nonzero().tolist() == [
        [channel, token] for channel in (0, 1, 2) for token in (5, 6, 7)
    ]


def test_the_release_adds_the_input_inside_a_square_mlp():
    x = torch.rand(3, 1, 32, 2, 2)
    for compat, inside in ((None, 0.0), ("official", 1.0)):
        block = small("spike_driven_transformer", mlp_ratio=1.0, compat=compat).eval().blocks[0]
        y = x + block.attn(x)
        hidden = block.mlp.fc1(y) + inside * y
        assert torch.equal(block(x), block.mlp.fc2(hidden) + (hidden if inside else y))


@long
def test_the_release_adds_the_input_inside_the_square_mlps_of_max_former():
    x = torch.rand(3, 1, 16, 4, 4)
    for compat, inside in ((None, 0.0), ("official", 1.0)):
        block = small("max_former_events", compat=compat).eval().stages[0][0]
        y = x + block.mixer(x)
        hidden = block.mlp.fc1(y) + inside * y
        assert torch.equal(block(x), block.mlp.fc2(hidden) + (hidden if inside else y))


def test_the_released_large_head_reads_membranes():
    paper, official, images = readings("spike_driven_transformer_v3_large")
    seen = {}
    for name, net in (("paper", paper.eval()), ("official", official.eval())):
        net.head.register_forward_hook(
            lambda _m, given, _out, name=name: seen.update({name: given[0]})
        )
        net.head_kd.register_forward_hook(
            lambda _m, given, _out, name=name: seen.update({f"{name} kd": given[0]})
        )
        net(images)
    assert torch.equal(seen["paper"], seen["paper kd"])
    assert torch.equal(seen["official kd"], seen["paper kd"])
    assert torch.equal(seen["paper"], seen["paper"].round())
    assert not torch.equal(seen["official"], seen["official"].round())


@long
def test_the_released_lower_threshold_of_swformer_follows_nothing():
    for compat, lower in ((None, 0.75), ("official", 0.501)):
        net = small("swformer", haar_threshold=0.75, compat=compat)
        assert net.blocks[0].mixer.inverse_rows.v_negative == lower


@long
def test_the_release_leaves_the_thresholds_of_ost_alone():
    learning, official, x = readings("ost")
    weights = learning.state_dict()
    weights["blocks.0.attn.k.neuron.neurons.0.v_threshold"].fill_(0.4)
    official.load_state_dict(weights)
    assert torch.equal(official.eval()(x), learning.eval()(x))
    official(x).square().sum().backward()
    still = {name for name, p in official.named_parameters() if p.grad is None}
    assert still == {name for name in weights if name.endswith("v_threshold")}


@long
def test_a_permutation_is_missing_in_the_released_sts_transformer():
    """So samples depend on one another there, and steps on later ones."""
    paper, official, _ = readings("sts_transformer")
    x = torch.rand(5, 2, 2, 32, 32)
    later = torch.cat([x[:3], torch.rand(2, 2, 2, 32, 32)])
    for net, apart in ((paper.eval(), True), (official.eval(), False)):
        with torch.no_grad():
            y = net(x)
            assert torch.allclose(y[:, :1], net(x[:, :1]), atol=1e-5) is apart
            assert torch.allclose(y[:3], net(later)[:3], atol=1e-5) is apart


class TestSSTFormer:
    def test_released_queries_become_heads_without_moving_axes(self):
        torch.manual_seed(0)
        query, support = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
        for compat, apart in ((None, True), ("official", False)):
            config = MemoryConfig(dim=8, heads=2, tokens=4, compat=compat)
            attend = MemoryTransformer(config).attention1._attend
            in_order, turned = attend(query, support), attend(query.flip(1), support)
            assert torch.allclose(turned.flip(1), in_order, atol=1e-6) is apart

    def test_released_attention_is_scaled_for_128_channels(self):
        torch.manual_seed(0)
        paper, official = (
            MemoryTransformer(MemoryConfig(dim=8, heads=1, tokens=4, compat=compat))
            for compat in (None, "official")
        )
        official.load_state_dict(paper.state_dict())
        query, support = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
        attend, released = paper.attention1._attend, official.attention1._attend
        assert not torch.allclose(attend(query, support), released(query, support), atol=1e-3)
        shrunk = query * (8 / 128) ** 0.5
        torch.testing.assert_close(attend(shrunk, support), released(query, support))

    @long
    def test_released_frames_become_tokens_without_moving_axes(self):
        paper, official, x = readings("sstformer")
        tokens, dim = paper.config.tokens, paper.config.dim
        seen = []
        for net in (paper.eval(), official.eval()):
            net.memory.register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
            net(x)
        ours, theirs = (queries[:, 6:14] for queries in seen)  # behind 2 x 3 supports
        moved = theirs.reshape(-1, dim, tokens).mT
        torch.testing.assert_close(ours.reshape(-1, tokens, dim), moved)
        assert not torch.allclose(ours, theirs)
