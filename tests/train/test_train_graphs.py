"""Training passes as CUDA graphs."""

import copy

import pytest
import torch
from torch import nn

from rheobase.models import create_model
from rheobase.train import TrainConfig, Trainer, graphed
from rheobase.train.config import DataConfig, RuleConfig, TemperatureConfig

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@on_a_gpu
def test_replayed_steps_are_the_eager_ones() -> None:
    torch.manual_seed(0)
    eager = create_model("spikformer_cifar10_4_256", depth=1).cuda().train()
    replayed = copy.deepcopy(eager)
    batches = torch.randn(3, 8, 3, 32, 32, device="cuda")
    nets = [eager, graphed(replayed, batches[0])]
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in nets]
    for images in batches:
        losses = []
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            losses.append(net(images).square().mean())
            losses[-1].backward()
            optimizer.step()
        torch.testing.assert_close(losses[0], losses[1])
    for (name, a), b in zip(
        eager.state_dict().items(), replayed.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, msg=name)


def test_network_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"on a GPU, got them on \['cpu'\]"):
        graphed(nn.Linear(2, 3), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, "device=cuda"),
        ({"rule": RuleConfig("ottt")}, "rule=bptt"),
        ({"temperature": TemperatureConfig(step=0.1)}, "temperature.step=0"),
    ],
)
def test_run_that_cannot_be_replayed_is_refused(options, needs, tmp_path) -> None:
    data = DataConfig(batch_size=8)
    cfg = TrainConfig(run=str(tmp_path), device="cpu", data=data, cuda_graph=True, **options)
    model = create_model("spikformer_mnist_2_64", depth=1)
    with pytest.raises(ValueError, match=rf"cuda_graph=true needs .*{needs}"):
        Trainer(cfg, model, *_digits())


def _digits() -> tuple[torch.utils.data.TensorDataset, torch.utils.data.TensorDataset]:
    data = torch.utils.data.TensorDataset(torch.rand(64, 1, 28, 28), torch.arange(64) % 10)
    return data, data
