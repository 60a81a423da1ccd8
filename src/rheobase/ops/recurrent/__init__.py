"""The recurrent scan: neurons that hear their own layer's last spikes, a whole sequence at once."""

from rheobase.ops.recurrent.cell import Cell
from rheobase.ops.recurrent.op import recurrent_scan
from rheobase.ops.recurrent.reference import recurrent_reference

__all__ = ["Cell", "recurrent_reference", "recurrent_scan"]
