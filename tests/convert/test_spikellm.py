"""SpikeLLM's recipe on a language model; its numbers are held in tests/test_goldens_language.py."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from rheobase.convert import ConvertedNetwork, NeuronRule, Preparation, Statistic, convert
from rheobase.convert.transformers import Coded, count_spikes
from rheobase.models.llama import LLAMA_SIZES, Llama, LlamaConfig
from rheobase.neurons import SalientCode

SMALL = LlamaConfig(50, dim=32, depth=2, heads=4, groups=2, hidden=48)


def llama() -> Llama:
    torch.manual_seed(0)
    return Llama(SMALL).double().eval()


def words(count: int = 6, length: int = 9) -> Tensor:
    return torch.randint(
        SMALL.vocabulary, (count, length), generator=torch.Generator().manual_seed(1)
    )


def converted(net: nn.Module, x: Tensor, steps: int = 2, share: float = 90.0) -> ConvertedNetwork:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of how far 4-bit weights move it
        return convert(
            net, x, recipe="spikellm", T=1,
            statistic=Statistic("saliency", percentile=share),
            neuron=NeuronRule("salient_code", levels=steps),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("llama2_70b", 68_976_648_192)],
)
def test_llama_has_the_published_parameters(size: str, parameters: int) -> None:
    with torch.device("meta"):
        net = Llama(LLAMA_SIZES[size])
    assert sum(p.numel() for p in net.parameters()) == parameters
    names = net.state_dict().keys()
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} < names
    layer = {name.removeprefix("model.layers.3.") for name in names if ".layers.3." in name}
    linear = {f"self_attn.{one}_proj" for one in "qkvo"} | {
        f"mlp.{one}_proj" for one in ("gate", "up", "down")
    }
    assert layer == {
        f"{n}.weight" for n in linear | {"input_layernorm", "post_attention_layernorm"}
    }


@torch.no_grad()
def test_llama_by_hand() -> None:
    """One layer, written out word by word with complex numbers for the turning of pairs."""
    config = LlamaConfig(11, dim=8, depth=1, heads=2, groups=1, hidden=12)
    torch.manual_seed(0)
    net = Llama(config).double()
    layer = net.model.layers[0]
    ids = torch.randint(11, (1, 5))

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * weight

    x = net.model.embed_tokens(ids)[0]
    y = norm(x, layer.input_layernorm.weight)
    q, k, v = (y @ getattr(layer.self_attn, f"{one}_proj").weight.T for one in "qkv")
    angles = torch.arange(5.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.01])
    turn = torch.polar(torch.ones_like(angles), angles)

    def turned(h: Tensor) -> Tensor:
        z = torch.complex(h[:, :2], h[:, 2:]) * turn
        return torch.cat([z.real, z.imag], -1)

    heads = []
    for head in range(2):
        scores = turned(q[:, 4 * head : 4 * head + 4]) @ turned(k).T / 2.0
        rows = [scores[i, : i + 1].softmax(0) @ v[: i + 1] for i in range(5)]
        heads.append(torch.stack(rows))
    x = x + torch.cat(heads, -1) @ layer.self_attn.o_proj.weight.T
    y = norm(x, layer.post_attention_layernorm.weight)
    gate, up = (y @ getattr(layer.mlp, f"{one}_proj").weight.T for one in ("gate", "up"))
    x = x + (gate * gate.sigmoid() * up) @ layer.mlp.down_proj.weight.T
    expected = norm(x, net.model.norm.weight) @ net.lm_head.weight.T
    torch.testing.assert_close(net(ids)[0], expected)


@torch.no_grad()
def test_a_llama_is_converted() -> None:
    net, ids = llama(), words()
    snn = converted(net, ids)
    codes = [module.code for module in snn.modules() if isinstance(module, Coded)]
    assert len(codes) == 2 * 7  # every linear layer has its own; the head stays
    assert all(isinstance(code, SalientCode) for code in codes)
    for code in codes:  # 10 % of 32 or of 48 channels, begun ones too
        assert int((code.steps > 1).sum()) == {32: 4, 48: 5}[len(code.steps)]
    queries, keys = codes[0], codes[1]
    assert not torch.equal(queries.steps, keys.steps)
    logits, coded = net(ids), snn.mean_output(ids)
    assert float(torch.corrcoef(torch.stack([logits.flatten(), coded.flatten()]))[0, 1]) > 0.98
    for layer in (m for m in snn.modules() if isinstance(m, nn.Linear)):
        if len(layer.weight) != SMALL.vocabulary:
            assert all(len(row.unique()) <= 16 for row in layer.weight)
    assert 1.0 < count_spikes(snn, ids).per_value < 15.0


@torch.no_grad()
def test_more_steps_for_salient_channels_lose_less() -> None:
    """Against the same 4-bit weights with inputs as they are."""
    net, ids = llama(), words()
    snns = {steps: converted(net, ids, steps, share=50.0) for steps in (1, 2, 4)}
    exact = converted(net, ids, steps=2**16, share=1.0)  # nearly every channel in 2^20 levels
    target = exact.mean_output(ids)
    errors = {k: float((snn.mean_output(ids) - target).norm()) for k, snn in snns.items()}
    assert errors[4] < errors[2] < errors[1]


def test_saliency_hangs_on_a_linear_layer() -> None:
    prepare = Preparation(passes=("encode_linear_inputs",), operators=("accumulated",))
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match=r"stands before no linear layer.*encode_for_spikellm"):
        convert(net, torch.rand(8, 4), recipe="spikellm", T=1, prepare=prepare)
    with pytest.raises(ValueError, match="one step or more"):
        SalientCode(torch.tensor([1, 0]))


def test_a_salient_code_passes_gradients_straight_through() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    code = SalientCode(torch.tensor([1, 2, 1, 4]))
    weight = torch.randn(3, 4, dtype=torch.float64)
    (code(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight)
    assert torch.equal(code.spike_count(x), code.spikes(x).sum(0))
    unit = (x.detach().amax(-1, keepdim=True) - x.detach().amin(-1, keepdim=True)) / 15
    # Half a unit for rounding the value, half for rounding the integer that stands for 0.
    assert bool(((code(x) - x).detach().abs() <= unit + 1e-12).all())
