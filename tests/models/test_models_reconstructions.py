"""Reconstructions: spiking transformers without public code, held to what is published of them.

Each is compared, whole and with all gradients, with a plain transcription of the equations that its
docstring names, and with every number that was at hand.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from model_toys import small
from spikformer_by_hand import ByHand, assert_same, lively
from torch import Tensor

from rheobase.measure import count_operations
from rheobase.models import create_model
from rheobase.train import TrainConfig, train
from rheobase.train.config import (
    DataConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
)
from rheobase.train.losses import StepsTerm


def images(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, dtype=torch.float64)


def parameters(name: str, **overrides: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **overrides).parameters())


class TestSpikformerLT:
    """Wang et al. 2023, arXiv 2308.02557."""

    @pytest.mark.parametrize("over", ["tokens", "both"])
    @pytest.mark.parametrize("transform", ["fourier", "wavelet"])
    def test_it_is_spikformer_with_a_transform_in_attentions_place(self, transform, over):
        net = lively(small("spikformer_lt", transform=transform, over=over, depth=2))
        mix = {"fourier": fourier_by_sums, "wavelet": haar_by_pairs}[transform]

        def mixer(hand: ByHand, name: str, x: Tensor) -> Tensor:
            y = mix(x.flatten(3), over).reshape(x.shape)
            return hand.neuron(f"{name}.neuron", hand.norm(f"{name}.norm", y))

        assert_same(net, ByHand(net, mixer), images(8))

    @pytest.mark.parametrize("transform", ["fourier", "wavelet"])
    @pytest.mark.parametrize("host", ["cifar10_4_384", "cifar10dvs_2_256", "dvs128_2_256"])
    def test_nothing_is_learnt_in_attentions_place(self, transform, host):
        """No weights of queries, keys, values and projection: only a norm's two vectors stay."""
        depth, dim = (int(part) for part in host.split("_")[-2:])
        maps = 4 * dim * dim + (4 * dim if "cifar10_" in host else dim)
        norms = 3 * 2 * dim  # four in attention, one here
        left = parameters(f"spikformer_lt_{transform}_{host}")
        assert parameters(f"spikformer_{host}") - left == depth * (maps + norms)

    def test_no_weight_is_multiplied_in_attentions_place(self):
        work = {}
        for name in ("spikformer_cifar10_4_384", "spikformer_lt_fourier_cifar10_4_384"):
            net = create_model(name, depth=1, dim=32, heads=2, T=1).eval()
            layers = count_operations(net, torch.rand(1, 3, 32, 32)).layers
            inside = [
                la for la in layers if la.name.startswith("blocks.0") and ".mlp" not in la.name
            ]
            work[name] = sum(layer.macs for layer in inside)
        attention, transform = work.values()
        assert attention > 4 * 32 * 32 * 64  # its four maps of 64 tokens, and two products
        assert transform == 0


def fourier_by_sums(x: Tensor, over: str) -> Tensor:
    """The real part of the discrete Fourier transform of ``[..., C, tokens]``, term by term."""
    channels, tokens = x.shape[-2:]
    angles = frequencies(tokens)
    if over == "tokens":
        return x @ angles.cos().T / tokens**0.5
    rows = frequencies(channels)
    both = rows.cos() @ x @ angles.cos().T - rows.sin() @ x @ angles.sin().T
    return both / (tokens * channels) ** 0.5


def frequencies(count: int) -> Tensor:
    place = torch.arange(count, dtype=torch.float64)
    return 2 * math.pi * place[:, None] * place[None, :] / count


def haar_by_pairs(x: Tensor, over: str) -> Tensor:
    """Sums, then differences, of neighbours, over the root of 2."""
    means = [(x[..., i] + x[..., i + 1]) / 2**0.5 for i in range(0, x.shape[-1], 2)]
    differences = [(x[..., i] - x[..., i + 1]) / 2**0.5 for i in range(0, x.shape[-1], 2)]
    y = torch.stack(means + differences, -1)
    return y if over == "tokens" else haar_by_pairs(y.mT, "tokens").mT


class TestSpikingViTDTS:
    """Datta et al. 2023, arXiv 2311.16456."""

    def test_a_scalar_mask_filters_the_spikes_of_a_layer_at_a_step(self):
        net = lively(small("spiking_vit_dts", depth=2))
        for gate in net.gates().values():
            torch.nn.init.normal_(gate.scores, 0.7, 0.6)  # some steps are off
        assert 2.0 < net.mean_steps() < 5.0

        def gate_by_hand(hand: ByHand, name: str, spikes: Tensor) -> Tensor:
            steps = []
            for t, fired in enumerate(spikes):
                score = hand.w[f"{name}.scores"][t]
                share = 1 / (1 + (-score).exp())
                hard = (score > 0).to(share.dtype)
                steps.append(fired * (hard + (share - share.detach())))
            return torch.stack(steps)

        assert_same(net, ByHand(net, spiking_attention, gate_by_hand), images(8))

    def test_parameters_are_those_of_the_survey(self):
        """S1, table IV: 29.68 M for ImageNet, as Spikformer; scores are one a layer and step."""
        spikformer = parameters("spikformer_8_512")
        assert round(spikformer / 1e6, 2) in (29.68, 29.69)
        layers = 5 + 8 * 7  # of the stem; of a block: q, k, v, product, projection, two of the MLP
        assert parameters("spiking_vit_dts_8_512") == spikformer + 4 * layers
        assert parameters("spiking_vit_dts_cifar10_4_384") == (
            parameters("spikformer_cifar10_4_384") + 6 * (5 + 4 * 7)
        )

    def test_all_but_the_embedding_accumulates(self):
        """Whatever comes after the first convolution takes spikes, or sums of few of them."""
        net = lively(small("spiking_vit_dts"))
        first, *others, head = count_operations(net, images(8)).layers
        assert first.first and first.spiking.values == "analog" and head.name == "head"
        assert {layer.spiking.values for layer in others} <= {"spikes", "integers"}

    def test_the_reported_time_steps_are_the_mean_over_layers(self):
        net = small("spiking_vit_dts")
        gates = list(net.gates().values())
        with torch.no_grad():
            for number, gate in enumerate(gates):
                gate.scores[: 5 - number % 4] = 1.0
                gate.scores[5 - number % 4 :] = -1.0
        on = [5 - number % 4 for number in range(len(gates))]
        assert net.mean_steps() == pytest.approx(sum(on) / len(on))

    def test_training_turns_steps_off_as_much_as_is_asked(self, tmp_path: Path):
        data = torch.utils.data.TensorDataset(torch.rand(40, 3, 8, 8), torch.arange(40) % 4)
        steps = {}
        for weight in (0.0, 5.0):
            net = small("spiking_vit_dts", num_classes=4)
            cfg = TrainConfig(
                run=str(tmp_path / str(weight)),
                device="cpu",
                epochs=10,
                model=ModelConfig("spiking_vit_dts_cifar10_4_384"),
                data=DataConfig("cifar10", batch_size=20),
                loss=LossConfig(steps_weight=weight),
                optim=OptimConfig("adamw", lr=0.15, weight_decay=0.0),
                schedule=ScheduleConfig("constant"),
                log=LogConfig(progress="never"),
            )
            train(cfg, net, data, data)
            steps[weight] = net.mean_steps()
        assert steps[5.0] < 0.7 * steps[0.0]

    def test_another_network_has_no_such_penalty(self):
        with (
            pytest.raises(ValueError, match="got Spikformer"),
            StepsTerm(1.0).watching(small("spikformer"), torch.rand(1, 3, 8, 8)),
        ):
            pass


def spiking_attention(hand: ByHand, name: str, x: Tensor) -> Tensor:
    """Spikformer's own, which the host keeps."""
    q, k, v = (hand.unit(f"{name}.{part}", x) for part in "qkv")
    mixed = hand.neuron(f"{name}.neuron", hand.attention(q, k, v), threshold=0.5)
    return hand.unit(f"{name}.proj", mixed)


class TestDISTA:
    """Xu et al. 2023, arXiv 2311.09376: the reading that the module names."""

    def test_memory_noise_and_learnt_time_constants(self):
        net = lively(small("dista", image_size=8, window=2, noise=1.0, depth=2))
        for name, parameter in net.named_parameters():
            if name.endswith("neuron.w"):
                torch.nn.init.normal_(parameter, 0.3, 0.4)

        def mixer(hand: ByHand, name: str, x: Tensor) -> Tensor:
            q, k, v = (hand.unit(f"{name}.{part}.unit", remembered(x)) for part in "qkv")
            y = hand.attention(q, k, v, noise=1.0)
            return hand.unit(f"{name}.proj", hand.neuron(f"{name}.neuron", y, threshold=0.5))

        def remembered(x: Tensor) -> Tensor:
            """Spikes of a step and of the two before it, zero before the first."""
            none = torch.zeros_like(x[0])
            return torch.stack(
                [torch.cat([x[t - lag] if t >= lag else none for lag in range(3)], 1)
                 for t in range(len(x))]
            )  # fmt: skip

        assert_same(net, ByHand(net, mixer), images(8))
