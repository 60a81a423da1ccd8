"""Training that starts from weights: ``model.weights``."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from rheobase.models import create_model, save_model
from rheobase.train import Trainer, load_config, train
from rheobase.train.evaluate import load_run

SMALL = "model.overrides={dim: 16, heads: 2, depth: 1, T: 1}"


def start(tmp_path: Path, *settings: str) -> torch.nn.Module:
    options = ["model.name=spikformer_mnist_2_64", f"run={tmp_path / 'run'}", *settings]
    trainer = Trainer(load_config(None, options))
    trainer.close()
    return trainer.model


def test_it_starts_from_the_weights_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(7)
    net = create_model("spikformer_mnist_2_64", dim=16, heads=2, depth=1, T=1)
    save_model(net, tmp_path / "first.safetensors", "spikformer")
    fresh = start(tmp_path / "a", SMALL)
    assert not torch.equal(fresh.head.weight, net.head.weight)
    # At another T, as second steps are.
    more = SMALL.replace("T: 1", "T: 2")
    model = start(tmp_path / "b", more, f"model.weights={tmp_path / 'first.safetensors'}")
    assert model.T == 2
    torch.testing.assert_close(model.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_it_starts_from_the_weights_of_a_run(tmp_path: Path) -> None:
    """As the second step of Meta-SpikeFormer does."""
    digits = TensorDataset(torch.rand(16, 1, 28, 28), torch.randint(10, (16,)))
    run = tmp_path / "first"
    options = [
        "model.name=spikformer_mnist_2_64",
        SMALL,
        f"run={run}",
        "epochs=1",
        "data.batch_size=8",
    ]
    trained = train(load_config(None, options), None, digits, digits).model
    model = start(tmp_path, SMALL.replace("T: 1", "T: 2"), f"model.weights={run}")
    torch.testing.assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    net = create_model("spikformer_mnist_2_64", dim=16, heads=2, depth=1, num_classes=5)
    save_model(net, tmp_path / "first.safetensors", "spikformer")
    with pytest.raises(ValueError, match=r"model\.weights=.*does not fit spikformer_mnist_2_64"):
        start(tmp_path, SMALL, f"model.weights={tmp_path / 'first.safetensors'}")
    model = start(tmp_path / "fresh", SMALL.replace("T: 1", "T: 4"), "model.fresh=[head]",
                  f"model.weights={tmp_path / 'first.safetensors'}")  # fmt: skip
    theirs = net.state_dict()
    for name, value in model.state_dict().items():
        assert name.startswith("head.") or torch.equal(value, theirs[name])
    other = create_model("qkformer_cifar10_4_384", dim=32, heads=2, depth=3)
    save_model(other, tmp_path / "other.safetensors", "qkformer")
    with pytest.raises(ValueError, match="it holds a QKFormer, no Spikformer"):
        start(tmp_path, SMALL, f"model.weights={tmp_path / 'other.safetensors'}")
    with pytest.raises(FileNotFoundError):
        start(tmp_path, SMALL, f"model.weights={tmp_path / 'nothing'}")


def test_weights_of_another_number_of_steps_are_refused(tmp_path: Path) -> None:
    digits = TensorDataset(torch.rand(8, 1, 28, 28), torch.randint(10, (8,)))
    run = tmp_path / "run"
    settings = ["features: 4 A", "channels: 1", "image_size: 28", "norm: tebn", "T: 2"]
    options = [
        "model.name=vggsnn", f"model.overrides={{{', '.join(settings)}}}", "epochs=1",
        "data.batch_size=8", "device=cpu", f"run={run}",
    ]  # fmt: skip
    train(load_config(None, options), train_set=digits, test_set=digits)
    match = r"features\.1\.p is \[2\] there and is \[3\] in this SpikingVGG .* only the T that"
    with pytest.raises(ValueError, match=match):
        load_run(run, settings=["model.overrides.T=3"])
