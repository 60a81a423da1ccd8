"""Matrix products on the CPU, in tiles that stay in registers; 1x1 convolutions made of them."""

from rheobase.ops.products.op import conv1x1, takes

__all__ = ["conv1x1", "takes"]
