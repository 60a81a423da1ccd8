"""What networks found in the wild do: converted right, or refused by name; never quietly wrong."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import einops
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import rheobase
from rheobase.convert import (
    RECIPES,
    Encoding,
    NeuronRule,
    PostCalibration,
    Readout,
    Statistic,
    convert,
)
from rheobase.layers import QCFS

T = 128


class Net(nn.Module):
    """Two convolutions and a head, put together by ``run(net, x)``."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.act = nn.Linear(256, 5), nn.ReLU(inplace=True)
        self.shift = nn.Parameter(torch.randn(4, 1, 1))
        self.run = [run]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run[0](self, x).flatten(1))


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def relative_error(ann: nn.Module, x: Tensor, **choices: Any) -> float:
    given = {"recipe": "threshold_max", "neuron": NeuronRule(start=0.5), "T": T, **choices}
    with torch.no_grad():
        expected = ann(x)
        found = convert(ann, x, **given).mean_output(x)
    return ((found - expected).abs().mean() / expected.abs().mean()).item()


def in_place(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    z = torch.relu_(y)
    return (net.b(z) + y).relu()


def before_activation(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    out = net.b(net.act(x))  # changes x, too
    out += x
    return F.relu(out)


def divided_by_sizes(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.a(x)) * x.shape[1] ** -0.5
    return F.relu(net.b(x / math.sqrt(2.0) / x.size(1)))


def padded_and_unfolded(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.a(x)).detach()
    x = nn.functional.unfold(F.pad(x, (1, 1, 1, 1), "circular"), 3)
    return F.relu(net.b(x.unflatten(1, (4, 9)).mean(2).unflatten(2, (8, 8))))


def made_on_the_way(net: Any, x: Tensor) -> Tensor:
    return nn.ReLU()(net.b(nn.ReLU(inplace=True)(net.a(nn.Identity()(x)))))


@pytest.mark.parametrize(
    "run",
    [in_place, before_activation, divided_by_sizes, padded_and_unfolded, made_on_the_way],
)
def test_what_is_changed_in_place_and_sizes_are_followed(run):
    assert relative_error(Net(run).double().eval(), images()) < 0.04


def test_views_take_every_order_of_memory():
    class Viewed(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.b(F.relu(self.a(x))))
            return self.head(x.view(x.size(0), -1))

    assert relative_error(Viewed(in_place).eval(), images(torch.float32)) < 0.04


def test_modules_may_be_called_as_methods_are():
    names = ("view", "type_as", "mT", "item")
    layers = (nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))
    ann = nn.Sequential(OrderedDict(zip(names, layers, strict=True))).double().eval()
    assert relative_error(ann, images()) < 0.02


def checked(net: Any, x: Tensor) -> Tensor:
    assert x.dim() == 4 and x.shape[1] == 3, "images"
    x = F.relu(net.a(x))
    torch._assert(x.shape[2] == 8, "eight rows")
    if len(x.shape) == 4 and x.is_floating_point():
        x = F.relu(net.b(x))
    return x


def looped(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    y = net.b(x) / math.sqrt(x.size(1)) * float(int(x.shape[2]))
    return torch.cat([F.relu(y[:, place]) for place in range(x.shape[1])], 1)


def in_parts(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.a(x))
    parts = [F.relu(part) for part in net.b(x).chunk(2, 1)]
    return torch.cat(parts, 1).reshape(*x.shape)


def unpacked(net: Any, x: Tensor) -> Tensor:
    first, second = net.b(F.relu(net.a(x))).unflatten(1, (2, 2)).transpose(0, 1)
    return torch.cat([F.relu(first), F.relu(second)], 1)


def of_sizes(net: Any, x: Tensor) -> Tensor:
    y = F.relu(net.a(x))
    least = torch.finfo(y.dtype).tiny
    falling = 1.0 / (1.0 + torch.arange(y.shape[-1], dtype=y.dtype, device=y.device))
    return F.relu(
        net.b(y * falling + net.shift[: y.shape[1]].expand(x.shape[0], -1, -1, -1)) + least
    )


def by_pattern(net: Any, x: Tensor) -> Tensor:
    y = net.b(F.relu(net.a(x)))
    y = einops.rearrange(y, "b (two c) h w -> two b c h w", two=2)
    shift = einops.repeat(net.shift, "c 1 1 -> b c h w", b=x.shape[0], h=8, w=y.shape[-1])
    y = F.relu(einops.rearrange(list(y), "two b c h w -> b (two c) h w") + shift)
    return y - einops.reduce(y, "b c (h 2) w -> b c h 1", "mean").repeat_interleave(2, 2)


@pytest.mark.parametrize("run", [checked, looped, in_parts, unpacked, of_sizes, by_pattern])
def test_python_may_ask_for_sizes(run):
    assert relative_error(Net(run).double().eval(), images()) < 0.02


@dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda y: (y,),
        lambda y: {"logits": y, "loss": None},
        lambda y: OrderedDict(logits=y),
        Answer,
    ],
)
def test_one_tensor_in_a_container_is_the_output(wrapped):
    class Wrapping(Net):
        def forward(self, x: Tensor) -> Any:
            return wrapped(super().forward(x))

    def run(net: Any, x: Tensor) -> Tensor:
        return F.relu(net.b(F.relu(net.a(x))))

    given = {"recipe": "threshold_max", "T": 4}
    expected = convert(Net(run).double().eval(), images(), **given)(images())
    found = convert(Wrapping(run).double().eval(), images(), **given)(images())
    assert torch.equal(found, expected)


def test_other_arguments_keep_their_defaults():
    class Masked(Net):
        def forward(self, x: Tensor, mask: Tensor | None = None, twice: bool = False) -> Tensor:
            x = F.relu(self.a(x))
            x = x * 3.0 if mask is None else x * mask
            return self.head(F.relu(self.b(2 * x if twice else x)).flatten(1))

    assert relative_error(Masked(in_place).double().eval(), images()) < 0.04


@pytest.mark.parametrize("make", ["parametrised", "old", "pruned"])
def test_weights_that_are_made_before_every_call_are_kept(make):
    def norm(layer: nn.Module) -> nn.Module:
        if make == "old":
            with pytest.warns(FutureWarning):
                return nn.utils.weight_norm(layer)
        if make == "pruned":
            return prune.l1_unstructured(layer, "weight", 0.5)
        return parametrizations.weight_norm(layer)

    ann = nn.Sequential(
        norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        norm(nn.Linear(144, 3)),
    ).double().eval()  # fmt: skip
    before = ann(images())
    assert relative_error(ann, images()) < 0.04
    assert torch.equal(ann(images()), before), "the ANN changed"


def test_a_trained_activation_called_twice_is_two_neurons():
    torch.manual_seed(0)
    act = QCFS(4, 0.7)
    ann = nn.Sequential(nn.Linear(6, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 3)).double().eval()
    x = torch.randn(8, 6, dtype=torch.float64)
    snn = convert(ann, x, recipe="qcfs", T=8)
    assert len(snn.report().layers) == 2
    with torch.no_grad():
        whole = snn(x)
        snn.at_once = 1
        torch.testing.assert_close(snn(x), whole)


def second_name(net: Any, x: Tensor) -> Tensor:
    y = x = F.relu(net.a(x))
    y += net.b(x)  # and x is y
    return F.relu(x + y)


def checked_for_four(net: Any, x: Tensor) -> Tensor:
    assert x.shape[1] == 4, "four channels"
    return F.relu(net.a(x))


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "mean of all": (lambda n, x: F.relu(n.b(F.relu(n.a(x)) - x.mean())), "'mean'.*other samples"),
    "rolled": (lambda n, x: F.relu(n.b(torch.roll(F.relu(n.a(x)), 1, 0))), "'roll'.*other samples"),
    "joined first": (lambda n, x: torch.cat([F.relu(n.a(x))] * 2), "'cat'.*other samples"),
    "joined": (lambda n, x: torch.cat([F.relu(n.a(x))] * 2, -4), "'cat'.*other samples"),
    "where": (
        lambda n, x: F.relu(n.b(torch.where(n.a(x) > 0.0, n.a(x), 0.0 * x[:, :1]))),
        r"test_convert_walk.py:\d+, in .*no kind that conversion knows",
    ),
    "abs": (lambda n, x: F.relu(n.b(n.a(x).abs())), "'abs_1'.*kind 'function'.*'ecmt'"),
    "softmax": (lambda n, x: F.relu(n.b(n.a(x).softmax(1))), "kind 'softmax'.*'ecmt'"),
    "dropout": (lambda n, x: F.relu(n.b(F.dropout(F.relu(n.a(x))))), "drops in evaluation too"),
    "made dropout": (lambda n, x: F.relu(nn.Dropout()(n.a(x))), "hangs on chance"),
    "length": (lambda n, x: F.relu(n.a(x)).reshape(len(x), -1), "the number of samples"),
    "one by one": (lambda n, x: torch.stack(list(F.relu(n.a(x)))), "as many as there are samples"),
    "alone": (lambda n, x: F.relu(n.a(x)) if len(x.shape) * x.shape[0] > 4 else x, "number of sam"),
    "item": (lambda n, x: F.relu(n.a(x)) if x.sum().item() > -1e9 else x, "values of a tensor"),
    "its own check": (checked_for_four, "refuses .*N, 3, 8, 8.*test_convert_walk.*AssertionError"),
    "a number": (
        lambda n, x: F.relu(n.b((y := F.relu(n.a(x))) * y.max().item())),
        "'item'.*numbers",
    ),
    "a mask of spikes": (
        lambda n, x: torch.where(n.a(x).relu() > n.shift, n.a(x).relu(), 0.0),
        "no kind",
    ),
    "second name": (second_name, "does not compute what the network does"),
    "view": (
        lambda n, x: [y := n.a(x), v := y.flatten(1), y.relu_(), v][-1],
        "changes a tensor in place.*shares its memory",
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_be_quietly_wrong_is_refused(name):
    run, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        convert(Net(run).double().eval(), images(), recipe="threshold_max", T=4)


def test_recurrent_layers_are_refused_with_what_to_take():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1]

    with pytest.raises(ValueError, match=r"LSTM.* take a rheobase.layers.Recurrent in its place"):
        convert(Reader().eval(), torch.rand(2, 3, 4))


def test_networks_of_another_kind_are_refused():
    x = torch.rand(4, 4)

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x + y).relu()

    with pytest.raises(ValueError, match=r"takes 2 inputs \(x, y\), but .* for 1; give a tuple"):
        convert(Two(), x)
    with pytest.raises(ValueError, match=r"takes 2 inputs \(x, y\), but .* for 3; give a tuple"):
        convert(Two(), (x, x, x))
    with pytest.raises(ValueError, match=r"\[N, 4\], \[N, 4\] with one N, got \[4, 4\], \[3, 4\]"):
        convert(Two(), (x, x[:3]))
    with pytest.raises(TypeError, match=r"a tuple of tensors \[N, ...\], got \(Tensor, int\)"):
        convert(Two(), (x, 3))
    with pytest.raises(ValueError, match=r"expected 2 inputs of shapes \[N, 4\], \[N, 4\]"):
        convert(Two(), (x, x), T=2)((x, x[:, :2]))
    layers = (nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    spiking = nn.Sequential(layers[0], rheobase.neurons.LIF(), *layers)
    with pytest.raises(ValueError, match="'1' is a LIF: this network spikes already"):
        convert(spiking, x)
    with pytest.raises(ValueError, match="spikes already"):
        convert(convert(nn.Sequential(*layers), x, T=2), x)
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="'1' keeps no running statistics"):
        convert(nn.Sequential(layers[0], norm, *layers[1:]).eval(), x)
    hooked = nn.Sequential(*layers)
    hook = hooked[1].register_forward_hook(lambda module, args, output: 3.0 * output)
    with pytest.raises(ValueError, match="'1' has forward hooks"):
        convert(hooked, x)
    hook.remove()
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    with pytest.raises(ValueError, match=r"'transformer_encoder_layer'.*'ecmt'"):
        convert(nn.Sequential(nn.Unflatten(1, (1, 4)), encoder, *layers).eval(), x)
    with pytest.raises(TypeError, match=r"DataParallel wraps a network: .*ann\.module"):
        convert(nn.DataParallel(nn.Sequential(*layers)), x)
    with pytest.raises(TypeError, match=r"OptimizedModule wraps a network: .*ann\._orig_mod"):
        convert(torch.compile(nn.Sequential(*layers)), x)
    with pytest.raises(TypeError, match=r"'1' is a torch\.jit\.ScriptModule.*an nn\.Module"):
        convert(nn.Sequential(layers[0], torch.jit.trace(nn.ReLU(), x)), x)
    with pytest.raises(ValueError, match=r"'0\.weight' has no size .*ann\(x\)"):
        convert(nn.Sequential(nn.LazyLinear(4), *layers), x)
    with pytest.raises(ValueError, match=r"\[N, 3\] and torch.float32: node '_0' .*ann\(inputs\)"):
        convert(nn.Sequential(*layers), x[:, :3])
    with pytest.raises(ValueError, match=r"labels go from 2 to 2, but .* 2 classes"):
        convert(nn.Sequential(*layers), x, T=2, labels=torch.full((4,), 2)).report()
    broken = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    broken[2].weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"'2\.weight' of the network are not finite"):
        convert(broken, x)


CONSTANTS: list[Callable[[Any, Tensor], Tensor]] = [
    lambda n, x: F.relu(n.b(F.relu(n.a(x)) + n.shift)),
    lambda n, x: F.relu(n.b(0.5 - F.relu(n.a(x)))),
    lambda n, x: F.relu(F.conv2d(F.relu(n.a(x)), n.b.weight, n.b.bias, padding=1)),
    lambda n, x: F.relu(n.b(F.pad(F.relu(n.a(x)), (1, 1, 1, 1), value=0.5)))[..., 1:-1, 1:-1],
    lambda n, x: F.relu(n.b((y := F.relu(n.a(x))) + 0.1 * torch.ones_like(y))),
    lambda n, x: F.relu(n.b(torch.where(n.shift > 0.0, F.relu(n.a(x)), 0.2))),
    lambda n, x: F.relu(
        n.b(torch.cat([(y := F.relu(n.a(x)))[:, 1:], n.shift[:1].expand(y.shape[0], 1, 8, 8)], 1))
    ),
]


@torch.no_grad()
@pytest.mark.parametrize("run", CONSTANTS)
@pytest.mark.parametrize("recipe", ["few_spikes", "ttfs", "threshold_max", "spikezip_tf"])
def test_constants_count_once(run, recipe):
    steps = {"few_spikes": 16, "ttfs": 256, "threshold_max": 4096, "spikezip_tf": 512}[recipe]
    fine = NeuronRule("st_bif", levels=256) if recipe == "spikezip_tf" else RECIPES[recipe].neuron
    ann = Net(run).double().eval()
    assert relative_error(ann, images(), recipe=recipe, T=steps, neuron=fine) < 0.02


@pytest.mark.parametrize("run", CONSTANTS)
def test_constants_that_no_layer_can_spread_are_refused(run):
    with pytest.raises(ValueError, match="would count T times"):
        convert(Net(run).double().eval(), images(), recipe="tandem", T=8)


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["few_spikes", "tandem", "threshold_max"])
def test_a_norm_behind_spikes_keeps_its_bias(recipe):
    norm = nn.BatchNorm2d(6).double().eval()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    ann = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), norm, nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 1)
    ).double()
    steps = 16 if recipe == "few_spikes" else 4096
    rule = RECIPES[recipe].neuron
    assert relative_error(ann.eval(), images(), recipe=recipe, T=steps, neuron=rule) < 0.02


@torch.no_grad()
def test_a_mask_of_the_input_is_one_at_every_step():
    ann = Net(lambda n, x: F.relu(n.b(F.relu(n.a(x)).masked_fill(x[:, :1] < 0.4, 0.0))))
    rule = RECIPES["few_spikes"].neuron
    assert (
        relative_error(ann.double().eval(), images(), recipe="few_spikes", T=16, neuron=rule) < 1e-3
    )


def test_the_first_layer_is_computed_once():
    ann = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).double().eval()
    for recipe in ("few_spikes", "ttfs", "calibration_light", "ecmt"):
        snn = convert(ann, images(), recipe=recipe, T=8)
        seen: list[int] = []
        (first,) = [
            m for m in snn.stem.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 4
        ]
        first.register_forward_hook(lambda _, args, __, seen=seen: seen.append(len(args[0])))
        snn(images())
        assert seen == [len(images())], recipe


def test_a_factor_that_does_not_change_is_one_at_every_step_of_a_sum():
    ann = Net(lambda n, x: F.relu(n.b(F.relu(n.a(x)) * x[:, :1]))).double().eval()
    rule = RECIPES["few_spikes"].neuron
    assert relative_error(ann, images(), recipe="few_spikes", T=12, neuron=rule) < 0.01


@pytest.mark.parametrize(("recipe", "steps"), [("burst", 64), ("few_spikes", 12)])
def test_no_more_is_sent_than_a_bounded_activation_gives(recipe, steps):
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 8), nn.ReLU6(), nn.Linear(8, 3)).double().eval()
    ann[0].weight.data *= 12.0
    x = torch.randn(64, 6, dtype=torch.float64)
    given = {"neuron": RECIPES[recipe].neuron, "T": steps}
    assert relative_error(ann, x, recipe=recipe, **given) < 0.05


def test_biases_of_sequences_are_mended_by_channel():
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)
    ).double().eval()  # fmt: skip
    x = torch.randn(16, 4, 6, dtype=torch.float64)
    rule = RECIPES["calibration_light"].neuron
    assert relative_error(ann, x, recipe="calibration_light", neuron=rule) < 0.04


MEAN = PostCalibration("bias_mean")


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["calibration_light", "threshold_max", "few_spikes"])
def test_networks_of_bfloat16_convert(recipe):
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).bfloat16()
    x = torch.rand(16, 4).bfloat16()
    rule = RECIPES[recipe].neuron
    assert relative_error(ann, x, recipe=recipe, T=16, neuron=rule) < 0.1


class Several(nn.Module):
    """Takes any number of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(6, 8)])
        self.flag, self.token = nn.Buffer(torch.tensor(1.0)), nn.Buffer(torch.rand(1, 8))

    def forward(self, *inputs: Tensor) -> Tensor:
        x = sum(F.relu(layer(x)) for layer, x in zip(self.layers, inputs, strict=True))
        if self.flag > 0.0:  # of the network's own, not of its input
            x = torch.cat([x, self.token.expand(x.shape[0], -1)], 1)
        return x


@torch.no_grad()
def test_any_number_of_inputs_and_buffers_that_grow_with_the_batch():
    ann, inputs = Several().double(), (torch.rand(8, 4).double(), torch.rand(8, 6).double())
    found = convert(ann, inputs, recipe="threshold_max", T=4096).mean_output(inputs)
    torch.testing.assert_close(found, ann(*inputs), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("recipe", "choices", "error", "words"),
    [
        ("rueckauer", {"statistic": Statistic("max", shared_by_steps=True)}, ValueError, "T-th"),
        ("tandem", {"post": (MEAN,)}, ValueError, "sums over T"),
        ("few_spikes", {"post": (MEAN,)}, ValueError, "code 'few_spikes'"),
        ("few_spikes", {"statistic": Statistic("max_current")}, ValueError, "by currents"),
        ("rueckauer", {"statistic": "max"}, TypeError, r"write statistic=Statistic\("),
        ("rueckauer", {"granularity": "chanel"}, ValueError, "mean 'channel'"),
        (None, {}, TypeError, r"a name of rheobase\.convert\.recipes"),
        ("rueckauer", {"labels": [0]}, TypeError, "got a list"),
        ("rueckauer", {"batch_size": 0}, ValueError, "at least 1"),
        ("rueckauer", {"T": True}, TypeError, "whole number"),
        ("rueckauer", {"thresholds": {"act": torch.ones(7)}}, ValueError, r"one sample.*\[4, 8, 8"),
    ],
)
def test_choices_that_make_no_sense_are_refused(recipe, choices, error, words):
    ann = Net(lambda n, x: F.relu(n.b(n.act(n.a(x))))).double().eval()
    with pytest.raises(error, match=words):
        convert(ann, images(), **{"recipe": recipe, "T": 4, **choices})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NeuronRule(reset="zeros"), "unknown reset of NeuronRule 'zeros'.*'zero'"),  # type: ignore[arg-type]
        (lambda: Encoding("impuls"), "unknown kind of Encoding"),  # type: ignore[arg-type]
        (lambda: Readout(delay=-1), "at least 0"),
        (lambda: NeuronRule(members=0), "at least 1"),
        (lambda: Statistic(iterations=0), "at least 1"),
        (lambda: Statistic(scale=-1.0), "above 0"),
    ],
)
def test_words_and_counts_of_a_recipe_are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_thresholds_of_several_sizes_are_saved():
    ann = Net(lambda n, x: F.relu(n.b(F.relu(n.a(x))))).double().eval()
    saved, other = (convert(ann, size * images(), recipe="ecmt", T=4) for size in (1.0, 0.3))
    with torch.no_grad():
        assert not torch.equal(other(images()), saved(images()))
        other.load_state_dict(saved.state_dict())
        assert torch.equal(other(images()), saved(images()))


@pytest.mark.parametrize(
    ("recipe", "given"),
    [("threshold_max", "spikes"), ("burst", "spikes, several"), ("ecmt", "spikes, sized")],
)
def test_spikeness_is_what_the_layers_are_seen_to_get(recipe, given):
    ann = Net(lambda n, x: F.relu(n.b(F.relu(3.0 * n.a(x))))).double().eval()
    snn = convert(ann, images(), recipe=recipe, T=8)
    got: list[Tensor] = []
    snn.body.get_submodule("b").register_forward_hook(lambda m, args, out: got.append(args[0]))
    with torch.no_grad():
        snn(images())
    assert snn.report().spikeness["b"] == given
    sizes = torch.cat(got).abs().unique()
    sizes = sizes[sizes > 0.0]
    assert (len(sizes) == 1) == (given == "spikes")


def test_blended_spikes_are_none():
    def blended(net: Any, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(net.a(x)), 2)
        return F.relu(net.b(F.interpolate(x, scale_factor=2, mode="bilinear")))

    ann = Net(blended).double().eval()
    snn = convert(ann, images(), recipe="threshold_max", T=8)
    assert snn.report().spikeness["b"] == "spikes, averaged"


def test_attention_by_hand_with_a_mask():
    class Attends(nn.Module):
        def __init__(self, fill: float = -torch.inf) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 8)
            self.fill, self.mask = fill, nn.Buffer(torch.ones(5, 5).tril())

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x.mT.mT).unflatten(2, (3, 8)).permute(2, 0, 1, 3)
            scores = q @ k.mT / math.sqrt(k.size(-1))
            scores = scores.masked_fill(self.mask == 0, self.fill)
            return self.head(F.softmax(scores, -1) @ v)

    x = torch.randn(4, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fine = NeuronRule("integer_code", levels=10**6)
    given = {"recipe": "integer_code", "neuron": fine, "T": 2}
    assert relative_error(Attends().double().eval(), x, **given) < 1e-4
    with pytest.raises(ValueError, match=r"fills in 2\.0 at every step"):
        convert(Attends(2.0).double().eval(), x, recipe="spikezip_tf", T=8)


class Reads(nn.Module):
    """Words at positions counted over what is no padding; a head that learns its temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(9, 8, padding_idx=0), nn.Embedding(6, 8)
        self.mix, self.head = nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 4)
        self.heat = nn.Parameter(torch.zeros(()))

    def forward(self, words: Tensor) -> Tensor:
        seen = words.ne(0).int()
        x = self.words(words) + self.places(torch.cumsum(seen, 1).type_as(seen) * seen)
        x = torch.addmm(self.head.bias[0], x.view(-1, 8), self.mix).view(x.shape)
        return self.head(F.relu(x).mean(1) * F.softplus(self.heat).clamp(max=5.0))


def test_positions_made_of_words_and_scales_that_are_learnt_are_no_activations():
    words = torch.randint(0, 9, (6, 5), generator=torch.Generator().manual_seed(0))
    net = Reads().double().eval()
    fine = NeuronRule("integer_code", levels=10**6)
    assert relative_error(net, words, recipe="integer_code", neuron=fine, T=2) < 1e-4
    assert relative_error(net, words) < 0.02


class Branches(nn.Module):
    """Words, an image and a number for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.image = nn.Conv2d(3, 4, 3)
        self.joined = nn.Linear(6 + 4 + 1, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, ids: Tensor, image: Tensor, number: Tensor, scale: float = 2.0) -> Tensor:
        words = self.words(ids).mean(1)
        seen = self.image(image).relu().mean((2, 3))
        joined = torch.cat([words, scale * seen, number[:, None]], 1)
        return self.out(self.joined(joined).relu())


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["calibration_light", "threshold_max", "few_spikes"])
def test_several_inputs_are_a_tuple(recipe):
    torch.manual_seed(0)
    ann = Branches().double().eval()
    inputs = (torch.randint(9, (12, 5)), torch.rand(12, 3, 6, 6).double(), torch.rand(12).double())
    snn = convert(ann, inputs, recipe=recipe, T=16 if recipe == "few_spikes" else 128)
    out, exact = snn.mean_output(inputs), ann(*inputs)
    assert (out - exact).norm() < 0.03 * exact.norm()
    assert [one.name for one in snn.report(inputs).layers] == ["relu", "relu_1"]
    if recipe == "threshold_max":
        torch.testing.assert_close(snn(inputs), snn(snn.parts.pack(inputs)), msg="as one tensor")
        with pytest.raises(TypeError, match="from an ANN of one input"):
            convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.rand(4, 2), T=2)(inputs)
