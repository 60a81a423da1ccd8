"""Training: the loop, its configuration, losses, optimisers, checkpoints and evaluation."""

from rheobase._weights import CheckpointError
from rheobase.train.augment import Augment, mix, random_flip, random_shift
from rheobase.train.checkpoint import Checkpoints
from rheobase.train.config import TrainConfig
from rheobase.train.config_file import load_config, save_config
from rheobase.train.diagnose import TrainingDiverged
from rheobase.train.evaluate import Evaluation, evaluate, evaluate_run
from rheobase.train.graphs import graphed
from rheobase.train.loop import Trainer
from rheobase.train.losses import (
    STCA,
    TET,
    Distillation,
    MembraneTerm,
    MPDLoss,
    NextToken,
    Objective,
    cross_entropy_of_mean,
    im_loss,
    rmp_loss,
)
from rheobase.train.optim import LAMB
from rheobase.train.progress import Event
from rheobase.train.runner import Result, train, train_from_config
from rheobase.train.state import load_weights

__all__ = [
    "LAMB",
    "STCA",
    "TET",
    "Augment",
    "CheckpointError",
    "Checkpoints",
    "Distillation",
    "Evaluation",
    "Event",
    "MPDLoss",
    "MembraneTerm",
    "NextToken",
    "Objective",
    "Result",
    "TrainConfig",
    "Trainer",
    "TrainingDiverged",
    "cross_entropy_of_mean",
    "evaluate",
    "evaluate_run",
    "graphed",
    "im_loss",
    "load_config",
    "load_weights",
    "mix",
    "random_flip",
    "random_shift",
    "rmp_loss",
    "save_config",
    "train",
    "train_from_config",
]
