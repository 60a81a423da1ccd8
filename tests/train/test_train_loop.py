from __future__ import annotations

import csv
import dataclasses
import os
import signal
import stat
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from train_toys import CLASSES, Net, config, images

from rheobase.layers import recompute
from rheobase.models import create_model
from rheobase.train import (
    CheckpointError,
    Event,
    Trainer,
    TrainingDiverged,
    evaluate,
    load_weights,
    train,
)
from rheobase.train.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    LogConfig,
    LossConfig,
    MemoryConfig,
    OptimConfig,
    ParallelConfig,
    TrainConfig,
)
from rheobase.train.run import RunFolder

TRAIN, TEST = images(70), images(30, seed=1)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


def whole_run(cfg: TrainConfig) -> tuple[Tensor, str]:
    result = train(cfg, Net(dropout=0.1), TRAIN, TEST)
    return weights(result.model), (result.run / "steps.csv").read_text()


def test_learns_and_reports(tmp_path: Path) -> None:
    events: list[Event] = []
    result = train(config(tmp_path, epochs=6), Net(), TRAIN, TEST, events.append)
    assert result.accuracy > 0.9 and result.best_accuracy >= result.accuracy
    assert result.steps == 24 and len(result.epochs) == 6
    assert [e.kind for e in events[:6]] == ["start", "step", "step", "step", "step", "epoch"]
    assert events[-1].kind == "end" and events[-1].step == events[-1].total == 24
    losses = [event.values["loss"] for event in events if event.kind == "step"]
    with open(tmp_path / "steps.csv", newline="") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == losses
    again = train(config(tmp_path, epochs=6), Net(3), TRAIN, TEST)
    assert again.epochs == result.epochs and torch.equal(
        weights(again.model), weights(result.model)
    )


# Every part that carries something from step to step, or draws a random number.
BUSY = {
    "augment": AugmentConfig(shift=1, flip=0.5, mixup=0.5, cutmix=1.0, mix_until=2),
    "optim": OptimConfig(name="lamb", lr=0.01, clip=0.5, ema=0.9, accumulate=2),
    "loss": LossConfig("tet", 0.1),
    "epochs": 3,
}


@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_anywhere_changes_nothing(tmp_path: Path, workers: int) -> None:
    changes = BUSY | {"data": DataConfig(batch_size=16, workers=workers)}
    expected, log = whole_run(config(tmp_path / "whole", **changes))
    cfg = config(tmp_path / "pieces", **changes)
    for seed, steps in enumerate((2, 3, 5)):  # stops inside an epoch, and at its end
        trainer = Trainer(cfg, Net(seed, dropout=0.1), TRAIN, TEST)
        events = trainer.events()
        for _ in range(steps + 1):
            next(events)
        events.close()
        trainer.close()
    got, pieces = whole_run(cfg)
    assert torch.equal(got, expected) and pieces == log


def test_two_trainers_in_turns_do_not_touch_each_other(tmp_path: Path) -> None:
    changes = {"augment": AugmentConfig(shift=1)}
    expected = [whole_run(config(tmp_path / f"alone{s}", seed=s, **changes)) for s in (0, 1)]
    trainers = [
        Trainer(config(tmp_path / f"both{s}", seed=s, **changes), Net(dropout=0.1), TRAIN, TEST)
        for s in (0, 1)
    ]
    for _ in zip(*(trainer.events() for trainer in trainers), strict=True):
        pass
    for trainer, (state, log) in zip(trainers, expected, strict=True):
        assert torch.equal(weights(trainer.model), state)
        assert (Path(trainer.cfg.run) / "steps.csv").read_text() == log
        trainer.close()


def test_ctrl_c_saves_and_continues(tmp_path: Path) -> None:
    expected, log = whole_run(config(tmp_path / "whole"))
    cfg = config(tmp_path / "stopped", checkpoint=CheckpointConfig(every_steps=0))

    def press(event: Event) -> None:
        if event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 3; run again"):
        train(cfg, Net(dropout=0.1), TRAIN, TEST, press)
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "stopped/checkpoints/latest").read_text().strip().endswith("step-000000003")
    got, pieces = whole_run(cfg)
    assert torch.equal(got, expected) and pieces == log


def test_a_damaged_checkpoint_is_not_continued_from(tmp_path: Path) -> None:
    whole_run(config(tmp_path))
    latest = tmp_path / "checkpoints" / (tmp_path / "checkpoints/latest").read_text().strip()
    with open(latest / "state.pt", "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=r"state\.pt is truncated or was changed: sha256"):
        whole_run(config(tmp_path))
    others = [p for p in (tmp_path / "checkpoints").glob("epoch-*") if p != latest]
    load_weights(Net(), others[0])


class Poison(nn.Module):
    """Passes its input on, until it does not."""

    after = 3

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        self.after -= 1
        return x / 0.0 - x / 0.0 if self.after < 0 else x


def test_nan_names_the_layer_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    model = Net()
    model.blocks.insert(1, Poison())
    with pytest.raises(TrainingDiverged, match=r"step 4: .*'blocks\.1' \(Poison\).*NaN") as error:
        train(config(tmp_path), model, TRAIN, TEST)
    assert "step-000000003" in str(error.value)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def test_an_infinite_gradient_names_the_parameter(tmp_path: Path) -> None:
    model = Net()
    model.blocks[1].register_forward_hook(lambda module, args, out: BadGradient.apply(out))
    with pytest.raises(TrainingDiverged, match=r"gradient of 'blocks\.1\.bias' is the first"):
        train(config(tmp_path), model, TRAIN, TEST)


class Boom(Poison):
    """Passes its input on, until it shouts."""

    def forward(self, x: Tensor) -> Tensor:
        self.after -= self.training
        return x * 1e9 if self.after < 0 else x


def test_explosion_names_the_loudest_layer(tmp_path: Path) -> None:
    model = Net()
    model.blocks.insert(1, Boom())
    with pytest.raises(TrainingDiverged, match=r"step 4: .*all numbers are finite.*layer 'blocks"):
        train(config(tmp_path), model, TRAIN, TEST)


def test_bad_input_is_refused_at_the_door(tmp_path: Path) -> None:
    model = Net()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'head\.weight' holds 1 NaN"):
        train(config(tmp_path), model, TRAIN, TEST)
    integers = TensorDataset((TRAIN.tensors[0] * 255).byte(), TRAIN.tensors[1])
    with pytest.raises(TypeError, match=r"images are torch\.uint8; expected a floating type"):
        train(config(tmp_path), Net(), integers, TEST)
    many = TensorDataset(TRAIN.tensors[0], TRAIN.tensors[1] + 2)
    with pytest.raises(ValueError, match=r"labels .*5 but the model has 4 outputs.*num_classes=6"):
        train(config(tmp_path), Net(), many, TEST)
    below = TensorDataset(TRAIN.tensors[0], TRAIN.tensors[1] - 1)
    with pytest.raises(ValueError, match=r"labels -1.*number its classes from 0 on"):
        train(config(tmp_path), Net(), below, TEST)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    with pytest.raises(ValueError, match=r"returns shape \[1, 4\] for one image"):
        train(config(tmp_path), flat, TRAIN, TEST)
    with pytest.raises(ValueError, match="fewer than"):
        train(config(tmp_path), Net(), images(3), TEST)
    with pytest.raises(ValueError, match="both train_set and test_set"):
        train(config(tmp_path), Net(), TRAIN)
    with pytest.raises(ValueError, match="empty"):
        evaluate(Net(), images(0))


def test_labels_that_a_data_set_keeps_are_looked_at_before_the_first_step(tmp_path: Path) -> None:
    rare = TensorDataset(*TEST.tensors)
    rare.labels = TEST.tensors[1].clone()
    rare.labels[-1] = 7
    with pytest.raises(ValueError, match=r"labels 0\.\.\.7 but the model has 4 outputs"):
        Trainer(config(tmp_path), Net(), TRAIN, rare)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device=cpu"):
        train(config(tmp_path, device="cuda"), Net(), TRAIN, TEST)
    with pytest.raises(ValueError, match="device='gpu' is unknown"):
        train(config(tmp_path, device="gpu"), Net(), TRAIN, TEST)


def test_combinations_that_cannot_work(tmp_path: Path) -> None:
    cfg = config(tmp_path, parallel=ParallelConfig(strategy="fsdp"))
    with pytest.raises(ValueError, match="torchrun"):
        train(cfg, Net(), TRAIN, TEST)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path), Net(), TRAIN, TEST)
    with pytest.raises(RuntimeError, match=rf"pid {os.getpid()}"):
        Trainer(config(tmp_path), Net(), TRAIN, TEST)
    child = os.fork()
    if child == 0:  # as a loader worker that outlives a killed run would
        signal.pause()
    trainer.close()
    try:
        train(config(tmp_path), Net(), TRAIN, TEST)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_closed_folder_is_free_while_a_child_still_has_its_copy(tmp_path: Path) -> None:
    folder = RunFolder(config(tmp_path))
    copy = os.dup(folder._lock)  # as a fork has until it closes its own
    folder.close()
    RunFolder(config(tmp_path)).close()
    os.close(copy)


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    whole_run(config(tmp_path))
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        whole_run(config(tmp_path, seed=1))
    whole_run(config(tmp_path, log=LogConfig(progress="never", tensorboard=False)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_as_a_user(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OSError, match="not writable"):
        whole_run(config(tmp_path / "run"))


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"not writable.*run=\.\.\."):
        whole_run(config(tmp_path / "file" / "run"))


def test_evaluate_counts(tmp_path: Path) -> None:
    class Steps(nn.Module):
        """Right from the second step on; the first step shouts a wrong class."""

        def forward(self, x: Tensor) -> Tensor:
            label = nn.functional.one_hot(x[:, 0, 0, 0].long(), 10).float()
            return torch.stack([2 * label.roll(1, 1), 3 * label, 3 * label])

    labels = torch.arange(20) % 10
    dataset = TensorDataset(labels.float().view(-1, 1, 1, 1), labels)
    found = evaluate(Steps(), dataset, batch_size=7)
    assert found.accuracy_at == [0.0, 1.0, 1.0] and found.accuracy == found.top5 == 1.0
    assert torch.equal(found.confusion, 2 * torch.eye(10, dtype=torch.long))
    assert found.summary()["accuracy_T1"] == 0.0 and found.summary()["samples"] == 20
    model = Net().train()
    evaluate(model, TEST)
    assert model.training


def test_as_many_classes_as_words_are_counted_without_a_matrix() -> None:
    """Of the 50,277 words of SpikeGPT it would take 20 GB."""

    class Right(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = nn.functional.one_hot(x[:, 0, 0, 0].long(), 50_277).float()
            return logits.unsqueeze(0)

    labels = torch.arange(0, 50_000, 10_000)
    found = evaluate(Right(), TensorDataset(labels.float().view(-1, 1, 1, 1), labels))
    assert found.confusion is None
    assert (found.accuracy, found.samples, found.summary()["samples"]) == (1.0, 5, 5.0)


def test_event_recordings_are_turned_time_first(tmp_path: Path) -> None:
    class Events(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[0] == 5  # [T, N, C, H, W]
            return self.linear(x.flatten(2))  # type: ignore[no-any-return]

    recordings = TensorDataset(
        TRAIN.tensors[0].unsqueeze(1).expand(-1, 5, 1, 8, 8), TRAIN.tensors[1]
    )
    assert train(config(tmp_path), Events(), recordings, recordings).steps == 8


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision(tmp_path: Path, precision: str) -> None:
    cfg = config(tmp_path, precision=precision, epochs=6)
    assert train(cfg, Net(), TRAIN, TEST).best_accuracy > 0.7


def test_less_memory_is_the_same_run(tmp_path: Path) -> None:
    def spiking() -> nn.Module:
        torch.manual_seed(0)
        return create_model("spikformer_mnist_2_64", image_size=8, dim=16, heads=2, num_classes=4)

    probe = recompute(spiking(), TRAIN[:4][0], 1e12, scale=4)
    half = MemoryConfig(probe.kept_before / 2 / 2**30)
    runs = []
    for name, memory in (("all", MemoryConfig()), ("half", half)):
        cfg = config(tmp_path / name, memory=memory, epochs=1)
        result = train(cfg, spiking(), TRAIN, TEST)
        runs.append((weights(result.model), (result.run / "steps.csv").read_text()))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    with pytest.raises(ValueError, match=r"keeps .* MiB even if all its blocks"):
        train(config(tmp_path / "none", memory=MemoryConfig(1e-9)), spiking(), TRAIN, TEST)


def test_progress_tensorboard_and_other_threads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    cfg = config(tmp_path, log=LogConfig(progress="always", tensorboard=True))
    thread = threading.Thread(target=train, args=(cfg, Net(), TRAIN, TEST))
    thread.start()
    thread.join()
    assert "accuracy" in capsys.readouterr().err
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_best_checkpoint_is_kept(tmp_path: Path) -> None:
    cfg = config(tmp_path, epochs=5, checkpoint=CheckpointConfig(keep=1))
    result = train(cfg, Net(), TRAIN, TEST)
    best = (tmp_path / "checkpoints/best").read_text().strip()
    model = Net(5)
    load_weights(model, tmp_path / "checkpoints" / best)
    assert evaluate(model, TEST).accuracy == result.best_accuracy
    assert dataclasses.asdict(result)["epochs"] == result.epochs
