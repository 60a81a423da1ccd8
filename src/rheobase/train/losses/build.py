"""The objective that a configuration describes."""

from __future__ import annotations

import torch

from rheobase.surrogate.base import Schedule
from rheobase.train.config import LossConfig, TeacherConfig
from rheobase.train.losses.distill import Distillation
from rheobase.train.losses.membrane import MEMBRANE_LOSSES
from rheobase.train.losses.objective import MembraneTerm, Objective, StepsTerm, Term
from rheobase.train.losses.readout import (
    TET,
    Loss,
    NextToken,
    cross_entropy_of_mean,
    squared_error_of_rates,
)
from rheobase.train.losses.stca import STCA

__all__ = ["build_loss", "build_objective"]


def build_loss(cfg: LossConfig) -> Loss:
    """Return the loss of logits that `cfg` describes."""
    if cfg.name == "tet":
        return TET(cfg.tet_lambda, cfg.tet_mean, cfg.label_smoothing)
    if cfg.name == "next_token":
        return NextToken(cfg.logit_pull, cfg.label_smoothing)
    if cfg.name == "stca":
        return STCA()
    if cfg.name == "mse":
        return squared_error_of_rates
    return lambda logits, target: cross_entropy_of_mean(logits, target, cfg.label_smoothing)


def build_objective(cfg: LossConfig, device: torch.device | str = "cpu") -> Objective:
    """Return the whole objective that `cfg` describes, with its teacher on `device`.

    Raises:
        FileNotFoundError: The teacher's run is not there, or its weights.
        ImportError: Nor is the package that makes it.
        ValueError: It is no module, or its weights are another's.
    """
    terms: list[Term] = []
    if cfg.membrane != "none":
        terms.append(MembraneTerm(MEMBRANE_LOSSES[cfg.membrane], _membrane_weight(cfg)))
    if cfg.steps_weight:
        terms.append(StepsTerm(cfg.steps_weight))
    if cfg.teacher.given:
        terms.append(_distillation(cfg.teacher, device))
    return Objective(build_loss(cfg), terms, cfg.head)


def _membrane_weight(cfg: LossConfig) -> float | Schedule:
    """A constant; that of RMP-Loss grows (here linearly: its exact course is uncertain)."""
    weight = cfg.membrane_weight
    return (lambda fraction: weight * fraction) if cfg.membrane == "rmp" else weight


def _distillation(cfg: TeacherConfig, device: torch.device | str) -> Distillation:
    from rheobase.models.foreign import load_module
    from rheobase.train.evaluate import load_run

    if cfg.run:
        teacher, _ = load_run(cfg.run)
    else:
        teacher = load_module(cfg.module, cfg.weights or None, **cfg.options)
    return Distillation(
        teacher.to(device),
        alpha=cfg.alpha,
        temperature=cfg.temperature,
        beta=cfg.beta,
        features=cfg.features,
        hard=cfg.hard,
        head=cfg.head,
    )
