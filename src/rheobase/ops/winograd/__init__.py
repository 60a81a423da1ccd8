"""3x3 convolution on the CPU with a quarter of the multiplications."""

from rheobase.ops.winograd.op import conv3x3, spread, takes

__all__ = ["conv3x3", "spread", "takes"]
