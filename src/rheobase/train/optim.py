"""Optimisers, parameter groups, the learning-rate schedule and the weight average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rheobase._numbers import numbers_checked
from rheobase.train.config import OptimConfig, ScheduleConfig

__all__ = [
    "LAMB",
    "build_ema",
    "build_optimizer",
    "build_scheduler",
    "learning_rate",
    "parameter_groups",
]


@numbers_checked
class LAMB(Optimizer):
    r"""Layer-wise adaptive moments for large batches (You et al. 2020, arXiv 1904.00962, alg. 2).

    With Adam's bias-corrected moments, `r = m / (sqrt(v) + eps) + weight_decay * x` and
    `x <- x - lr * (|x| / |r|) * r`; the ratio is 1 where either norm is zero.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter once; return the closure's loss if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        steps, (beta1, beta2) = state["step"].item(), group["betas"]
        first = state["exp_avg"].lerp_(grad, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        update = (first / (1 - beta1**steps)) / (
            (second / (1 - beta2**steps)).sqrt() + group["eps"]
        )
        update = update + group["weight_decay"] * parameter
        size, change = parameter.norm(), update.norm()
        ratio = torch.where((size > 0) & (change > 0), size / change, torch.ones_like(size))
        parameter.sub_(group["lr"] * ratio * update)


def parameter_groups(model: nn.Module, weight_decay: float, decay_1d: bool) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that do not.

    Biases, norm weights and most neuron parameters have at most one dimension; unless `decay_1d`,
    they do not decay. Parameters of neurons that say so (`Neuron.decays`) never do.
    """
    spared = {
        id(p)
        for module in model.modules()
        if not getattr(module, "decays", True)
        for p in module.parameters(recurse=False)
    }
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for p in model.parameters():
        if p.requires_grad:
            fixed = id(p) in spared or (p.dim() <= 1 and not decay_1d)
            groups[fixed]["params"].append(p)
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, cfg: OptimConfig) -> Optimizer:
    """Return the optimiser that `cfg` describes for the parameters of `model`."""
    groups = parameter_groups(model, cfg.weight_decay, cfg.decay_1d)
    if not groups:
        raise ValueError("the model has no trainable parameter (requires_grad=True) to optimise")
    if cfg.name == "sgd":
        return SGD(groups, lr=cfg.lr, momentum=cfg.momentum)
    if cfg.name == "lamb":
        return LAMB(groups, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps)
    # Fused: one pass over all parameters, where a step for each costs small networks milliseconds.
    return AdamW(groups, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps, fused=True)


def learning_rate(
    step: int, steps_per_epoch: int, epochs: int, peak: float, cfg: ScheduleConfig
) -> float:
    """Return the learning rate of optimiser step `step` (the first is 0).

    Linear from `warmup_lr` to `peak`, a half cosine from `peak` to `min_lr` (or constant, or down
    in steps), then `min_lr` for the cool-down.

    >>> cfg = ScheduleConfig(warmup_epochs=1, min_lr=0.1)
    >>> [round(learning_rate(s, 2, 3, 1.0, cfg), 3) for s in range(6)]
    [0.0, 0.5, 1.0, 0.868, 0.55, 0.232]
    """
    warmup = cfg.warmup_epochs * steps_per_epoch
    length = (epochs - cfg.cooldown_epochs) * steps_per_epoch - warmup
    if step < warmup:
        return cfg.warmup_lr + (peak - cfg.warmup_lr) * step / warmup
    if step >= warmup + length:
        return cfg.min_lr
    if cfg.name == "constant":
        return peak
    if cfg.name == "steps":
        passed = sum(step >= epoch * steps_per_epoch for epoch in cfg.milestones)
        return float(peak * cfg.factor**passed)
    done = (step - warmup) / length
    return cfg.min_lr + (peak - cfg.min_lr) * (1 + math.cos(math.pi * done)) / 2


def build_scheduler(
    optimizer: Optimizer, steps_per_epoch: int, epochs: int, peak: float, cfg: ScheduleConfig
) -> LambdaLR:
    """Return a scheduler, stepped after every optimiser step, that follows `learning_rate`."""
    if cfg.warmup_epochs + cfg.cooldown_epochs > epochs:
        raise ValueError(
            f"schedule: {cfg.warmup_epochs} warm-up and {cfg.cooldown_epochs} cool-down epochs "
            f"do not fit into epochs={epochs}"
        )
    return LambdaLR(
        optimizer, lambda step: learning_rate(step, steps_per_epoch, epochs, peak, cfg) / peak
    )


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of the weights of `model`, or None if `decay` is 0.

    Buffers (batch-norm statistics are averages already) are copied, not averaged.
    """
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
