"""The less-known spiking transformers: parameter counts, what they refuse, what is theirs alone."""

import dataclasses

import pytest
import torch
from model_toys import small

import rheobase
from rheobase.layers import BGN, SpikingSelfAttention
from rheobase.measure import count_operations, firing_rates
from rheobase.models import autost_search, create_model, load_official
from rheobase.models.autost import AutoST, AutoSTConfig
from rheobase.models.dista import _earlier
from rheobase.models.spikformer_lt import fourier, wavelet
from rheobase.models.sstformer import beside
from rheobase.models.sstformer_parts import (
    EventEncoder,
    EventEncoderConfig,
    MemoryConfig,
    MemoryTransformer,
)
from rheobase.neurons import LIF, PLIAF, Neuron

# Compiles many kernels.
pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("swformer_8_512", {"image_size": 224}, "power of two.*14"),
        ("swformer_8_512", {"groups": 3}, "groups=3 does not divide dim=512"),
        ("swformer_8_512", {"dim": 20}, "multiple of 8"),
        ("swformer_8_512", {"patch_size": 3}, "patch_size must be"),
        ("swformer_8_512", {"graph": "video"}, "graph must be one of 'image', 'event'"),
        ("swformer_8_512", {"T": 0}, "T must be positive"),
        ("ost_8_512", {"halving": "max"}, "halving must be one of 'conv', 'average'"),
        ("ost_8_512", {"thresholds": 0}, "thresholds must be positive"),
        ("revsformer_cifar10_2_384", {"heads": 5}, "heads=5 does not divide dim=384"),
        ("revs_resnet21_cifar10", {"depths": (1, 1)}, "of the same stages"),
        ("revs_resnet21_cifar10", {"T": 0}, "positive"),
        ("spikeformer_ct_7_3x2x4", {"kernel_size": 4}, "odd"),
        ("spikformer_lt_wavelet_cifar10_4_384", {"image_size": 28}, "must be even, got 7"),
        ("spikformer_lt_wavelet_cifar10_4_384", {"transform": "cosine"}, "transform must be one"),
        ("dista_cifar10_4_384", {"window": -1}, "must not be negative"),
        ("te_spikformer_cifar10dvs_2_256", {"norm_groups": 3}, "does not divide the 32 channels"),
        ("mast_cifar10_4_384", {"attention": "TX"}, "kind of attention"),
        ("mast_cifar10_4_384", {"T": 1}, "leaves nothing of 1"),
        ("autost_base", {"heads": (8,)}, "one entry for each block"),
        ("sts_transformer_dvs128_2_256", {"dim": 40}, "multiple of 16"),
        ("sts_transformer_dvs128_2_256", {"compat": "bugs"}, "compat must be one of None"),
        ("spikeformer_ct_7_3x2x4", {"image_size": 100}, "not a multiple of patch_size=16"),
    ],
)
def test_configs_refuse_what_does_not_fit(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **overrides)


@pytest.mark.parametrize(
    "system",
    ["swformer", "ost", "rev_sresnet", "spikeformer_ct", "autost", "sts_transformer", "sstformer"],
)
def test_other_checkpoints_are_refused(system):
    with pytest.raises(ValueError, match=r"not an? (.* )?checkpoint"):
        load_official(system, {"fc.weight": torch.zeros(2, 2)})


class TestSWformer:
    def test_a_grid_that_is_no_power_of_two(self):
        with pytest.raises(ValueError, match="power of two elements, got 3"):
            small("swformer")(torch.rand(1, 3, 12, 12))


class TestOST:
    def test_the_thresholds_are_learnt(self):
        net = small("ost")
        net(torch.rand(2, 3, 8, 8)).square().sum().backward()
        thresholds = [n.v_threshold for n in net.blocks[0].attn.k.neuron.neurons]
        assert [t.item() for t in thresholds] == [0.5, 1.0]
        assert all(t.grad != 0 for t in thresholds)

    def test_it_cannot_stream(self):
        with (
            pytest.raises(ValueError, match="not causal"),
            rheobase.streaming(small("ost").eval()),
        ):
            pass


class TestSpikeformerCT:
    def test_other_sizes_stretch_the_embeddings(self):
        net = small("spikeformer_ct").eval()
        assert net(torch.rand(5, 1, 2, 32, 16)).shape == (1, 1, 10)

    def test_time_starts_as_the_identity_behind_the_first_block(self):
        overrides = {"depth": 2, "dim": 16, "heads": 2, "stages": 2, "image_size": 16}
        first, second = create_model("spikeformer_ct_cifar10dvs_7_3x2x3", **overrides).blocks
        assert first.temporal_fc.weight.any()
        assert not second.temporal_fc.weight.any()

    def test_analog_neurons_train(self):
        net = small("spikeformer_ct", analog=True)
        net(torch.rand(3, 2, 2, 16, 16)).square().sum().backward()
        assert {type(n) for n in net.modules() if isinstance(n, Neuron)} == {PLIAF}
        assert all(p.grad.isfinite().all() for p in net.parameters())


class TestAutoSTSearch:
    @pytest.mark.parametrize("ratios", [(3, 4), (5, 6, 2.5)])
    def test_parameters_in_closed_form(self, ratios):
        config = AutoSTConfig(64, ratios, (4,) * len(ratios), num_classes=7)
        counted = sum(p.numel() for p in AutoST(config).parameters())
        assert autost_search.parameter_count(config) == counted

    @pytest.mark.parametrize("patch_size", [4, 16])
    def test_multiplications_are_those_counted_in_the_network(self, patch_size):
        config = AutoSTConfig(16, (3, 4), (2, 4), image_size=32, T=3, patch_size=patch_size)
        report = count_operations(AutoST(config), torch.rand(1, 3, 32, 32))
        stepwise = report.macs - 16 * 10  # without the head
        # The released search counts attention products in full, as tokens by tokens.
        ours = autost_search.gflops(config) * 1e9 - 16 * 10
        tokens = (32 // patch_size) ** 2
        square = 2 * 2 * tokens * tokens * 16
        products = sum(layer.macs for layer in report.layers if layer.kind == "product")
        assert ours / 3 == pytest.approx(stepwise - products + square)

    def test_naswot_tells_images_apart(self):
        net = small("autost").eval()
        images = torch.rand(4, 3, 8, 8)
        alike = images[:1] + 1e-3 * images
        assert autost_search.naswot(net, images) > autost_search.naswot(net, alike)

    def test_evolution_beats_chance_within_the_window(self):
        base = AutoSTConfig(384, (4,), (8,), num_classes=100)
        settings = autost_search.Search(
            (5_000_000, 6_000_000), population=10, kept=4, mutated=5, crossed=3, rounds=5
        )
        space = autost_search.SPACES["tiny"]
        found = autost_search.search(space, settings, base)
        first = autost_search.search(space, dataclasses.replace(settings, rounds=0), base)
        assert found == autost_search.search(space, settings, base)
        scores = [score for score, _ in found]
        assert scores == sorted(scores, reverse=True) and scores[0] >= first[0][0]
        for score, config in found:
            assert 5_000_000 <= autost_search.parameter_count(config) <= 6_000_000
            assert score == autost_search.gflops(config)
            assert config.dim in space.dims and config.depth in space.depths

    def test_an_empty_window_is_named(self):
        settings = autost_search.Search((1, 2), tries=10)
        base = AutoSTConfig(384, (4,), (8,))
        with pytest.raises(ValueError, match="no candidate had 1 to 2 parameters"):
            autost_search.search(autost_search.SPACES["tiny"], settings, base)


class TestSTSTransformer:
    def test_it_is_causal_and_keeps_samples_apart(self):
        net = small("sts_transformer").eval().double()
        x = torch.rand(5, 2, 2, 32, 32, dtype=torch.float64)
        other = x.clone()
        other[3:, 0] = 0.0
        with torch.no_grad():
            y, z = net(x), net(other)
        torch.testing.assert_close(y[:3], z[:3])
        torch.testing.assert_close(y[:, 1], z[:, 1])
        torch.testing.assert_close(net(x[:3]), y[:3])
        assert not torch.allclose(y[3:, 0], z[3:, 0])

    def test_sizes_without_biases_are_refused(self):
        net = small("sts_transformer")
        with pytest.raises(ValueError, match="build it with T=6"):
            net(torch.rand(6, 1, 2, 32, 32))
        with pytest.raises(ValueError, match="image_size=48"):
            net(torch.rand(5, 1, 2, 48, 48))


class TestSSTFormer:
    @pytest.mark.parametrize("compat", [None, "official"])
    def test_the_whole_network_fits_together(self, compat):
        with torch.device("meta"), torch.no_grad():
            net = create_model("sstformer_poker", compat=compat).eval()
            frames, events = torch.empty(16, 2, 3, 240, 240), torch.empty(16, 2, 12, 60, 90)
            assert net(beside(frames, events)).shape == (1, 2, 114)

    def test_both_inputs_reach_the_classes(self):
        net = small("sstformer").eval()
        frames = torch.rand(8, 2, 3, 64, 64, requires_grad=True)
        events = (3 * torch.rand(8, 2, 2, 16, 16)).requires_grad_()
        net(beside(frames, events))[0, 0, 3].backward()
        for gradient in (frames.grad, events.grad):
            assert (gradient[:, 0] != 0).flatten(1).any(1).all(), "every step"
            assert not gradient[:, 1].any(), "of this sample alone"

    def test_what_compat_changes_in_the_event_branch(self):
        torch.manual_seed(0)
        config = EventEncoderConfig(channels=2, widths=(4,))
        net = EventEncoder(config)
        spiking, _ = net.stages[0](torch.rand(3, 1, 2, 8, 8) * 5)
        assert set(spiking.unique().tolist()) <= {0.0, 1.0}
        official = EventEncoder(dataclasses.replace(config, compat="official"))
        official.load_state_dict(net.state_dict())
        membranes, _ = official.stages[0](torch.rand(3, 1, 2, 8, 8) * 5)
        assert not set(membranes.unique().tolist()) <= {0.0, 1.0}

    def test_wrong_numbers_of_tokens(self):
        net = MemoryTransformer(MemoryConfig(dim=8, heads=2, clip=1, tokens=4))
        with pytest.raises(ValueError, match="got 9 tokens"):
            net(torch.rand(1, 9, 8))
        with pytest.raises(ValueError, match="must divide dim"):
            MemoryConfig(dim=10, heads=4)


class TestSpikformerLT:
    def test_transforms_are_orthonormal_or_their_real_part(self):
        x = torch.randn(2, 8, 4, dtype=torch.float64)
        for over in ("tokens", "both"):
            y = wavelet(x, over)
            torch.testing.assert_close(y.square().sum(), x.square().sum())
        assert torch.equal(wavelet(x, "tokens")[..., :2], (x[..., ::2] + x[..., 1::2]) * 0.5**0.5)
        # A constant is its own lowest frequency.
        spectrum = fourier(torch.ones(1, 8, 4), "both")
        assert spectrum[0, 0, 0] == pytest.approx(32**0.5)
        assert spectrum.abs().sum() == pytest.approx(32**0.5)

    def test_nothing_is_learnt_in_the_mixing_but_its_norm(self):
        mixer = small("spikformer_lt").blocks[0].attn
        assert sorted(name for name, _ in mixer.named_parameters()) == ["norm.bias", "norm.weight"]


class TestSpikingViTDTS:
    def test_it_begins_as_spikformer(self):
        net = small("spiking_vit_dts").eval()
        weights = {k.replace("neuron.neuron", "neuron"): v for k, v in net.state_dict().items()}
        twin = small("spikformer", image_size=8, T=5).eval()
        twin.load_state_dict({k: v for k, v in weights.items() if not k.endswith("scores")})
        x = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(net(x), twin(x))

    def test_silent_steps_and_their_penalty(self):
        net = small("spiking_vit_dts").eval()
        gate = next(iter(net.gates().values()))
        gate.scores.data[1] = -1.0
        spikes = gate(torch.full((5, 1, 4), 4.0))
        assert not spikes[1].any() and spikes[[0, 2, 3, 4]].all()
        assert net.mean_steps() == pytest.approx(5 - 1 / len(net.gates()))
        net.time_penalty().backward()
        assert (gate.scores.grad > 0).all()
        with pytest.raises(ValueError, match="T=6"):
            gate(torch.zeros(6, 1, 4))


class TestDISTA:
    def test_without_memory_and_noise_it_attends_as_spikformer(self):
        net = small("dista", window=0, noise=0.0, neuron="lif").eval().blocks[0].attn
        twin = SpikingSelfAttention(32, 2, LIF, scale=0.5, qkv_bias=True).eval()
        twin.load_state_dict({k.replace(".unit.", "."): v for k, v in net.state_dict().items()})
        x = torch.randint(0, 3, (3, 1, 32, 4, 4)).float()
        assert torch.equal(net(x), twin(x))

    def test_memory_reaches_back_as_far_as_the_window(self):
        spikes = (torch.rand(4, 1, 2, 16, 16) > 0.5).float()
        assert torch.equal(_earlier(spikes, 1)[1:], spikes[:-1])
        assert not _earlier(spikes, 2)[:2].any()
        with torch.device("meta"):
            sizes = [create_model("dista_cifar10_4_384", window=window) for window in (0, 1, 2)]
        counts = [sum(p.numel() for p in net.parameters()) for net in sizes]
        # One more map for queries, keys and values of every block.
        assert counts[1] - counts[0] == counts[2] - counts[1] == 4 * 3 * 384 * 384


class TestMAST:
    def test_the_stem_attends_before_every_neuron(self):
        net = small("mast").eval()
        seen = []
        for stage in net.stem.stages:
            stage.neuron.attention.register_forward_hook(
                lambda module, given, out: seen.append((given[0], out))
            )
        net(torch.rand(2, 3, 8, 8))
        assert len(seen) == 4
        for given, weighted in seen:
            # Scores lie in (0, 1), and nothing negative is left.
            assert (weighted >= 0).all() and (weighted <= given.clamp(min=0)).all()
            assert not torch.equal(weighted, given.clamp(min=0))

    def test_its_neurons_fire_from_the_start(self):
        """Scores near 1/2 for each of three dimensions would leave an eighth of the current."""
        torch.manual_seed(0)
        net = create_model("mast_cifar10_4_384", depth=1, dim=64, heads=2)
        for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = 1.0
        net(torch.randn(8, 3, 32, 32))
        rates = firing_rates(net, torch.randn(8, 3, 32, 32))
        assert min(r for name, r in rates.items() if name.startswith("stem.stages")) > 0.005

    def test_it_cannot_stream(self):
        with (
            pytest.raises(ValueError, match="not causal"),
            rheobase.streaming(small("mast").eval()),
        ):
            pass


class TestTESpikformer:
    def test_queries_see_keys_of_every_step(self):
        net = small("te_spikformer").eval()
        mixer = net.blocks[0].attn
        x = torch.randint(0, 3, (3, 1, 32, 2, 2)).float()
        other = x.clone()
        other[2] = 0.0
        maps = []
        mixer.map.register_forward_hook(lambda _m, _in, out: maps.append(out))
        first, second = mixer(x), mixer(other)
        assert maps[0].shape == (3, 1, 2, 12, 4)  # keys of three steps of four tokens
        assert set(maps[0].unique().tolist()) <= {0.0, 1.0}
        assert not torch.equal(maps[0][:2], maps[1][:2])
        assert first.shape == second.shape == x.shape

    def test_the_tokenizer_is_normalised_over_groups_of_channels(self):
        net = small("te_spikformer", norm_groups=2)
        norms = [unit.norm for unit in (*net.stem.stages, net.stem.position)]
        assert {type(norm) for norm in norms} == {BGN}
        assert {norm.bn.num_features for norm in norms} == {2}
        assert not any(isinstance(module, BGN) for module in net.blocks.modules())
