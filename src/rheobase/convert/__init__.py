"""ANN to SNN conversion: any traced network, every method a record of choices.

>>> import torch
>>> from torch import nn
>>> ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
>>> snn = convert(ann, torch.rand(16, 4), recipe="threshold_max", T=8)
>>> snn(torch.rand(3, 4)).shape
torch.Size([8, 3, 2])

How it goes (`pipeline.convert`):

1. `trace`: a `torch.fx` graph of a copy, named nodes that know their source line.
2. `prepare`: dropout out, activations made modules, batch norm folded, pooling moved, ``PASSES``.
3. `calibrate`: the ANN runs on the calibration data; each activation's `Meter` (a name of
   ``STATISTICS``) makes its threshold.
4. Operators that are neither linear nor activations are replaced by those of ``OPERATORS``,
   activations by the recipe's neuron (``NEURONS``).
5. `build.split`: what does not change over time becomes the stem, computed once; the body runs
   with time folded into the batch, or step by step. An operation that spikes can't pass is an
   error that names node, line and remedy.
6. ``POST`` calibration, then the report.

**To add a spiking operator** (softmax, layer norm, a product of two spiking operands, ...): write a
subclass of `Replacement`. It is called with the node's own arguments, each operand that changes
over time as ``[T * N, ...]`` (`unfolded` makes ``[T, N, ...]`` of it), and the keyword ``steps``;
it returns ``[T * N, ...]``. What it remembers from step to step it keeps as a
`rheobase.stateful.Stateful` does (``self.carried``, ``self.carry``), so that the same network
streams and runs step by step (then with ``steps=1``). ``conventions`` says how values may be coded
over time: "mean", "sum", or both; a recipe that codes otherwise is refused. Then name it in a set:
``OPERATORS["my_set"] = {"softmax": lambda traced, node, recipe, T: SpikingSoftmax(...)}``, and the
set in a recipe: ``Preparation(operators=("my_set",))``. The keys are the kinds of `KINDS`, to which
classes and functions can be added; a module of the user's own class says ``conversion_kind``, and
`convert(..., leaves=(Class,))` keeps a class from being looked into. A builder that returns None
leaves the node as it is.
"""

import sys
from types import ModuleType
from typing import Any

from rheobase.convert.activations import Site
from rheobase.convert.few_spikes import FewSpikeNeuron, FewSpikes, fit_code
from rheobase.convert.first_spike import FirstSpike, FirstSpikeNeuron
from rheobase.convert.kinds import KINDS
from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.pipeline import OPERATORS, convert
from rheobase.convert.prepare import PASSES
from rheobase.convert.recipe import (
    Encoding,
    NeuronRule,
    PostCalibration,
    Preparation,
    Readout,
    Recipe,
    Statistic,
)
from rheobase.convert.recipes import RECIPES, recipes
from rheobase.convert.report import LayerReport, Report
from rheobase.convert.spiking import NEURONS, Replacement, Spiking, folded, unfolded
from rheobase.convert.statistics import STATISTICS, Meter
from rheobase.convert.tandem import TandemStage, progressive_tandem
from rheobase.convert.transformers import add_transformers

__all__ = [
    "KINDS",
    "NEURONS",
    "OPERATORS",
    "PASSES",
    "RECIPES",
    "STATISTICS",
    "ConvertedNetwork",
    "Encoding",
    "FewSpikeNeuron",
    "FewSpikes",
    "FirstSpike",
    "FirstSpikeNeuron",
    "LayerReport",
    "Meter",
    "NeuronRule",
    "PostCalibration",
    "Preparation",
    "Readout",
    "Recipe",
    "Replacement",
    "Report",
    "Site",
    "Spiking",
    "Statistic",
    "TandemStage",
    "convert",
    "fit_code",
    "folded",
    "progressive_tandem",
    "recipes",
    "unfolded",
]

add_transformers()


class _Callable(ModuleType):
    """This module, callable: ``rheobase.convert(ann, ...)`` is ``rheobase.convert.convert``."""

    def __call__(self, *args: Any, **choices: Any) -> ConvertedNetwork:
        return convert(*args, **choices)


sys.modules[__name__].__class__ = _Callable
