"""Losses: of the logits of every time step, of membranes, and of what a teacher knows."""

from rheobase.train.losses.build import build_loss, build_objective
from rheobase.train.losses.distill import Distillation
from rheobase.train.losses.membrane import MPDLoss, im_loss, rmp_loss
from rheobase.train.losses.objective import MembraneTerm, Objective, StepsTerm
from rheobase.train.losses.readout import (
    TET,
    Loss,
    NextToken,
    cross_entropy_of_mean,
    squared_error_of_rates,
)
from rheobase.train.losses.stca import STCA

__all__ = [
    "STCA",
    "TET",
    "Distillation",
    "Loss",
    "MPDLoss",
    "MembraneTerm",
    "NextToken",
    "Objective",
    "StepsTerm",
    "build_loss",
    "build_objective",
    "cross_entropy_of_mean",
    "im_loss",
    "rmp_loss",
    "squared_error_of_rates",
]
