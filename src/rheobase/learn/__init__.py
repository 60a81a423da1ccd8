"""Learning rules other than backpropagation through the whole sequence.

A rule is an object that is called with a `Lesson` (a network and a batch) and fills ``.grad``; the
training loop does the rest. `learning_rule` finds one by name, as ``rule.name=ottt`` does for
`rheobase.train`.
"""

from rheobase.learn.online import OTTT, SLTT, TruncatedBPTT
from rheobase.learn.registry import RULES, learning_rule
from rheobase.learn.rule import LearningRule, Lesson
from rheobase.learn.stdp import PairSTDP, RewardedSTDP, bounded

__all__ = [
    "OTTT",
    "RULES",
    "SLTT",
    "LearningRule",
    "Lesson",
    "PairSTDP",
    "RewardedSTDP",
    "TruncatedBPTT",
    "bounded",
    "learning_rule",
]
