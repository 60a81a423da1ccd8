"""The training loop."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import Dataset, default_collate

from rheobase import surrogate
from rheobase.learn import (
    LearningRule,
    Lesson,
    choose_temperature,
    learning_rule,
    set_temperature,
)
from rheobase.train.augment import Augment, mix
from rheobase.train.checkpoint import Checkpoints
from rheobase.train.config import AugmentConfig, ModelConfig, TrainConfig
from rheobase.train.data import EpochBatches, KeyedDataset, first_samples, train_loader
from rheobase.train.diagnose import (
    TrainingDiverged,
    answer_of,
    check_images,
    check_known_labels,
    check_labels,
    check_surrogates,
    check_weights,
    first_nonfinite,
    time_first,
)
from rheobase.train.evaluate import autocast, evaluate, load_run
from rheobase.train.graphs import check_graphed, graphed
from rheobase.train.interrupt import Interrupt
from rheobase.train.losses import build_objective
from rheobase.train.memory import keep_within_memory
from rheobase.train.optim import build_ema, build_optimizer, build_scheduler
from rheobase.train.parallel import (
    average_buffers,
    average_gradients,
    gradient_sync,
    reduce_mean,
    start_world,
    wrap,
)
from rheobase.train.progress import Event
from rheobase.train.run import CsvLog, RunFolder
from rheobase.train.seeding import generator, seed_of
from rheobase.train.state import TrainState

__all__ = ["Position", "Trainer"]

STEP_COLUMNS = ["step", "epoch", "lr", "loss", "grad_norm"]
EPOCH_COLUMNS = ["step", "epoch", "train_loss", "test_loss", "accuracy", "top5", "lr", "seconds"]
EXPLODED = 1e4  # times the first loss

Batches = list[tuple[Tensor, Tensor]]


@dataclass
class Position:
    """How far a run is; a checkpoint holds it.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs done and evaluated.
        best: Highest test accuracy so far; -1 before the first evaluation.
        first_loss: Loss of the first step, the measure of explosion.
        loss_sum: Sum of the losses of the epoch in hand.
        temperature: Of the network's `Dspike`, as chosen at the epoch's start; 0 if none was.
    """

    step: int = 0
    epoch: int = 0
    best: float = -1.0
    first_loss: float = 0.0
    loss_sum: float = 0.0
    temperature: float = 0.0


class Trainer:
    """One training run: builds its parts, or continues where its folder's checkpoint stands.

    `events()` does the training, one optimiser step per `next`; `train` is the usual way in.
    Two trainers may be advanced in turns: neither keeps state outside itself, and every random
    number is keyed (PyTorch's global generator is reseeded before each step).

    What it minimises is its ``objective``, made of ``cfg.loss``; before `events` runs, another
    `Objective` may be put there (a teacher of your own, a new term).

    Args:
        cfg: The run.
        model: Network to train in place; None builds `cfg.model`.
        train_set: Map-style dataset of `(float image [C, H, W], int label)`.
        test_set: Likewise; None for both builds `cfg.data`.

    Raises:
        ValueError: Weights, data or settings that cannot work, said before training starts.
        OSError: The run folder cannot be written.
        RuntimeError: Another process trains in the run folder.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        model: nn.Module | None = None,
        train_set: Dataset[Any] | None = None,
        test_set: Dataset[Any] | None = None,
    ) -> None:
        self.cfg = cfg
        self.world = start_world(cfg.device)
        self.folder = RunFolder(cfg) if self.world.main else None
        self._logs: list[CsvLog] = []
        try:
            self._build(model, *_datasets(cfg, train_set, test_set))
            self._resume()
        except BaseException:
            self.close()
            raise

    def _build(
        self, model: nn.Module | None, train_set: Dataset[Any], test_set: Dataset[Any]
    ) -> None:
        cfg, world = self.cfg, self.world
        self.test_set = test_set
        _refuse_to_augment_texts(cfg, train_set)
        self.data = data = KeyedDataset(train_set, Augment(cfg.augment, cfg.data, cfg.seed))
        self.batches = EpochBatches(
            len(data), cfg.data.batch_size, cfg.seed, world.rank, world.size, cfg.optim.accumulate
        )
        self.loader = train_loader(
            data, self.batches, cfg.data.workers, pin_memory=world.device.type == "cuda"
        )
        self.model = (model or _new_model(cfg)).to(world.device)
        check_weights(self.model)
        check_surrogates(self.model)
        self.steps, self.classes = answer_of(self.model, data[(0, 0)], world.device)
        for dataset in (train_set, test_set):
            check_known_labels(dataset, self.classes)

        def draw(count: int) -> Tensor:
            few = default_collate([data[(0, i)] for i in range(count)])
            return time_first(*few)[0].to(world.device)

        count = cfg.data.batch_size // (world.size * cfg.optim.accumulate)
        keep_within_memory(cfg, self.model, draw, count)
        self.wrapped = wrap(self.model, world, cfg)
        if cfg.cuda_graph:
            check_graphed(cfg, self.model, world.size)
            self.wrapped = graphed(self.model, draw(count), cfg.precision)
        self.rule = _rule(cfg, self.model)
        self.objective = build_objective(cfg.loss, world.device)
        optimizer = build_optimizer(self.model, cfg.optim)
        self.state = TrainState(
            self.model,
            optimizer,
            build_scheduler(optimizer, self.batches.steps, cfg.epochs, cfg.optim.lr, cfg.schedule),
            torch.amp.GradScaler(world.device.type, enabled=cfg.precision == "fp16"),
            build_ema(self.model, cfg.optim.ema),
            sharded=cfg.parallel.strategy == "fsdp",
        )
        # Under fsdp, sharding casts; elsewhere autocast does.
        self.precision = "fp32" if self.state.sharded else cfg.precision

    def _resume(self) -> None:
        self.checkpoints = Checkpoints(Path(self.cfg.run) / "checkpoints", self.cfg.checkpoint.keep)
        self.at, self._loader_state = Position(), None
        latest = self.checkpoints.latest()
        if latest is not None:
            progress = self.state.load(latest)
            self._loader_state = progress.pop("loader")
            self.at = Position(**progress)
            check_surrogates(self.model)
            if self.at.temperature:
                set_temperature(self.model, self.at.temperature)
        self._saved = dataclasses.replace(self.at)
        if self.folder:
            steps, epochs = self.folder.path / "steps.csv", self.folder.path / "epochs.csv"
            self.step_log = CsvLog(steps, STEP_COLUMNS, "step", self.at.step)
            self.epoch_log = CsvLog(epochs, EPOCH_COLUMNS, "epoch", self.at.epoch - 1)
            self._logs = [self.step_log, self.epoch_log]

    def events(self) -> Iterator[Event]:
        """Train, yielding an event after every step and every epoch.

        Ctrl-C, or closing the iterator, saves a checkpoint after the step in hand.

        Raises:
            TrainingDiverged: Loss or gradient is NaN, infinite or exploding; names the layer.
            KeyboardInterrupt: After Ctrl-C, once the checkpoint is saved.
            OSError: A checkpoint could not be saved; the previous one is intact.
        """
        with Interrupt() as self._interrupt:
            try:
                yield self._event("start", {})
                while self.at.epoch < self.cfg.epochs:
                    yield from self._epoch()
                if self._interrupt.pending:
                    raise KeyboardInterrupt("stopped after the last step; everything is saved")
                yield self._event("end", {})
            except GeneratorExit:
                self._save()
                raise

    def _epoch(self) -> Iterator[Event]:
        at = self.at
        began, end = time.monotonic(), (at.epoch + 1) * self.batches.steps
        self.batches.set_epoch(at.epoch)
        if self.cfg.temperature.step and at.step == at.epoch * self.batches.steps:
            at.temperature = self._choose_temperature()
        if self._loader_state:
            self.loader.load_state_dict(self._loader_state)
            self._loader_state = None
        batches = iter(self.loader) if at.step < end else iter(())
        while at.step < end:
            values, stop = self._step(batches)
            at.step += 1
            at.loss_sum += values["loss"]
            if self.folder:
                self.step_log.write(values | {"step": at.step, "epoch": at.epoch})
            every = self.cfg.checkpoint.every_steps
            if stop or (every and at.step % every == 0 and at.step < end):
                self._save()
            if stop:
                raise KeyboardInterrupt(f"stopped at step {at.step}; run again to continue")
            yield self._event("step", values)
        yield self._finish_epoch(began)

    def _choose_temperature(self) -> float:
        """Search from where b stands, on images that every process draws alike."""
        search, epoch = self.cfg.temperature, self.at.epoch
        batch = self.cfg.data.batch_size // self.cfg.optim.accumulate
        count = min(len(self.data), search.images or batch)
        order = torch.randperm(
            len(self.data), generator=generator(self.cfg.seed, "temperature", epoch)
        )
        images, labels = default_collate([self.data[(epoch, i)] for i in order[:count].tolist()])
        self.model.train()
        chosen = choose_temperature(
            self._lesson(*self._batch(images, labels)),
            step=search.step,
            epsilon=search.epsilon,
            elements=search.elements or None,
            seed=seed_of(self.cfg.seed, "temperature", epoch),
        )
        return chosen.b

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[dict[str, float], bool]:
        """Do one optimiser step; return its numbers and whether Ctrl-C was pressed anywhere."""
        self.wrapped.train()
        surrogate.set_progress(self.model, self.at.step / self._total)
        self.objective.set_progress(self.at.step / self._total)
        parts = [next(batches) for _ in range(self.cfg.optim.accumulate)]
        local = self._backward(parts)
        self.state.scaler.unscale_(self.state.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        total = norm.full_tensor() if isinstance(norm, DTensor) else norm
        stop = torch.tensor(float(self._interrupt.pending), device=local.device)
        shared = reduce_mean(torch.stack([local, stop]))
        values = {
            "loss": float(shared[0]),
            "lr": float(self.state.optimizer.param_groups[0]["lr"]),
            "grad_norm": float(total),
        }
        self._check(values, parts)
        if self.cfg.optim.clip:
            clip_grads_with_norm_(self.model.parameters(), self.cfg.optim.clip, norm)
        self._update()
        return values, bool(shared[1] > 0)

    def _backward(self, parts: Batches) -> Tensor:
        """Accumulate the gradients of one step's micro-batches; return their mean loss."""
        torch.manual_seed(seed_of(self.cfg.seed, "step", self.at.step))
        if self.rule is not None:
            return self._learn(self.rule, parts)
        total = torch.zeros((), device=self.world.device)
        for number, (images, labels) in enumerate(parts, 1):
            with gradient_sync(self.wrapped, number == len(parts)):
                loss = self._loss(images, labels) / len(parts)
                self.state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _learn(self, rule: LearningRule, parts: Batches) -> Tensor:
        """Let a learning rule fill the gradients; return the mean loss."""
        total = torch.zeros((), device=self.world.device)
        for images, labels in parts:
            total += rule(self._lesson(*self._batch(images, labels))) / len(parts)
        average_gradients(self.model, len(parts))
        return total

    def _lesson(self, images: Tensor, target: Tensor) -> Lesson:
        repeats = None if images.dim() == 5 else self.steps
        return Lesson(
            self.model, images, target, self.objective.loss, repeats, self._update_within_a_batch
        )

    def _update_within_a_batch(self) -> None:
        if self.cfg.optim.accumulate > 1:
            raise ValueError(
                f"rule.name={self.cfg.rule.name} moves the weights within a batch, so batches "
                "cannot be accumulated; set optim.accumulate=1"
            )
        average_gradients(self.model, 1)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        images, target = self._batch(images, labels)
        return self.objective(self.model, self._logits, images, target)

    def _batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A checked batch on the device, as the network takes it, and what it is to say."""
        check_images(images)
        check_labels(labels, self.classes)
        images = images.to(self.world.device, non_blocking=True)
        target = labels.to(self.world.device, non_blocking=True)
        augment = self.cfg.augment
        if (augment.mixup or augment.cutmix) and self.at.epoch < (augment.mix_until or math.inf):
            rng = generator(self.cfg.seed, "mix", self.at.step)
            images, mixed = mix(images, target, self.classes, augment, rng)
            return time_first(images, target)[0], mixed
        return time_first(images, target)

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.world.device, self.precision):
            logits: Tensor = self.wrapped(images)
        return logits.float()

    def _update(self) -> None:
        state = self.state
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.scheduler.step()
        if state.ema is not None:
            state.ema.update_parameters(self.model)

    def _check(self, values: dict[str, float], parts: Batches) -> None:
        loss, norm = values["loss"], values["grad_norm"]
        self.at.first_loss = self.at.first_loss or loss
        finite = math.isfinite(loss)
        if not self.state.scaler.is_enabled():  # fp16 overflows now and then; its scaler adapts
            finite = finite and math.isfinite(norm)
        if finite and loss <= EXPLODED * max(self.at.first_loss, 1.0):
            return
        self.state.optimizer.zero_grad(set_to_none=True)
        culprit = first_nonfinite(self.model, lambda: self._backward(parts))
        raise TrainingDiverged(
            f"step {self.at.step + 1}: loss {loss:g} (at first {self.at.first_loss:g}), gradient "
            f"norm {norm:g}: {culprit}. The last checkpoint is {self.checkpoints.latest()}"
        )

    def _finish_epoch(self, began: float) -> Event:
        """Evaluate, log and save at the end of an epoch."""
        cfg, at, model = self.cfg, self.at, self.trained
        average_buffers(model)
        for network in (self.model, model):
            surrogate.set_progress(network, at.step / self._total)
            check_surrogates(network)
        found = evaluate(
            model, self.test_set, data=cfg.data, device=self.world.device, precision=self.precision
        )
        values = {
            "train_loss": at.loss_sum / self.batches.steps,
            "test_loss": found.loss,
            "accuracy": found.accuracy,
            "top5": found.top5,
            "lr": float(self.state.optimizer.param_groups[0]["lr"]),
            "seconds": time.monotonic() - began,
        }
        event = self._event("epoch", values)
        if self.folder:
            self.epoch_log.write(values | {"step": at.step, "epoch": at.epoch})
        better = found.accuracy > at.best
        at.epoch, at.loss_sum, at.best = at.epoch + 1, 0.0, max(at.best, found.accuracy)
        self._save(better)
        return event

    def _save(self, best: bool = False) -> None:
        if self._saved == self.at:
            return
        average_buffers(self.model)
        start = self.at.epoch * self.batches.steps
        inside = start < self.at.step < start + self.batches.steps
        loader = self.loader.state_dict() if inside else None
        self.state.save(self.checkpoints, dataclasses.asdict(self.at) | {"loader": loader}, best)
        self._saved = dataclasses.replace(self.at)

    @property
    def trained(self) -> nn.Module:
        """The network as evaluation sees it: the averaged one if the run averages weights."""
        ema = self.state.ema
        return self.model if ema is None else ema.module

    @property
    def _total(self) -> int:
        return self.cfg.epochs * self.batches.steps

    def _event(self, kind: Any, values: dict[str, float]) -> Event:
        return Event(kind, self.at.step, self._total, self.at.epoch, values)

    def epochs(self) -> list[dict[str, float]]:
        """Return the rows of `epochs.csv`; empty in processes that do not log."""
        rows = self.epoch_log.read() if self.folder else []
        return [{key: float(value) for key, value in row.items()} for row in rows]

    def close(self) -> None:
        """Close the logs, unlock the run folder and leave the process group."""
        for log in self._logs:
            log.close()
        if self.folder:
            self.folder.close()
        if self.world.owner:
            # DDP must go before the process group: as its last owner it would end gloo's threads
            # with Python's lock held, and wait for ever for one that needs the lock.
            vars(self).pop("wrapped", None)
            gc.collect()
            self.world.close()


def _datasets(
    cfg: TrainConfig, train_set: Dataset[Any] | None, test_set: Dataset[Any] | None
) -> tuple[Dataset[Any], Dataset[Any]]:
    if (train_set is None) != (test_set is None):
        raise ValueError("give both train_set and test_set, or neither (then cfg.data is used)")
    if train_set is not None and test_set is not None:
        return train_set, test_set
    from rheobase.data import get_dataset

    name, root, options = cfg.data.name, cfg.data.root, cfg.data.options
    train = get_dataset(name, train=True, root=root, **options)
    test = get_dataset(name, train=False, root=root, **options)
    return first_samples(train, cfg.data.train_images), test


def _refuse_to_augment_texts(cfg: TrainConfig, train_set: Dataset[Any]) -> None:
    first = train_set[0][0]
    text = isinstance(first, Tensor) and not first.is_floating_point()
    if text and (cfg.augment != AugmentConfig() or cfg.data.mean):
        raise ValueError(
            "augment, data.mean and data.std are for images; a text takes none: leave them out"
        )


def _rule(cfg: TrainConfig, model: nn.Module) -> LearningRule | None:
    """The rule that fills the gradients; None for backpropagation of the whole objective."""
    if cfg.rule.name == "bptt":
        return None
    rule = learning_rule(cfg.rule.name, **cfg.rule.options)
    rule.check(model)
    return rule


def _new_model(cfg: TrainConfig) -> nn.Module:
    from rheobase.models import create_model

    torch.manual_seed(cfg.seed)
    net = create_model(cfg.model.name, **cfg.model.overrides)
    if cfg.model.weights:
        _start_from(net, cfg.model)
    return net


def _start_from(net: nn.Module, cfg: ModelConfig) -> None:
    """Load the weights that training starts from, all but those of fresh modules."""
    start, _ = load_run(cfg.weights)
    fresh = {
        f"{module}.{name}"
        for module in cfg.fresh
        for name in net.get_submodule(module).state_dict()
    }
    kept = {name: value for name, value in start.state_dict().items() if name not in fresh}
    own = {name: value for name, value in net.state_dict().items() if name in fresh}
    try:
        net.load_state_dict(kept | own)
    except RuntimeError as error:
        theirs, ours = type(start).__name__, type(net).__name__
        why = str(error) if theirs == ours else f"it holds a {theirs}, no {ours}"
        raise ValueError(
            f"model.weights={cfg.weights} does not fit {cfg.name} with overrides {cfg.overrides} "
            f"(modules that start untrained go into model.fresh): {why}"
        ) from error
