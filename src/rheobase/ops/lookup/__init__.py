"""Convolutions of spikes by looking up the sums of four weights."""

from rheobase.ops.lookup.op import lookup_conv2d, tables_of, takes_spikes

__all__ = ["lookup_conv2d", "tables_of", "takes_spikes"]
