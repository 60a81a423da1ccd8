"""Conversion of small networks: what the graph may hold, what it becomes, what is refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rheobase
from rheobase.convert import (
    RECIPES,
    NeuronRule,
    PostCalibration,
    Recipe,
    Spiking,
    Statistic,
    convert,
    recipes,
)
from rheobase.convert.prepare import pool_before_activations
from rheobase.convert.trace import trace
from rheobase.layers import QCFS, ClampQuant
from rheobase.measure import count_operations, energy, firing_rates

T = 256


def double(net: nn.Module) -> nn.Module:
    """In float64, with batch norms that do something."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net.double().eval()


def images(n: int = 6, c: int = 3, size: int = 8) -> Tensor:
    return torch.rand(n, c, size, size, dtype=torch.float64, generator=torch.manual_seed(1))


def assert_converts(ann: nn.Module, x: Tensor, atol: float = 0.05, **choices: object) -> None:
    """The mean output goes to the ANN's, step by step as well as folded."""
    choices = {"recipe": "threshold_max", "neuron": NeuronRule(start=0.5), **choices}
    snn = convert(ann, x, T=T, **choices)
    assert not any(isinstance(m, nn.ReLU | nn.Hardtanh | nn.LeakyReLU) for m in snn.modules())
    with torch.no_grad():
        mean = snn.mean_output(x)
        assert torch.allclose(mean, ann(x), atol=atol), (mean - ann(x)).abs().max()
        snn.at_once = 1000
        sequence = snn(x, 5)
        snn.at_once = 1
        assert torch.allclose(snn(x, 5), sequence, atol=1e-12)
        fast = copy.deepcopy(snn)
        fast.make_over()
        assert torch.allclose(fast(x, 5), sequence, atol=1e-12)


class Functional(nn.Module):
    """Functional calls, a module used twice, a shape taken from the input, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.c = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = F.relu(self.a(x))
        y = self.act(self.b(x)) + x
        y = torch.relu_(self.b(y))
        y = self.act(y - 0.1)
        y = F.max_pool2d(torch.cat([x, y], 1), 2)
        y = self.norm(self.c(y)).relu()
        y = F.dropout(y, 0.5, training=self.training)
        y = torch.clamp(y, 0, 1.5)
        return self.head(y.view(batch, -1))


class Residual(nn.Module):
    """Two branches with batch norm, a projection, ReLU6 and adaptive pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6())
        self.branch = nn.Sequential(
            nn.Conv2d(6, 6, 3, 2, 1, groups=6), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1)
        )
        self.short = nn.Conv2d(6, 8, 1, 2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(),
            nn.Dropout(), nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.norm(self.branch(x) + self.short(x)))
        return self.head(x)


def plain(*activations: nn.Module) -> nn.Module:
    first, second = activations or (nn.ReLU(), nn.ReLU())
    return double(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), first, nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(36, 8), second, nn.Linear(8, 3),
        )
    )  # fmt: skip


@pytest.mark.parametrize("make", [Functional, Residual])
def test_any_network_converts(make):
    ann, x = double(make()), images()
    weights = copy.deepcopy(ann.state_dict())
    assert_converts(ann, x)
    assert all(torch.equal(v, weights[k]) for k, v in ann.state_dict().items()), "the ANN changed"


def test_leaky_relu_by_signed_spikes():
    ann = plain(nn.LeakyReLU(0.1), nn.LeakyReLU(0.1))
    assert_converts(ann, images(), recipe="spiking_yolo", neuron=RECIPES["spiking_yolo"].neuron)


def test_max_pooling_by_a_gate():
    assert_converts(
        plain(), images(), recipe="rueckauer", prepare=RECIPES["rueckauer"].prepare, atol=0.06
    )


def test_channel_and_neuron_thresholds():
    for granularity in ("channel", "neuron"):
        assert_converts(plain(), images(), granularity=granularity)


@pytest.mark.filterwarnings("ignore:.*never active")
@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"sta"}))  # which needs attention
def test_every_recipe_runs(name):
    recipe = RECIPES[name]
    layers = rheobase.layers
    kinds = {"qcfs": QCFS(4, 1.0), "rate_norm": layers.RateNorm(), "clamp_quant": ClampQuant(8)}
    own = next((kinds[kind] for kind in recipe.source if kind in kinds), nn.ReLU())
    ann = plain(copy.deepcopy(own), copy.deepcopy(own)) if "relu" not in recipe.source else plain()
    post = [
        p if not p.iterations else type(p)(p.kind, p.samples, 3, p.learning_rate, 4)
        for p in recipe.post
    ]
    snn = convert(ann, images(), recipe=recipe, T=8, post=tuple(post))
    out = snn(images())
    assert out.shape == (8 + recipe.readout.delay, 6, 3)
    assert out.isfinite().all()


def test_an_ordinary_network():
    ann, x = plain(), images()
    snn = convert(ann, x, recipe="calibration_light", T=6)
    with torch.no_grad():
        whole = snn(x)
        with rheobase.streaming(snn):
            pieces = torch.cat([snn(x, 2), snn(x, 4)])
        assert torch.equal(pieces, whole)
        assert torch.equal(snn(x), whole)
    rates = firing_rates(snn, x)
    assert len(rates) == 2 and all(0.0 <= rate <= 1.0 for rate in rates.values())
    report = count_operations(snn, x)
    assert [layer.steps for layer in report.layers] == [1, 6, 6], "the first layer runs once"
    assert energy(report).pj > 0.0


def test_it_trains_further():
    ann, x = plain(), images(32)
    y = torch.arange(32) % 3
    x = x + 0.7 * y.view(-1, 1, 1, 1)
    snn = convert(ann, x, recipe="threshold_max", T=4, neuron=NeuronRule(start=0.5))
    optimiser = torch.optim.Adam(snn.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(snn.mean_output(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_context_does_not_matter(context):
    weights = PostCalibration("weights", samples=6, iterations=3, learning_rate=1e-4)
    for net, choices in (
        (plain(), {"post": (weights,)}),
        (plain(nn.SiLU(), nn.SiLU()), {"recipe": "few_spikes"}),
    ):
        with context():
            x = images() * 1.0
            inside = convert(net, x, T=4, **choices)
            out = inside(x)
        assert out.shape[:2] == (4, len(x))
        inside(images()).sum().backward()  # an ordinary network: it trains further


def test_it_exports():
    ann, x = plain(), images()
    snn = convert(ann.float(), x.float(), recipe="threshold_max", T=4)
    exported = torch.export.export(snn, (x.float(),)).module()
    with torch.no_grad():
        assert torch.allclose(exported(x.float()), snn(x.float()), atol=1e-5)


def test_report():
    ann, x = double(Residual()), images(16)
    labels = ann(x).argmax(1)
    snn = convert(ann, x, recipe="threshold_max", T=64, labels=labels)
    report = snn.report()
    assert [one.became for one in report.layers] == ["RateIF"] * 4
    assert all(one.spikes == "binary" for one in report.layers)
    assert report.spikeness["branch.0"] == "spikes"
    assert report.spikeness["head.2"] == "spikes, averaged"
    assert report.accuracy is not None and report.accuracy[-1] >= 90.0
    assert report.output_error[-1] < report.output_error[3]
    assert report.layers[0].clip_error == 0.0
    assert "RateIF" in str(report)


def test_recipes_are_listed():
    listed = {one.name: one for one in recipes()}
    assert listed["qcfs"].needs == ("training",) and "2303.04347" in listed["qcfs"].paper
    assert len(listed) >= 25 and all(isinstance(one, Recipe) for one in listed.values())


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x.relu()
        return x


class WithSoftmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.layer(x).relu(), -1)


class OneOver(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1.0 / (x.relu() + 1.0)


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"rates": x.relu(), "inputs": x}


class Chosen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0.0, x, 0.0 * x)


class Compared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0.0)


class OverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return x - x.mean(0)


def test_what_is_refused():
    ann, x = plain(), images()
    with pytest.raises(ValueError, match="needs calibration inputs"):
        convert(ann, recipe="calibration_light")
    with pytest.raises(ValueError, match=r"does not take calibration inputs of shape \[N, 1, 8, 8"):
        convert(ann, x[:, :1])
    with pytest.raises(TypeError, match=r"got torch\.bool"):
        convert(ann, x > 0.5)
    with pytest.raises(ValueError, match=r"'2'.*not finite"):
        convert(ann, x * torch.nan)
    with pytest.raises(ValueError, match="batch norm '1' is in training mode"):
        convert(copy.deepcopy(ann).train(), x)
    with pytest.raises(ValueError, match=r"test_convert.py:\d+, in forward.*hangs on the value"):
        convert(Branching(), x)
    with pytest.raises(ValueError, match=r"softmax.*test_convert.py:\d+, in forward.*'softmax'"):
        convert(WithSoftmax(), x[:, 0, 0, :4].float(), recipe="threshold_max")
    with pytest.raises(ValueError, match=r"'gelu'.*does not convert.*few_spikes"):
        convert(plain(nn.GELU(), nn.ReLU()), x)
    with pytest.raises(ValueError, match=r"without a trained threshold|does not convert"):
        convert(ann, x, recipe="qcfs")
    with pytest.raises(ValueError, match="unknown recipe 'calibration_lite'; did you mean"):
        convert(ann, x, recipe="calibration_lite")
    with pytest.raises(ValueError, match="unknown axis of a recipe 'statistics'"):
        convert(ann, x, statistics=Statistic("max"))
    with pytest.raises(ValueError, match="at least one time step, got T=0"):
        convert(ann, x, T=0)
    with pytest.raises(ValueError, match=r"'hardtanh'.*does not convert.*few_spikes"):
        convert(plain(nn.Hardtanh(), nn.ReLU()), x)
    with pytest.raises(ValueError, match=r"truediv, .*'divide'"):
        convert(OneOver(), torch.rand(3, 4))
    with pytest.raises(ValueError, match="depends on the other samples"):
        convert(OverBatch(), torch.rand(3, 4))
    with pytest.raises(ValueError, match="no activation to convert"):
        convert(nn.Linear(4, 2), torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"no activation.*'gt' \(.*:\d+, in forward\) is none"):
        convert(Chosen(), torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"returns a dict \(rates, inputs\); conversion needs one"):
        convert(Named(), torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"returns a tuple \(0, 1\); conversion needs one tensor"):
        convert(nn.Sequential(nn.ReLU(), nn.GRU(4, 2)), torch.rand(3, 4), recipe="ecmt")
    with pytest.raises(ValueError, match=r"'gt_encode'.*torch\.bool, which no spikes can"):
        convert(nn.Sequential(nn.Linear(4, 4), Compared()), torch.rand(3, 4), recipe="ecmt")
    with pytest.raises(TypeError, match="GraphModule of an exported program; give the module"):
        convert(torch.export.export(nn.Sequential(nn.ReLU()), (x,)).module(), x)
    with pytest.raises(TypeError, match="not function"):
        convert(lambda y: y.relu(), x)
    with pytest.raises(TypeError, match=r"whole number of time steps, got 2\.5"):
        convert(ann, x, T=2.5)
    with pytest.raises(ValueError, match=r"labels have shape \[2\], but there are 6"):
        convert(ann, x, labels=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="first 4 steps, but only 2"):
        convert(plain(QCFS(4), QCFS(4)), x, recipe="cos", T=2)(x)


class Between(nn.Module):
    """Two layers with an operation on the spikes and the current between them."""

    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(6, 6) for _ in range(3))
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(x).relu()
        return self.last(self.operation(spikes, self.second(spikes)).relu())


@pytest.mark.parametrize(
    "operation",
    [
        lambda s, x: s * s,
        lambda s, x: torch.mul(s, other=s),
        lambda s, x: torch.einsum("nc,nc->n", s, s).unsqueeze(1) + x,
        lambda s, x: x // 0.1,
        lambda s, x: x % 0.1,
        lambda s, x: torch.div(x, 0.1, rounding_mode="floor"),
        lambda s, x: x.to(torch.int64).float(),
        lambda s, x: torch.lerp(s, x, s),
        lambda s, x: torch.addcmul(x, s, s),
        lambda s, x: torch.where(x > 0.1, x, s),
    ],
)
def test_what_is_not_linear_is_refused_whatever_it_is_called(operation):
    with pytest.raises(ValueError, match=r"node '\w+' \(\w+, .*test_convert\.py:\d+"):
        convert(Between(operation), torch.rand(8, 6), recipe="threshold_max")


def test_whole_numbers_of_sizes_pass():
    def halves(s: Tensor, x: Tensor) -> Tensor:
        return x.reshape(-1, 2, x.shape[1] // 2)[:, :, : x.shape[1] % 4 + 1].flatten(1)

    torch.manual_seed(0)
    ann, x = Between(halves), torch.rand(8, 6)
    with torch.no_grad():
        found, wanted = convert(ann, x, recipe="threshold_max", T=512)(x).mean(0), ann(x)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def test_dead_and_saturated_layers_are_named():
    ann = plain()
    ann[0].bias.data.fill_(-100.0)
    with pytest.warns(UserWarning, match=r"'2'.*never active") as dead:
        convert(ann, images(), recipe="threshold_max")
    slow = Statistic("max", scale=1000.0)
    with pytest.warns(UserWarning, match=r"'2' .* is 1e\+03 times its largest .* as many steps"):
        convert(plain(), images(), recipe="threshold_max", T=8, statistic=slow)
    never = Statistic("max", scale=1e7)
    with pytest.raises(
        ValueError, match=r"'threshold_max' does not suit .*'2'.* would take 1e\+07"
    ):
        convert(plain(), images(), recipe="threshold_max", T=8, statistic=never)
    with pytest.warns(UserWarning, match="saturate") as saturated:
        convert(plain(), images(), recipe="threshold_max", statistic=Statistic("max", scale=0.01))
    assert {one.filename for one in (*dead, *saturated)} == {__file__}, "the caller's line"


def test_outputs_as_far_off_as_zeros_are_warned_of():
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 32, bias=False), nn.ReLU(), nn.Linear(32, 3, bias=False))
    x = torch.rand(64, 6)
    with pytest.warns(UserWarning, match=r"after 4 steps .* 100 % of their size") as caught:
        convert(ann.eval(), x, T=4, recipe="threshold_max", statistic=Statistic("max", scale=9.0))
    assert {one.filename for one in caught} == {__file__}, "the caller's line"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        convert(ann, x, T=64, recipe="threshold_max")


def test_a_reset_to_zero_is_for_networks_without_biases():
    lost = r"loses what was above.* biases of 3 of them \('0'"
    ann, x = plain(), images()
    with pytest.warns(UserWarning, match=lost + ".*reset by subtraction"):
        biased = convert(ann, x, recipe="diehl_data", T=64)
    assert biased.recipe.neuron.reset == "subtract"
    with pytest.warns(UserWarning, match="a reset to zero " + lost):
        insisted = convert(ann, x, recipe="diehl_data", T=64, neuron=NeuronRule(reset="zero"))
    off, worse = ((net.mean_output(x) - ann(x)).norm() for net in (biased, insisted))
    assert 5 * off < worse
    ann = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3, bias=False)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unbiased = convert(double(ann), images(), recipe="diehl_data", T=64)
    assert unbiased.recipe.neuron.reset == "zero"


def test_conventions_are_not_mixed():
    with pytest.raises(ValueError, match=r"'spiking_yolo'|biases at every step|means over T"):
        convert(plain(), images(), encoding=rheobase.convert.Encoding("current", bias="once"))
    with pytest.raises(ValueError, match="count T times"):
        impulse = rheobase.convert.Encoding("impulse")
        convert(plain(), images(), recipe="threshold_max", encoding=impulse)


def test_spiking_modules_take_the_activations_place():
    snn = convert(plain(), images(), recipe="threshold_max", T=2)
    assert isinstance(snn.body.get_submodule("2"), Spiking)


@pytest.mark.filterwarnings("ignore:.*never active")
def test_local_balance_says_when_it_was_broken_off():
    ann, x = plain(), images(64)
    with pytest.warns(UserWarning, match=r"local balance of '2'.*cut off \d+ %.*batch_size=8"):
        short = convert(ann, x, recipe="inference_scale", statistic=Statistic("local_balance"))
    many = Statistic("local_balance", batch_size=4, iterations=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="local balance")
        long = convert(ann, x, recipe="inference_scale", statistic=many)
    errors = [one.report().output_error[-1] for one in (short, long)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("activation", "moves"), [(nn.ReLU(), True), (nn.SiLU(), False)])
def test_a_pool_stays_behind_an_activation_that_does_not_grow(activation, moves):
    ann = double(nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.MaxPool2d(2)))
    ann[0].bias.data -= 1.0  # where SiLU falls
    traced = trace(ann, [images()[:3]])
    pool_before_activations(traced)
    assert torch.equal(traced.module(images()), ann(images()))
    order = [n.target for n in traced.graph.nodes if n.op == "call_module"]
    assert order == (["0", "2", "1"] if moves else ["0", "1", "2"])


@pytest.mark.parametrize(
    "activation", [nn.SELU(), nn.CELU(0.5), nn.Softsign(), nn.LogSigmoid(), nn.Hardtanh()]
)
def test_any_activation_of_one_variable_by_few_spikes(activation):
    ann = plain(activation, activation)
    report = convert(ann, images(), recipe="few_spikes", T=12).report()
    assert report.output_error[-1] < 0.1
    assert all(layer.rounding_error < 0.1 for layer in report.layers)  # what the code adds


def test_prelu_has_a_slope_for_each_channel():
    first, second = nn.PReLU(4, 0.3), nn.PReLU()
    first.weight.data += torch.tensor([0.0, 0.2, 0.4, -0.2])
    assert_converts(plain(first, second), images(), recipe="spiking_yolo",
                    neuron=RECIPES["spiking_yolo"].neuron)  # fmt: skip
    first.weight.data -= 1.0
    with pytest.raises(ValueError, match="slopes for negative values that are not above 0"):
        convert(plain(first, second), images(), recipe="spiking_yolo")


class Larger(nn.Module):
    """ReLU as the larger of a value and 0, and of two values."""

    def __init__(self, *, two: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.two = nn.Linear(4, 8), nn.Linear(8, 3), two

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(torch.maximum(y, -y if self.two else torch.zeros(())))


def test_the_larger_of_a_value_and_zero_is_a_relu():
    x = torch.rand(16, 4)
    snn = convert(Larger().eval(), x, recipe="threshold_max", T=4)
    assert [one.became for one in snn.report().layers] == ["RateIF"]
    with pytest.raises(ValueError, match="the larger or smaller of two values"):
        convert(Larger(two=True).eval(), x)


@pytest.mark.parametrize(("recipe", "became"), [("few_spikes", "FewSpikeNeuron"),
                                                ("ttfs", "FirstSpikeNeuron")])  # fmt: skip
def test_report_of_codes(recipe, became):
    ann, x = plain(), images(16)
    report = convert(ann, x, recipe=recipe, T=8).report()
    assert [one.became for one in report.layers] == [became] * 2
    assert report.spikeness["5"] == "spikes, weighted"
    for one in report.layers:
        assert one.timing_error == 0.0 and 0.0 < one.rounding_error <= 1.1 * one.error + 1e-9
        assert 0.0 < one.rate < 1.0 and 0.0 < one.threshold[0] <= one.threshold[2]
    if recipe == "ttfs":
        assert all(one.rate <= 1.0 / 8 for one in report.layers), "one spike in T steps"


def test_report_of_values_that_are_sums():
    ann, x = plain(), images(16)
    few, many = (convert(ann, x, recipe="tandem", T=T).report() for T in (8, 128))
    assert many.layers[0].error < 0.3 * few.layers[0].error < 1.0


def test_the_faster_number_of_steps_is_chosen_by_measuring():
    snn = convert(plain(), images(), recipe="threshold_max", T=8)
    with torch.no_grad():
        out = snn(images())
        assert snn.choose_faster(images()) in (1, 4, 8)
        torch.testing.assert_close(snn(images()), out)
        snn = convert(plain(), images(), recipe="ttfs", T=8)
        assert snn.choose_faster(images()) == 8, "its neurons need the whole sequence"
