"""Convolutions of bytes with weights of 8 bits: sums are exact."""

from rheobase.ops.int8.bytes import grid_step, to_bytes
from rheobase.ops.int8.dense import dense_conv2d, has_byte_products, packed
from rheobase.ops.int8.events import event_conv2d, weight_rows
from rheobase.ops.int8.weights import quantised

__all__ = [
    "dense_conv2d",
    "event_conv2d",
    "grid_step",
    "has_byte_products",
    "packed",
    "quantised",
    "to_bytes",
    "weight_rows",
]
