"""Norms of spiking networks, one a file.

Those that know time take the whole sequence ``[T, N, C, ...]``; `rheobase.layers.over_time` hands
it to them, so every norm is called the same way: ``over_time(x, conv, norm)``.
"""

from rheobase.layers.norms.bgn import BGN
from rheobase.layers.norms.bntt import BNTT
from rheobase.layers.norms.fuse import FusedNormNeuron
from rheobase.layers.norms.mpbn import MPBN
from rheobase.layers.norms.neunorm import NeuNorm
from rheobase.layers.norms.tab import TAB
from rheobase.layers.norms.tdbn import ThresholdDependentBatchNorm2d
from rheobase.layers.norms.tebn import TEBN

__all__ = [
    "BGN",
    "BNTT",
    "MPBN",
    "TAB",
    "TEBN",
    "FusedNormNeuron",
    "NeuNorm",
    "ThresholdDependentBatchNorm2d",
]
