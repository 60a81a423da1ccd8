"""rheobase: large-scale deep spiking neural networks.

A network is a function of a whole spike sequence: ``y = net(x)``, time first, ``[T, N, ...]``.
"""

from rheobase import layers, neurons, surrogate
from rheobase.streaming import streaming

__version__ = "0.1.0"

__all__ = ["__version__", "layers", "neurons", "streaming", "surrogate"]
