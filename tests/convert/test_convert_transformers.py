"""Conversion of PyTorch's own attention modules, and of whatever has softmax, norms and GELU."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rheobase
from rheobase.convert import NeuronRule, Spiking, Statistic, convert
from rheobase.convert.transformers import count_spikes
from rheobase.convert.transformers.approximators import ReLUApproximator
from rheobase.models.bert import Bert, BertConfig

FINE = NeuronRule("integer_code", levels=10**6)
"""A code so fine that only mistakes in the graph are left to be seen."""


def inputs() -> Tensor:
    return torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0)).double()


class Attends(nn.Module):
    """Self-attention of PyTorch with the given masks."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(8, 3)
        self.mask = nn.Buffer(torch.ones(5, 5, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.attention.batch_first
        y = x if first else x.transpose(0, 1)
        y = self.attention(y, y, y, attn_mask=self.mask)[0]
        out: Tensor = self.head(x + (y if first else y.transpose(0, 1)))
        return out


class Padded(nn.Module):
    """An encoder layer that does not attend to where the first channel is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x, src_key_padding_mask=(x[..., 0] < -0.5))
        return y


class Product(nn.Module):
    """`F.scaled_dot_product_attention`, causal, and a gated hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.gate = nn.Linear(8, 16)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.norm(x)], 1)
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x)) + 0.5
        return out


def layer(**options: object) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)  # type: ignore[arg-type]


NETS = {
    "attention": lambda: Attends(batch_first=True),
    "attention, batch second": lambda: Attends(),
    "attention without bias": lambda: Attends(batch_first=True, bias=False),
    "layer": layer,
    "layer, norm first": lambda: layer(norm_first=True, activation="gelu"),
    "encoder": lambda: nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False),
    "padding": Padded,
    "product": Product,
}


def net(name: str) -> nn.Module:
    torch.manual_seed(1)
    return NETS[name]().double().eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_attention_written_out_is_what_it_was(name):
    ann, x = net(name), inputs()
    snn = convert(ann, x, recipe="integer_code", T=1, neuron=FINE)
    torch.testing.assert_close(snn.mean_output(x), ann(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["layer, norm first", "product"])
def test_impulses_settle_on_the_quantised_network(name):
    ann, x = net(name), inputs()
    snn = convert(ann, x, recipe="spikezip_tf", T=250, neuron=NeuronRule("st_bif", levels=64))
    out = snn(x)
    exact = ann(x)
    assert (out.sum(0) - exact).square().mean() < 0.01 * exact.square().mean()
    assert not out[-1].abs().gt(1e-9).any()  # nothing moves any more


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["ecmt", "spikezip_tf", "spikezip_tf_language"])
def test_step_by_step_is_all_at_once(recipe):
    ann, x = net("product"), inputs()
    snn = convert(ann, x, recipe=recipe, T=6)
    snn.at_once = 1000
    together = snn(x)
    snn.at_once = 1
    torch.testing.assert_close(snn(x), together, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_mean_over_time_comes_near_with_more_steps():
    ann, x = net("layer, norm first"), inputs()
    snn = convert(ann, x, recipe="ecmt", T=64)
    exact = ann(x)
    errors = [(snn.mean_output(x, steps) - exact).square().mean() for steps in (1, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 * exact.square().mean()


@torch.no_grad()
def test_what_enters_weights_and_products_is_spikes():
    snn = convert(net("layer"), inputs(), recipe="ecmt", T=3)
    sources = [m.site.activation.source for m in snn.modules() if isinstance(m, Spiking)]
    # q, k, v (the first layer takes the input itself), attention, context, norm1, hidden.
    assert sorted(sources) == sorted(
        ["weighted", "weighted", "weighted", "softmax", "matmul", "layer_norm", "relu"]
    )


def test_gradients_reach_the_weights():
    snn = convert(net("layer"), inputs(), recipe="ecmt", T=3)
    snn(inputs()).square().sum().backward()
    gradients = [p.grad for p in snn.parameters() if p.requires_grad]
    assert sum(g is not None and bool(g.abs().sum() > 0.0) for g in gradients) > 10


@torch.no_grad()
def test_counted_spikes():
    ann, x = net("layer"), inputs()
    snn = convert(ann, x, recipe="ecmt", T=4)
    count = count_spikes(snn, x)
    assert round(count.values) == 4 * 5 * (8 * 3 + 2 * 5 + 8 + 8 + 16)
    assert 0.0 < count.per_value <= 4.0  # one a step at most
    dense = convert(ann, x, recipe="integer_code", T=1)
    digits = convert(
        ann, x, recipe="integer_code", T=1, neuron=NeuronRule("signed_digits", levels=3)
    )
    torch.testing.assert_close(dense(x), digits(x))
    assert count_spikes(digits, x).spikes < count_spikes(dense, x).spikes


def test_accumulated_streams():
    x = torch.randn(7, 2, 3).double()
    product = rheobase.layers.Accumulated(torch.mul, "mean")
    with rheobase.streaming(product):
        pieces = torch.cat([product(x[:2], x[:2]), product(x[2:3], x[2:3]), product(x[3:], x[3:])])
    torch.testing.assert_close(pieces, product(x, x))
    with rheobase.streaming(product), pytest.raises(ValueError, match="other shapes"):
        product(x, x)
        product(x[..., :2], x[..., :2])
    with pytest.raises(ValueError, match="one length"):
        product(x, x[:3])
    with pytest.raises(ValueError, match="mean"):
        rheobase.layers.Accumulated(torch.mul, "means")


@torch.no_grad()
def test_rate_coded_transformer_of_2021():
    ann, x = net("layer"), inputs()
    snn = convert(ann, x, recipe="spiking_transformer_2021", T=8)
    (site,) = [m for m in snn.modules() if isinstance(m, Spiking)]  # the hidden layer alone
    linear1 = ann.linear1
    z = linear1(ann.norm1(x + ann.self_attn(x, x, x)[0])).relu()
    unit = z.flatten(0, 1).amax(0).sort().values[int(0.99 * (z.shape[-1] - 1))]
    largest = max(float(unit), float(linear1.weight.max()), float(linear1.bias.max()))
    assert float(site.neuron.v_threshold.detach()) == pytest.approx(largest)
    # What comes before the hidden layer is the same at every step, so its spikes are those of an
    # IF that fires above its threshold, and the norm behind it sees one step at a time.
    v, spikes = torch.zeros_like(z), []
    for _ in range(8):
        v = v + z_current(ann, x) / largest
        spikes.append((v > 1.0).double())
        v = v - spikes[-1]
    stream = ann.norm1(x + ann.self_attn(x, x, x)[0])
    expected = [ann.norm2(stream + ann.linear2(s * largest)) for s in spikes]
    torch.testing.assert_close(snn(x), torch.stack(expected))


def z_current(ann: nn.Module, x: Tensor) -> Tensor:
    """What charges the hidden layer."""
    current: Tensor = ann.linear1(ann.norm1(x + ann.self_attn(x, x, x)[0]))  # type: ignore[operator]
    return current


@torch.no_grad()
@pytest.mark.parametrize("name", ["layer, norm first", "product"])
def test_sta_comes_near_with_its_approximators(name):
    ann, x = net(name), inputs()
    exact = ann(x)
    errors = []
    for steps in (4, 16, 128):
        snn = convert(ann, x, recipe="sta", T=steps)
        errors.append(float((snn.mean_output(x) - exact).square().mean() / exact.square().mean()))
    assert errors[-1] < 0.005
    assert errors[-1] < errors[0]


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["integer_code", "ecmt"])
def test_texts_of_other_lengths_than_those_calibrated_with(recipe):
    """Sizes that forward asks of its input are those of the input at hand."""
    torch.manual_seed(0)
    config = BertConfig(vocabulary=50, dim=16, depth=1, heads=2, hidden=32, positions=30)
    net = Bert(config).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snn = convert(net, torch.randint(1, 50, (16, 12)), recipe=recipe, T=8)
    for length in (7, 12, 30):
        ids = torch.randint(1, 50, (3, length))
        with torch.no_grad():
            found, expected = snn.mean_output(ids), net(ids)
        assert found.shape == expected.shape
        assert (found - expected).norm() < 0.2 * expected.norm()


def test_sta_takes_sequences_of_the_length_that_it_was_calibrated_with():
    snn = convert(net("layer"), inputs(), recipe="sta", T=2)
    with pytest.raises(ValueError, match=r"thresholds for 5 features, got 4.* of the length"):
        snn(inputs()[:, :4])


def test_ecmt_names_the_layers_that_it_cuts_off():
    ann = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)).double()
    ann[0].weight.data[0] *= 1000.0  # one very large channel among eight
    with pytest.warns(UserWarning, match=r"of what it is to send.*is cut off.*percentile"):
        convert(
            ann,
            inputs(),
            recipe="ecmt",
            statistic=Statistic("signed_percentile", percentile=80.0, scale=2.0**-7),
        )
    whole = Statistic("signed_percentile", percentile=100.0, scale=2.0**-7)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is cut off")
        convert(ann, inputs(), recipe="ecmt", statistic=whole)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("exp", -20.0, 3.0), ("reciprocal", 0.5, 100.0), ("rsqrt", 0.1, 50.0)]
)
def test_approximators_are_near_the_function(name, low, high):
    function = getattr(torch, name)
    spread = "linear" if low < 0.0 else "log"
    errors = []
    for neurons in (8, 16, 32):
        x = torch.linspace(low, high, 3000).double()
        near = ReLUApproximator(function, low, high, neurons, spread=spread)
        errors.append(float((near(x) - function(x)).abs().max()))
    # Piecewise linear: twice the neurons, a quarter of the error.
    assert errors[1] < 0.4 * errors[0] and errors[2] < 0.4 * errors[1]
