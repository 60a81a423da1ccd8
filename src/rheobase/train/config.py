"""The whole description of a training run as typed, frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "DataConfig",
    "LogConfig",
    "LossConfig",
    "MemoryConfig",
    "ModelConfig",
    "OptimConfig",
    "ParallelConfig",
    "RuleConfig",
    "ScheduleConfig",
    "TeacherConfig",
    "TemperatureConfig",
    "TrainConfig",
    "plain",
    "settings_of",
]


@dataclass(frozen=True)
class ModelConfig:
    """Which network to build.

    Attributes:
        name: A name of `rheobase.models.list_models()`.
        overrides: Keyword overrides of that preset, handed to `create_model`.
        weights: What training starts from: a model's file (of `rheobase import`), the folder of a
            run, or of one checkpoint; empty for fresh weights.
        fresh: Modules that start untrained all the same: weights may lack them, or have others.
    """

    name: str = "spikformer_cifar10_4_384"
    overrides: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    fresh: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataConfig:
    """Which images or texts to learn from, and how they are fed.

    Attributes:
        name: A name of `rheobase.data.get_dataset`.
        root: Folder that holds the data set; None uses the data set's own cache.
        batch_size: Images per optimiser step, over all processes and accumulation steps.
        train_images: How many of the training images, from the first, an epoch passes over; 0 for
            all. Testing always takes all of the test images.
        workers: Loader processes per training process; 0 loads in the training process.
        mean: Per-channel mean subtracted from every image; empty for none.
        std: Per-channel deviation every image is divided by; empty for none.
        options: The data set's own, handed to `get_dataset`, such as `frames` of recordings.
    """

    name: str = "mnist_sample"
    root: str | None = None
    batch_size: int = 128
    train_images: int = 0
    workers: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images; everything is off by default.

    Attributes:
        shift: Largest shift in pixels, zero padded (the usual "crop with padding").
        resized_crop: Side of a random crop (8 to 100 % of the area); 0 for none. Needs kornia.
        flip: Probability of a horizontal flip.
        randaugment_n: Operations per image (RandAugment, arXiv 1909.13719). Needs kornia.
        randaugment_m: Their magnitude, between 0 and 30.
        randaugment_std: Standard deviation of the magnitude.
        erasing: Probability of erasing a random rectangle. Needs kornia.
        mixup: Alpha of mixup's Beta distribution (arXiv 1710.09412); 0 for none.
        cutmix: Alpha of CutMix's Beta distribution (arXiv 1905.04899); 0 for none.
        mix_until: First epoch without mixup and CutMix; None for never.
    """

    shift: int = 0
    resized_crop: int = 0
    flip: float = 0.0
    randaugment_n: int = 0
    randaugment_m: float = 9.0
    randaugment_std: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_until: int | None = None


@dataclass(frozen=True)
class TeacherConfig:
    """Knowledge distillation from a network trained before (arXiv 2304.05627).

    The teacher is a run of ours, or any module for the same images; neither: no teacher.

    Attributes:
        run: Folder of its run, or of one checkpoint.
        module: `package.module:function` that makes it, such as `timm:create_model`.
        options: Keyword arguments of that function.
        weights: File of the module's state dict; empty keeps those it is made with.
        hard: Whether the class it names is what is learnt (arXiv 2012.12877), instead of its
            class probabilities.
        head: Module of the network that learns from its logits; empty for the network's output.
        alpha: Weight of the class probabilities, or of the class.
        temperature: Divides the logits of both; not of a `hard` teacher.
        beta: Weight of the squared distance of features.
        features: Module of the network -> module of the teacher, of one shape.
    """

    run: str = ""
    module: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    hard: bool = False
    head: str = ""
    alpha: float = 1.0
    temperature: float = 4.0
    beta: float = 0.0
    features: dict[str, str] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether there is a teacher."""
        return bool(self.run or self.module)


@dataclass(frozen=True)
class LossConfig:
    """What is minimised: a loss of the logits, plus a loss on membranes, plus a teacher's.

    Attributes:
        name: `cross_entropy` of the mean over time, `tet` (every step, arXiv 2202.11946), `mse`
            (of firing rates, arXiv 2007.05785), `stca` (clusters of threshold crossings) or
            `next_token` (every step, of language models: data whose words have a label each).
        label_smoothing: Probability mass spread evenly over all classes; not for `mse` and `stca`.
        tet_lambda: Weight of TET's pull of all outputs towards `tet_mean`.
        tet_mean: The value TET pulls the outputs to.
        logit_pull: Weight of `next_token`'s pull of the largest logits towards 0.
        membrane: A loss on the membranes of all neurons: `im` (IM-Loss), `mpd` (RecDis-SNN, a
            reconstruction), `rmp` (RMP-Loss, arXiv 2308.06787; its weight grows from 0).
        membrane_weight: Its weight (at the end of training); IM-Loss used 2.
        head: Module of the network whose output it judges, where that is not the network's output:
            for networks with another head for a teacher.
        steps_weight: Weight of the share of time steps at which layers are on, for networks that
            learn it (`spiking_vit_dts`).
        teacher: Knowledge distillation.
    """

    name: Literal["cross_entropy", "tet", "mse", "stca", "next_token"] = "cross_entropy"
    label_smoothing: float = 0.0
    tet_lambda: float = 1e-3
    tet_mean: float = 1.0
    logit_pull: float = 1e-4
    membrane: Literal["none", "im", "mpd", "rmp"] = "none"
    membrane_weight: float = 1.0
    head: str = ""
    steps_weight: float = 0.0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)


@dataclass(frozen=True)
class RuleConfig:
    """What fills the gradients that the optimiser follows.

    Attributes:
        name: `bptt`, backpropagation of the loss through the whole sequence, or a name of
            `rheobase.learn.RULES`.
        options: Of the rule, by the names of its arguments.
    """

    name: str = "bptt"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TemperatureConfig:
    """Choosing the temperature of `Dspike` surrogates at every epoch's start (Li et al. 2021).

    `rheobase.learn.choose_temperature` compares b, b + step and b - step by their gradient of the
    first layer's weights against finite differences. On few images and weights it is a guess.

    Attributes:
        step: Distance of the candidates; 0 leaves b as it is.
        epsilon: Of the differences.
        elements: How many weights are compared, two forward passes each; 0 for all.
        images: How many images that is done on; 0 for as many as a batch has.
    """

    step: float = 0.0
    epsilon: float = 0.1
    elements: int = 64
    images: int = 0


@dataclass(frozen=True)
class OptimConfig:
    """How the parameters move.

    Attributes:
        name: `adamw`, `sgd` or `lamb`.
        lr: Peak learning rate.
        weight_decay: Decoupled decay for AdamW and LAMB, an L2 term for SGD.
        decay_1d: Whether biases, norms and other 1-d parameters decay too.
        momentum: Momentum of SGD.
        betas: Averaging factors of AdamW and LAMB.
        eps: Added to the denominator of AdamW and LAMB.
        clip: Largest gradient norm; 0 does not clip.
        accumulate: Micro-batches that make one optimiser step.
        ema: Decay of an exponential moving average of the weights, used by evaluation; 0 for none.
    """

    name: Literal["adamw", "sgd", "lamb"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_1d: bool = False
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 0.0
    accumulate: int = 1
    ema: float = 0.0


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves: linear warm-up, then its course, then cool-down.

    Attributes:
        name: `cosine`, `constant`, or `steps` down at `milestones`.
        warmup_epochs: Epochs of linear growth from `warmup_lr` to the peak.
        warmup_lr: Learning rate of the first step of the warm-up.
        min_lr: Where the cosine ends.
        cooldown_epochs: Last epochs, spent at `min_lr`.
        milestones: Epochs from which on `steps` multiplies the rate by `factor`.
        factor: Of one step down.
    """

    name: Literal["cosine", "constant", "steps"] = "cosine"
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    cooldown_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    factor: float = 0.1


@dataclass(frozen=True)
class ParallelConfig:
    """How several processes share the work (start them with `torchrun`).

    Attributes:
        strategy: `ddp` replicates the model; `fsdp` shards its parameters (FSDP2).
        sync_batchnorm: Batch statistics over all processes, as one big batch would have them.
        find_unused_parameters: DDP's option, for models that do not use every parameter.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    sync_batchnorm: bool = True
    find_unused_parameters: bool = False


@dataclass(frozen=True)
class MemoryConfig:
    """What a step may keep.

    Attributes:
        activations: GiB that a forward pass may keep for its backward pass. Blocks of the network
            are computed twice until it stays within (`rheobase.layers.recompute`); 0 keeps all.
    """

    activations: float = 0.0


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save; every epoch's end and Ctrl-C always do.

    Attributes:
        every_steps: Also save after this many optimiser steps; 0 for epoch ends only.
        keep: Newest checkpoints kept (the best one is kept beside them).
    """

    every_steps: int = 0
    keep: int = 2


@dataclass(frozen=True)
class LogConfig:
    """What is shown and written besides `steps.csv` and `epochs.csv`.

    Attributes:
        progress: Progress bar: `auto` shows it on a terminal.
        tensorboard: Whether to write TensorBoard files. Needs `rheobase[tensorboard]`.
    """

    progress: Literal["auto", "always", "never"] = "auto"
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        run: Folder of the run; a folder that holds an unfinished run is continued.
        seed: Everything random follows from it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, or autocast in `bf16` or `fp16`.
        cuda_graph: Whether to replay forward and backward pass as CUDA graphs, on one GPU: for
            networks whose kernels are done before Python has launched the next.
        epochs: Passes over the training images, warm-up and cool-down included.
        model: The network.
        data: The images.
        augment: Their augmentation.
        loss: The loss.
        rule: The learning rule.
        temperature: The course of Dspike's temperature.
        optim: The optimiser.
        schedule: The learning rate's course.
        parallel: Several processes.
        memory: What a step may keep.
        checkpoint: Saving.
        log: Showing.
    """

    run: str = "runs/train"
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cuda_graph: bool = False
    epochs: int = 10
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    rule: RuleConfig = field(default_factory=RuleConfig)
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        """Refuse numbers that cannot describe a run."""
        for key, number in _numbers_of(self):
            low, high = _RANGES.get(key, (0.0, math.inf))
            above = low == 0.0 and key in _ABOVE_0
            if not (math.isfinite(number) and low <= number <= high and (number or not above)):
                wanted = "above 0" if above else f"at least {low:g}"
                wanted += f" and at most {high:g}" if math.isfinite(high) else ""
                raise ValueError(f"{key}={number}: must be {wanted}, and finite")
        if self.optim.ema == 1.0:
            raise ValueError("optim.ema=1.0: the average would never move")
        if not all(0.0 < deviation < math.inf for deviation in self.data.std):
            raise ValueError(f"data.std={list(self.data.std)}: divides images, so none may be 0")
        blends = self.loss.label_smoothing or self.augment.mixup or self.augment.cutmix
        if self.loss.name == "stca" and blends:
            raise ValueError(
                "loss.name=stca counts the firing steps of one class; set loss.label_smoothing, "
                "augment.mixup and augment.cutmix to 0"
            )
        if self.loss.name == "mse" and self.loss.label_smoothing:
            raise ValueError("loss.name=mse has no label smoothing; set loss.label_smoothing to 0")
        if (self.schedule.name == "steps") != bool(self.schedule.milestones):
            raise ValueError(
                f"schedule.name={self.schedule.name} with milestones "
                f"{list(self.schedule.milestones)}: give both steps and milestones, or neither"
            )
        if self.rule.name != "bptt":
            self._check_rule()
        elif self.rule.options:
            raise ValueError(
                f"rule.name=bptt has no options, got {', '.join(self.rule.options)}; name the rule "
                "they are of too, such as rule.name=ottt"
            )
        self._check_temperature()
        self._check_teacher()
        if len(self.data.mean) != len(self.data.std):
            raise ValueError("data.mean and data.std: give both, one number per channel each")

    def _check_teacher(self) -> None:
        """Refuse a teacher that is two, or none."""
        teacher = self.loss.teacher
        if teacher.features and not teacher.beta:
            raise ValueError("loss.teacher.features has no weight; give loss.teacher.beta too")
        if teacher.run and teacher.module:
            raise ValueError("loss.teacher.run and loss.teacher.module: give one of them")
        if (teacher.options or teacher.weights) and not teacher.module:
            raise ValueError(
                "loss.teacher.options and weights are of loss.teacher.module; give it too"
            )

    def _check_temperature(self) -> None:
        """Refuse a search for Dspike's temperature that cannot be done."""
        if self.temperature.step and self.parallel.strategy != "ddp":
            raise ValueError(
                "temperature.step needs parallel.strategy=ddp: it moves single weights"
            )

    def _check_rule(self) -> None:
        """Refuse what only backpropagation of the whole objective can serve."""
        needs = {
            "precision=fp32": self.precision == "fp32",
            "parallel.strategy=ddp": self.parallel.strategy == "ddp",
            "another loss than next_token": self.loss.name != "next_token",
            "loss.membrane=none": self.loss.membrane == "none",
            "no loss.teacher": not self.loss.teacher.given,
            "no loss.head": not self.loss.head,
            "memory.activations=0": not self.memory.activations,
        }
        wanted = [need for need, given in needs.items() if not given]
        if wanted:
            raise ValueError(f"rule.name={self.rule.name} needs {', '.join(wanted)}")


_RANGES = {
    "seed": (-math.inf, math.inf),
    "epochs": (1, math.inf),
    "data.batch_size": (1, math.inf),
    "augment.flip": (0, 1),
    "augment.randaugment_m": (0, 30),
    "augment.erasing": (0, 1),
    "loss.label_smoothing": (0, 1),
    "loss.tet_mean": (-math.inf, math.inf),
    "optim.momentum": (0, 1),
    "optim.accumulate": (1, math.inf),
    "optim.ema": (0, 1),
    "checkpoint.keep": (1, math.inf),
}
"""The lowest and highest of those numbers that are not just 0 or more."""

_OF_OTHERS = ("model.overrides.", "data.options.", "rule.options.", "loss.teacher.options.")

_ABOVE_0 = {"optim.lr", "optim.eps", "loss.teacher.temperature", "temperature.epsilon"}


def _numbers_of(cfg: TrainConfig) -> Iterator[tuple[str, float]]:
    """Every single number of a run by its key; those of models and rules are theirs to check."""
    for key, value in settings_of(cfg).items():
        own = key.startswith(_OF_OTHERS)
        if isinstance(value, int | float) and not isinstance(value, bool) and not own:
            yield key, value


def settings_of(cfg: TrainConfig) -> dict[str, Any]:
    """Every setting by its key, sections and mappings opened: ``{"optim.lr": 0.001, ...}``."""
    return _flat(dataclasses.asdict(cfg))


def plain(value: Any) -> Any:
    """The same of dicts and lists alone, as YAML has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = plain(value)
    return flat
