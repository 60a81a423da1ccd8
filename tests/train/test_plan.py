"""`rheobase plan`: what it predicts from a few images is what a step on many needs."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rheobase.cli import main
from rheobase.models import create_model
from rheobase.train import TrainConfig
from rheobase.train.config import DataConfig, LossConfig, ModelConfig, OptimConfig
from rheobase.train.plan import Plan, _drawn, _Step, plan

NET = {"depth": 1, "dim": 64, "heads": 2, "T": 4}


def _config(batch: int, accumulate: int = 1) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig("spikformer_cifar10_4_384", NET),
        data=DataConfig(batch_size=batch),
        optim=OptimConfig(accumulate=accumulate),
    )


def test_memory_that_is_there_says_how_many_images_fit():
    found = Plan(32, (4, 8), 1000.0, 10.0, 0.5, 7)
    assert found.fits(1000.0) == 32
    assert found.fits(1500.0) == 82
    assert found.fits(100.0) == 0


def test_a_batch_is_cut_among_processes_and_micro_batches(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text(
        "model: {name: spikformer_cifar10_4_384, overrides: {depth: 1, dim: 32, heads: 2, T: 2}}\n"
    )
    arguments = ["data.batch_size=64", "optim.accumulate=2", "--processes", "4", "--memory", "2"]
    assert main(["plan", str(tmp_path / "run.yaml"), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "8 samples in one forward pass" in shown and "2 GiB hold" in shown
    with pytest.raises(ValueError, match="cannot be cut evenly among 3 processes"):
        plan(_config(64), processes=3)


def test_recordings_are_probed_with_frames_that_differ():
    net = {"depth": 1, "dim": 32, "heads": 2, "T": 4, "image_size": 32}
    model = ModelConfig("spikformer_cifar10dvs_2_256", net)
    probed = []
    for name, options in (("cifar10dvs", {"frames": 4}), ("cifar10", {}), ("sequences", {})):
        cfg = TrainConfig(model=model, data=DataConfig(name=name, options=options))
        made = create_model(model.name, **net)
        probed.append(_drawn(cfg, made, torch.device("cpu"), 3).shape)
    assert probed == [(4, 3, 2, 32, 32), (3, 2, 32, 32), (4, 3, 2, 32, 32)]
    recordings = TrainConfig(model=model, data=DataConfig(name="cifar10dvs", batch_size=8))
    assert plan(recordings).images == 8


def test_texts_are_probed_with_words():
    net = {"vocabulary": 20, "dim": 16, "depth": 1}
    texts = DataConfig(name="characters", batch_size=16, options={"length": 12})
    language = TrainConfig(model=ModelConfig("spikegpt_18_768", net), data=texts)
    of_words = dataclasses.replace(language, loss=LossConfig(name="next_token"))
    made = create_model("spikegpt_18_768", **net)
    cpu = torch.device("cpu")
    assert _drawn(of_words, made, cpu, 3).shape == (12, 3)
    assert _drawn(language, made, cpu, 3).shape == (3, 12)
    assert plan(of_words).images == 16
    with pytest.raises(ValueError, match="Spikformer does not say how many words it knows"):
        plan(dataclasses.replace(_config(16), data=texts))


def test_noise_makes_no_step_shorter_than_one_on_fewer_images(monkeypatch):
    monkeypatch.setattr(_Step, "measured", lambda self, count: (1e9 + count, 1.0 / count))
    assert plan(_config(64)).step_seconds == 1.0 / 8


@pytest.mark.long
def test_predicted_peak_is_what_a_step_needs():
    predicted = _peak_in_a_process_of_its_own("")
    needed = _peak_in_a_process_of_its_own("""
class Probe(module._Step):
    def measured(self, count):
        self.run(64)
        return module._peak(self.device), 1.0
module._Step = Probe
""")
    assert predicted == pytest.approx(needed, rel=0.15)


def _peak_in_a_process_of_its_own(changed: str) -> float:
    """Of `plan`; one that has trained before holds on to memory."""
    code = f"""
from test_plan import _config
from rheobase.train import plan as module
{changed}
print(module.plan(_config(64)).peak_bytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return float(done.stdout.split()[-1])
