"""Products with few nonzero inputs: only the weights of neurons that fired are read."""

from rheobase.ops.events.conv import event_conv2d, matrices_by_place
from rheobase.ops.events.linear import event_linear, rows_by_input, weight_gradient

__all__ = [
    "event_conv2d",
    "event_linear",
    "matrices_by_place",
    "rows_by_input",
    "weight_gradient",
]
