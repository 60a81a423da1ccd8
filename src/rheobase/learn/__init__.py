"""Learning rules other than backpropagation through the whole sequence.

A rule is an object that is called with a `Lesson` (a network and a batch) and fills ``.grad``; the
training loop does the rest. `learning_rule` finds one by name, as ``rule.name=ottt`` does for
`rheobase.train`.
"""

from rheobase.learn.decolle import DECOLLE
from rheobase.learn.dspike import (
    TemperatureChoice,
    choose_temperature,
    finite_difference_cosine,
    set_temperature,
)
from rheobase.learn.eprop import EProp
from rheobase.learn.eqprop import EqProp
from rheobase.learn.forward_forward import ForwardForward
from rheobase.learn.online import OTTT, SLTT, TruncatedBPTT
from rheobase.learn.plasticity import RSTDP, STDP
from rheobase.learn.registry import RULES, learning_rule
from rheobase.learn.resume import ReSuMe
from rheobase.learn.rule import LearningRule, Lesson
from rheobase.learn.spikeprop import SpikeProp
from rheobase.learn.stdp import PairSTDP, RewardedSTDP, bounded
from rheobase.learn.superspike import SuperSpikeRule
from rheobase.learn.tempotron import Tempotron

__all__ = [
    "DECOLLE",
    "OTTT",
    "RSTDP",
    "RULES",
    "SLTT",
    "STDP",
    "EProp",
    "EqProp",
    "ForwardForward",
    "LearningRule",
    "Lesson",
    "PairSTDP",
    "ReSuMe",
    "RewardedSTDP",
    "SpikeProp",
    "SuperSpikeRule",
    "TemperatureChoice",
    "Tempotron",
    "TruncatedBPTT",
    "bounded",
    "choose_temperature",
    "finite_difference_cosine",
    "learning_rule",
    "set_temperature",
]
