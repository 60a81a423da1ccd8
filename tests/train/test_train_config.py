from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from rheobase.train import TrainConfig, load_config, save_config
from rheobase.train.config import LossConfig, RuleConfig, ScheduleConfig, TeacherConfig
from rheobase.train.config_file import differences

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\noptim: {lr: 1e-3, betas: [0.8, 0.9]}\nmodel: {name: m}\n")
    return path


def test_file_and_overrides(file: Path) -> None:
    cfg = load_config(
        file, ["optim.lr=5e-4", "model.overrides.T=2", "data.mean=[0.5]", "data.std=[1]"]
    )
    assert cfg.seed == 3 and cfg.optim.lr == 5e-4 and cfg.optim.betas == (0.8, 0.9)
    assert cfg.model.overrides == {"T": 2} and cfg.data.std == (1.0,)
    assert cfg.schedule == TrainConfig().schedule


def test_saved_config_reads_back(file: Path, tmp_path: Path) -> None:
    cfg = load_config(file, ["model.overrides.neuron=lif", "augment.mix_until=7"])
    save_config(cfg, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == cfg
    assert "label_smoothing" in (tmp_path / "saved.yaml").read_text()


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("optim.learning_rat=1", ValueError, r"unknown key 'optim\.learning_rat'"),
        ("optim.lrr=1", ValueError, r"did you mean 'optim\.lr'"),
        ("epoch=1", ValueError, r"unknown key 'epoch'; did you mean 'epochs'"),
        ("optim.name=adamv", ValueError, r"optim\.name 'adamv'; did you mean 'adamw'"),
        ("optim.lr=fast", TypeError, r"optim\.lr: expected float, got 'fast' \(str\)"),
        ("seed=1.5", TypeError, r"seed: expected int, got 1\.5 \(float\)"),
        (
            "augment.mix_until=x",
            TypeError,
            r"augment\.mix_until: expected int or null, got 'x'",
        ),
        ("optim=3", TypeError, r"optim: expected a section"),
        ("optim.lr", ValueError, r"expected key=value"),
        ("seed.a=1", ValueError, r"'seed' is not a section"),
        ("epochs=0", ValueError, r"epochs=0: must be at least 1"),
        ("data.train_images=-1", ValueError, r"data\.train_images=-1: must be at least 0"),
        ("optim.lr=-1", ValueError, r"optim\.lr=-1"),
        ("optim.ema=1", ValueError, r"optim\.ema=1"),
        ("optim.lr=0", ValueError, r"optim\.lr=0.*: must be above 0"),
        ("optim.lr=.nan", ValueError, r"optim\.lr=nan"),
        ("optim.clip=.inf", ValueError, r"optim\.clip=inf"),
        ("optim.momentum=1.1", ValueError, r"optim\.momentum=1.1: .*at most 1"),
        ("augment.flip=2", ValueError, r"augment\.flip=2"),
        ("augment.shift=-1", ValueError, r"augment\.shift=-1"),
        ("loss.membrane_weight=-1", ValueError, r"loss\.membrane_weight=-1"),
        ("loss.teacher.temperature=0", ValueError, r"teacher\.temperature=0.*above 0"),
        ("data.workers=-1", ValueError, r"data\.workers=-1"),
        ("schedule.warmup_epochs=-1", ValueError, r"warmup_epochs=-1"),
        ("data.mean=[0.5]", ValueError, r"give both"),
    ],
)
def test_mistakes_are_named(
    file: Path, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_config(file, [override])


def test_a_file_says_only_how_it_differs_from_its_base(file: Path) -> None:
    child = file.with_name("child.yaml")
    child.write_text("base: c.yaml\noptim: {lr: 2e-3}\nmodel: {overrides: {T: 2}}\n")
    grandchild = file.with_name("grandchild.yaml")
    grandchild.write_text("base: child.yaml\nmodel: {overrides: {depth: 1}}\n")
    cfg = load_config(grandchild, ["optim.betas=[0.5, 0.6]"])
    assert (cfg.seed, cfg.optim.lr, cfg.optim.betas) == (3, 2e-3, (0.5, 0.6))
    assert (cfg.model.name, cfg.model.overrides) == ("m", {"T": 2, "depth": 1})


def test_a_base_that_cannot_be_is_named(file: Path) -> None:
    file.write_text("base: nowhere.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_config(file)
    file.write_text("base: other.yaml\n")
    file.with_name("other.yaml").write_text("base: c.yaml\n")
    with pytest.raises(ValueError, match=r"c\.yaml is its own base, by way of .*other\.yaml"):
        load_config(file)


def test_differences_are_named() -> None:
    old = TrainConfig(run="a")
    new = dataclasses.replace(old, run="b", epochs=3, optim=dataclasses.replace(old.optim, lr=1.0))
    assert differences(old, new, ignore=["run"]) == ["epochs: 10 -> 3", "optim.lr: 0.001 -> 1.0"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    assert load_config(path).run == f"runs/{path.stem}"


def test_every_field_is_documented() -> None:
    classes = [
        TrainConfig,
        *(type(getattr(TrainConfig(), f.name)) for f in dataclasses.fields(TrainConfig)),
    ]
    for cls in filter(dataclasses.is_dataclass, classes):
        documented = re.findall(r"^        (\w+): ", cls.__doc__ or "", re.MULTILINE)
        assert documented == [f.name for f in dataclasses.fields(cls)], cls


def test_losses_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="stca counts the firing steps"):
        TrainConfig(loss=LossConfig("stca", label_smoothing=0.1))
    with pytest.raises(ValueError, match=r"run and loss\.teacher\.module: give one"):
        TrainConfig(loss=LossConfig(teacher=TeacherConfig("runs/ann", "torch.nn:Linear")))
    with pytest.raises(ValueError, match=r"of loss\.teacher\.module; give it too"):
        TrainConfig(loss=LossConfig(teacher=TeacherConfig(weights="a.pth")))
    for loss in (LossConfig(teacher=TeacherConfig(module="a:b")), LossConfig(head="head")):
        with pytest.raises(ValueError, match=r"rule\.name=ottt needs no loss\.(teacher|head)"):
            TrainConfig(loss=loss, rule=RuleConfig("ottt"))
    with pytest.raises(ValueError, match=r"bptt has no options, got k; name the rule"):
        TrainConfig(rule=RuleConfig(options={"k": 2}))
    with pytest.raises(ValueError, match=r"give loss\.teacher\.beta"):
        TrainConfig(loss=LossConfig(teacher=TeacherConfig("runs/ann", features={"a": "b"})))
    with pytest.raises(ValueError, match="mse has no label smoothing"):
        TrainConfig(loss=LossConfig("mse", label_smoothing=0.1))
    with pytest.raises(ValueError, match="give both steps and milestones"):
        TrainConfig(schedule=ScheduleConfig("steps"))


def test_losses_are_read_from_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("loss: {name: tet}\n")
    overrides = ["loss.membrane=im", "loss.teacher.run=runs/ann", "loss.teacher.alpha=0.5"]
    loss = load_config(tmp_path / "c.yaml", overrides).loss
    assert (loss.name, loss.membrane) == ("tet", "im")
    assert loss.teacher == TeacherConfig("runs/ann", alpha=0.5)
    with pytest.raises(ValueError, match="'imm'"):
        load_config(tmp_path / "c.yaml", ["loss.membrane=imm"])
