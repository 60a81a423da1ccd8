"""Every option of PyTorch's attention, its decoders, and sequences with the batch on axis 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.convert import NeuronRule, convert

FINE = NeuronRule("integer_code", levels=10**6)
"""A code so fine that only mistakes in the graph are left to be seen."""


def inputs() -> Tensor:
    return torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0)).double()


class Attends(nn.Module):
    """Attention from an input to two others made of it, ``how`` it is called."""

    def __init__(self, how: str = "", **options: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)  # type: ignore[arg-type]
        self.key = nn.Linear(8, self.attention.kdim)
        self.value = nn.Linear(8, self.attention.vdim)
        self.head = nn.Linear(8, 3)
        self.how = how
        self.mask = nn.Buffer(torch.ones(5, 5, dtype=torch.bool).triu(1))
        self.minus_infinity = nn.Buffer(nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, x: Tensor) -> Tensor:
        how = {
            "mask": {"attn_mask": self.mask},
            "-inf": {"attn_mask": self.minus_infinity.to(x.dtype)},
            "of each head": {"attn_mask": self.mask.expand(2 * x.shape[0], -1, -1)},
            "padding": {"key_padding_mask": x[..., 0] < -0.5, "attn_mask": self.mask},
            "heads' weights": {"average_attn_weights": False},
        }.get(self.how, {})
        given = x, self.key(x), self.value(x)
        if not self.attention.batch_first:
            given = tuple(one.transpose(0, 1) for one in given)  # type: ignore[assignment]
        y, weights = self.attention(*given, **how)
        if not self.attention.batch_first:
            y = y.transpose(0, 1)
        if "weights" in self.how:
            y = y * weights.flatten(1).amax(1)[:, None, None]
        out: Tensor = self.head(x + y)
        return out


class Turned(nn.Module):
    """A stack that takes ``[L, N, dim]``."""

    def __init__(self, stack: nn.Module) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stack(x.transpose(0, 1))
        return y.transpose(0, 1)


class Decodes(nn.Module):
    """A decoder over the first steps of its input, causal, with some of them padding."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.memory = nn.Linear(8, 8)
        self.mask = nn.Buffer(nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, x: Tensor) -> Tensor:
        memory = self.memory(x)[:, :3]
        given = (memory, x) if isinstance(self.decoder, nn.Transformer) else (x, memory)
        mask, padding = self.mask.to(x.dtype), x[:, :3, 0] < -0.9
        y: Tensor = self.decoder(*given, tgt_mask=mask, memory_key_padding_mask=padding)
        return y


class Grouped(nn.Module):
    """Four heads of queries share two of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)


def encoder(**options: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, **options)  # type: ignore[arg-type]


def decoder(**options: object) -> nn.TransformerDecoderLayer:
    return nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, **options)  # type: ignore[arg-type]


def attends(how: str = "", **options: object) -> nn.Module:
    return Attends(how, **{"batch_first": True, **options})


NETS = {
    "other widths": lambda: attends(kdim=6, vdim=4),
    "other widths, no bias": lambda: attends(kdim=6, vdim=4, bias=False),
    "own key": lambda: attends(add_bias_kv=True),
    "zero key": lambda: attends(add_zero_attn=True),
    "both, padding": lambda: attends("padding", add_bias_kv=True, add_zero_attn=True),
    "both, batch second": lambda: attends(
        "-inf", add_bias_kv=True, add_zero_attn=True, batch_first=False
    ),
    "mask": lambda: attends("mask"),
    "-inf": lambda: attends("-inf"),
    "mask of each head": lambda: attends("of each head"),
    "weights": lambda: attends("weights"),
    "weights of heads": lambda: attends("heads' weights"),
    "grouped": Grouped,
    "layer, batch second": lambda: Turned(encoder()),
    "stack, batch second": lambda: Turned(
        nn.TransformerEncoder(encoder(norm_first=True, activation="gelu"), 2, nn.LayerNorm(8))
    ),
    "activation is a module": lambda: encoder(batch_first=True, activation=nn.PReLU()),
    "activation is a function": lambda: encoder(
        batch_first=True, activation=lambda x: F.relu(x) ** 2
    ),
    "decoder layer": lambda: Decodes(decoder()),
    "decoder layer, norm first": lambda: Decodes(decoder(norm_first=True, activation="gelu")),
    "decoder layer, no bias": lambda: Decodes(decoder(bias=False)),
    "decoder": lambda: Decodes(nn.TransformerDecoder(decoder(), 2, nn.LayerNorm(8))),
    "transformer": lambda: Decodes(nn.Transformer(8, 2, 1, 1, 16, batch_first=True)),
}


def net(name: str) -> nn.Module:
    torch.manual_seed(1)
    ann: nn.Module = NETS[name]().double().eval()
    for key, parameter in ann.named_parameters():
        if "bias" in key:  # PyTorch starts those of attention at 0
            nn.init.normal_(parameter, 0.0, 0.3)
    return ann


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_what_is_written_out_is_what_it_was(name):
    ann, x = net(name), inputs()
    snn = convert(ann, x, recipe="integer_code", T=1, neuron=FINE)
    torch.testing.assert_close(snn.mean_output(x), ann(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["both, batch second", "grouped", "layer, batch second", "decoder layer"]
)
def test_values_that_are_sums_come_near(name):
    ann, x = net(name), inputs()
    snn = convert(ann, x, recipe="spikezip_tf", T=250, neuron=NeuronRule("st_bif", levels=64))
    out, exact = snn(x), ann(x)
    assert (out.sum(0) - exact).square().mean() < 0.01 * exact.square().mean()
    assert not out[-1].abs().gt(1e-6).any()  # nothing moves any more


class Own(nn.TransformerEncoderLayer):
    """Computes something else than the layer whose class it is of."""

    def forward(self, src: Tensor, *args: object, **options: object) -> Tensor:
        return super().forward(src) * 2.0  # type: ignore[no-any-return]


def test_a_layer_of_ones_own_in_a_stack_of_pytorchs_is_refused():
    stack = nn.TransformerEncoder(Own(8, 2, 16, batch_first=True), 1).double().eval()
    with pytest.raises(ValueError, match="forward of its own") as error:
        convert(stack, inputs(), recipe="ecmt", T=2)
    assert "layers.0" in str(error.value)


@pytest.mark.parametrize("name", ["decoder", "decoder layer", "transformer", "own key"])
def test_attention_never_stays_as_it_is(name):
    ann = nn.Sequential(net(name), nn.Linear(3 if name == "own key" else 8, 4), nn.ReLU()).double()
    with pytest.raises(ValueError, match=r"is of kind '(multihead|transformer).*'ecmt'"):
        convert(ann.eval(), inputs(), recipe="calibration_light", T=4)
