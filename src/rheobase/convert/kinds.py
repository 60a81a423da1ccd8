"""What an operation of the graph is: linear in its operand, an activation, or another kind.

Linear operations commute with the mean over time, so spikes may pass through them as they are.
Everything else must be replaced, or conversion fails.
"""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from rheobase.convert.trace import Traced

__all__ = [
    "ACTIVATIONS",
    "BILINEAR",
    "GROWING",
    "KINDS",
    "WEIGHTED",
    "kind_of",
    "kind_of_call",
    "occurrences",
    "passes_spikes",
]

WEIGHTED = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Linear,
)  # fmt: skip
"""Layers with weights and one bias a channel."""

ACTIVATIONS = (
    "relu", "relu6", "clip", "leaky_relu", "gelu", "silu", "hardswish", "sigmoid", "tanh", "elu",
    "hardsigmoid", "mish", "softplus", "selu", "celu", "softsign", "log_sigmoid", "hardtanh",
    "prelu", "encode", "threshold_relu", "qcfs", "quant_relu", "clamp_quant", "rate_norm",
)  # fmt: skip
"""Kinds that a spiking neuron replaces; "encode" is the identity, made spikes by a pass."""

GROWING = {
    "relu", "relu6", "clip", "threshold_relu", "qcfs", "quant_relu", "clamp_quant", "rate_norm",
    "leaky_relu", "sigmoid", "tanh", "elu", "hardsigmoid", "softplus", "selu", "celu", "softsign",
    "log_sigmoid", "hardtanh", "encode",
}  # fmt: skip
"""Kinds that never fall as their operand grows."""

KINDS: dict[Any, str] = {}
"""Module class, function, or method name -> kind."""


def _are(kind: str, *targets: Any) -> None:
    KINDS.update(dict.fromkeys(targets, kind))


_are("relu", nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_are("relu6", nn.ReLU6, F.relu6)
_are("clip", nn.Hardtanh, F.hardtanh, F.hardtanh_, torch.clamp, torch.clamp_, torch.clip)
_are("clip", "clamp", "clamp_", "clip", "clip_", torch.clamp_min, "clamp_min", torch.maximum)
_are("leaky_relu", nn.RReLU, nn.LeakyReLU, F.leaky_relu, F.leaky_relu_)
_are("gelu", nn.GELU, F.gelu)
_are("silu", nn.SiLU, F.silu)
_are("hardswish", nn.Hardswish, F.hardswish)
_are("sigmoid", nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid")
_are("tanh", nn.Tanh, F.tanh, torch.tanh, "tanh")
_are("elu", nn.ELU, F.elu)
_are("hardsigmoid", nn.Hardsigmoid, F.hardsigmoid)
_are("mish", nn.Mish, F.mish)
_are("softplus", nn.Softplus, F.softplus)
_are("selu", nn.SELU, F.selu, torch.selu)
_are("celu", nn.CELU, F.celu, torch.celu)
_are("softsign", nn.Softsign, F.softsign)
_are("log_sigmoid", nn.LogSigmoid, F.logsigmoid)
_are("prelu", nn.PReLU)
_are("max_pool", nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d)
_are("max_pool", nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, F.adaptive_max_pool1d)
_are("max_pool", F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool2d)
_are("max_pool", F.adaptive_max_pool3d, torch.adaptive_max_pool1d)
_are("max_pool", torch.max_pool1d, torch.max_pool2d, torch.max_pool3d)
_are("softmax", nn.Softmax, F.softmax, torch.softmax, "softmax")
_are("log_softmax", nn.LogSoftmax, F.log_softmax, torch.log_softmax, "log_softmax")
_are("layer_norm", nn.LayerNorm, F.layer_norm)
_are("rms_norm", nn.RMSNorm, F.rms_norm)
_are("group_norm", nn.GroupNorm, F.group_norm)
_are("instance_norm", nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, F.instance_norm)
_are("response_norm", nn.LocalResponseNorm, F.local_response_norm)
_are("fill", torch.masked_fill, "masked_fill")
_are("glu", nn.GLU, F.glu)
_are("function", torch.exp, torch.sqrt, torch.rsqrt, torch.square, torch.abs, torch.reciprocal)
_are("function", torch.log, torch.log1p, torch.erf, torch.sin, torch.cos, torch.pow, operator.pow)
_are("function", "exp", "sqrt", "rsqrt", "square", "abs", "reciprocal", "log", "log1p", "erf")
_are("function", "sin", "cos", "pow", "__pow__", "amax", "amin", "norm", "var", "std", "prod")
_are("function", torch.amax, torch.amin, torch.norm, torch.linalg.norm, torch.linalg.vector_norm)
_are("function", torch.var, torch.std, torch.prod, torch.logsumexp, "logsumexp", F.normalize)
_are("function", F.cosine_similarity, nn.CosineSimilarity, nn.Softmin, F.softmin)
_are("function", nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold, F.threshold)
_are("function", F.hardshrink, F.softshrink, F.tanhshrink, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)
_are("function", F.lp_pool1d, F.lp_pool2d, F.lp_pool3d, nn.Bilinear, F.bilinear)
_are("where", torch.where)
_are("like", torch.zeros_like, torch.ones_like, torch.full_like, torch.zeros)
_are("like", torch.ones, torch.full, "new_zeros", "new_ones", "new_full")
_are("attention", F.scaled_dot_product_attention)
_are("multihead_attention", nn.MultiheadAttention)
_are("transformer_encoder_layer", nn.TransformerEncoderLayer)
_are("matmul", torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm", "__matmul__")
_are("einsum", torch.einsum)
_are("multiply", operator.mul, operator.imul, torch.mul, "mul", "mul_", "__mul__")
_are("divide", operator.truediv, operator.itruediv, torch.div, "div", "div_")
_are("batch_norm", nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, F.batch_norm)
_are("dropout", nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_are("dropout", nn.FeatureAlphaDropout, F.alpha_dropout, F.feature_alpha_dropout)
_are("dropout", F.dropout, F.dropout2d, F.dropout1d, F.dropout3d)
_are("identity", nn.Identity, "contiguous", "clone", torch.clone, "detach", torch.detach)
_are("weighted", *WEIGHTED, F.conv1d, F.conv2d, F.conv3d, F.linear, F.conv_transpose2d)
_are("weighted", F.conv_transpose1d, F.conv_transpose3d, torch.conv1d, torch.conv2d, torch.conv3d)
_are("weighted", torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
_are("add", operator.add, operator.iadd, torch.add, "add", "add_", "__add__")
_are("add", operator.sub, operator.isub, torch.sub, "sub", "sub_", operator.neg, torch.neg)
_are("average", nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d)
_are("average", nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, F.avg_pool1d, F.avg_pool2d)
_are("average", F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)
_are("average", torch.avg_pool1d, torch.adaptive_avg_pool1d, torch.mean, "mean", torch.sum, "sum")
_are("average", torch.cumsum, "cumsum", F.adaptive_avg_pool3d)
_are("shape", nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
_are("shape", torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze)
_are("shape", torch.unsqueeze, torch.cat, torch.concat, torch.stack, torch.chunk, torch.split)
_are("shape", torch.roll, torch.narrow, torch.unbind, torch.swapaxes, torch.select, torch.flip)
_are(
    "shape",
    torch.index_select,
    torch.unflatten,
    torch.movedim,
    F.pixel_shuffle,
    F.pixel_unshuffle,
    F.pad,
)
_are("shape", operator.getitem, getattr, "view", "reshape", "flatten", "permute", "transpose")
_are("shape", "squeeze", "unsqueeze", "size", "expand", "expand_as", "repeat", "chunk", "split")
_are("shape", "unbind", "roll", "narrow", "select", "unflatten", "to", "float", "type_as", "dim")
_are("shape", "index_select", "movedim", "swapaxes", "flip", "view_as", "t", "numel")
_are("shape", "reshape_as", "repeat_interleave", torch.repeat_interleave, torch.tile, "tile")
_are("shape", nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d)
_are("shape", nn.ConstantPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d)
_are("shape", nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d)
_are("shape", nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)
_are("blend", nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate)
_are("blend", F.upsample, nn.Fold, F.fold)
_are("shape", nn.Unfold, F.unfold)
_are("function", operator.floordiv, operator.mod)  # of tensors; those of sizes are no values

_LINEAR = {
    "weighted",
    "add",
    "average",
    "shape",
    "blend",
    "fill",
    "where",
    "like",
    "identity",
    "dropout",
    "batch_norm",
}
"""Linear (with a bias) in their operand; "like" takes no more than its sizes."""

BILINEAR = {"multiply", "divide", "matmul", "einsum"}
"""Linear as long as only one operand changes over time."""


def kind_of(traced: Traced, node: fx.Node) -> str | None:
    """The kind of a node; None if it is not known."""
    return kind_of_call(traced.owner(node), node)


def kind_of_call(module: nn.Module | None, node: fx.Node) -> str | None:
    """The kind of a node that calls a module (or none).

    A module of a class of its own says its kind as ``conversion_kind``.
    """
    if module is not None:
        own = getattr(module, "conversion_kind", None)
        if own is not None:
            return str(own)
        return next((KINDS[c] for c in type(module).__mro__ if c in KINDS), None)
    if node.op in ("call_function", "call_method"):
        return "function" if _rounds(node) else KINDS.get(node.target)
    return None


def _rounds(node: fx.Node) -> bool:
    """Whether an operation that is linear else is asked for whole numbers."""
    whole = node.target in ("to", "type_as") and bool(node.meta.get("picks"))
    return whole or node.kwargs.get("rounding_mode") is not None


def occurrences(node: fx.Node, of: Container[fx.Node]) -> int:
    """How often some nodes occur in the arguments of another: twice in ``x * x``."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return sum(one in of for one in found)


def passes_spikes(kind: str, changing: int) -> bool:
    """Whether the mean over time may be taken before as well as after an operation of this kind.

    Args:
        kind: its kind.
        changing: how many of its operands change over time; one that occurs twice counts twice.
    """
    return kind in _LINEAR or (kind in BILINEAR and changing <= 1)
