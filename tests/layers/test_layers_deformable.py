"""Deformable convolution against ordinary ones."""

import torch
from torch.nn.functional import conv2d, pad

from rheobase.layers.deformable import DeformableConv2d


def test_without_offsets_it_is_a_convolution():
    torch.manual_seed(0)
    net, x = DeformableConv2d(3, 5).double(), torch.rand(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(net(x), conv2d(x, net.weight, net.bias, padding=1))


def test_offsets_are_down_then_right():
    torch.manual_seed(0)
    net, x = DeformableConv2d(3, 5).double(), torch.rand(2, 3, 6, 7, dtype=torch.float64)
    net.offset.bias.data[0::2], net.offset.bias.data[1::2] = 1.0, -2.0
    moved = pad(x, (4, 4, 4, 4))[:, :, 4:12, 1:10]
    torch.testing.assert_close(net(x), conv2d(moved, net.weight, net.bias))


def test_gradients_reach_the_offsets():
    net, x = DeformableConv2d(2, 2), torch.rand(1, 2, 5, 5)
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.offset.bias.grad.abs().sum() > 0
