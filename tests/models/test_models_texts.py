"""Networks of texts: counts, doors, how they start, that they stream and learn."""

import pytest
import torch
from torch.nn import functional as F

import rheobase
from rheobase.models import create_model, load_model, load_official, recognise, save_model
from rheobase.train import Distillation, NextToken

# Of the released code, counted.
PARAMETERS = {
    "spikegpt_bookcorpus_12_512": 41_042_944,
    "spikegpt_enwik8_12_512": 47_173_632,
    "spikegpt_enwik8_bytes_12_512": 41_174_016,
    "spikegpt_18_768": 215_399_424,
    "spikebert_12_768": 114_561_026,
    "spikebert_6_768": 68_416_514,
    # Without feedback and pooler, which are never used.
    "spikingbert_4_768": 53_961_218 - 768 * 768 - 768 * 769,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    with torch.device("meta"):
        net = create_model(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "count"), [("12", 107_455_490), ("6", 64_863_746)])
def test_parameter_counts_without_layers_for_a_teacher(name, count):
    with torch.device("meta"):
        net = create_model(f"spikebert_{name}_768", distilled=False)
    assert sum(p.numel() for p in net.parameters()) == count


def spikegpt(**options):
    torch.manual_seed(0)
    sizes = {"vocabulary": 11, "dim": 16, "depth": 3, "dropout": 0.0}
    return create_model("spikegpt_bookcorpus_12_512", **(sizes | options))


def lively(net):
    """With random weights, so that neurons fire."""
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=1.0 if parameter.dim() == 2 else 0.5)
    return net


@pytest.mark.parametrize("options", [{}, {"binary_embedding": False}, {"rescale_every": 2}])
def test_spikegpt_streams(options):
    net = lively(spikegpt(**options)).double().eval()
    ids = torch.randint(11, (9, 2))
    whole = net(ids)
    for cuts in ([1] * 9, [4, 5], [1, 7, 1]):
        with torch.no_grad(), rheobase.streaming(net):
            pieces = torch.cat([net(piece) for piece in ids.split(cuts)])
        torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


def test_spikegpt_sees_no_later_word():
    net = lively(spikegpt()).eval()
    ids = torch.randint(11, (9, 1))
    other = ids.clone()
    other[6:] = (other[6:] + 1) % 11
    assert torch.equal(net(ids)[:6], net(other)[:6])
    assert not torch.equal(net(ids)[6:], net(other)[6:])


def test_spikegpt_remembers_without_overflow():
    """Exponents far beyond those of float32: the largest is taken out."""
    net = lively(spikegpt(depth=1)).eval()
    with torch.no_grad():
        net.blocks[0].att.key.weight.mul_(200.0)
    assert torch.isfinite(net(torch.randint(11, (40, 2)))).all()


def test_spikegpt_starts_as_rwkv_does():
    """Nothing is added to the stream at first, and yet every layer gets a gradient in two steps."""
    net = spikegpt(depth=2).train()
    for layer in (net.blocks[1].att.output, net.blocks[0].ffn.value, net.blocks[0].att.key):
        assert not layer.weight.any()
    decay = net.blocks[1].att.time_decay.tolist()
    assert (decay[0], decay[-1]) == (-5.0, 3.0)
    # log 0.3 and a zigzag of a half.
    first = torch.tensor(0.3).log() + torch.tensor([0.0, 0.5, -0.5])
    torch.testing.assert_close(net.blocks[0].att.time_first[:3].detach(), first)
    assert net.blocks[0].att.time_mix_k[0, 0, 4] == 0.25
    ids = torch.randint(11, (12, 4))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        NextToken()(net(ids[:-1]), ids[1:]).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_spikegpt_is_recognised_and_saved(tmp_path):
    net = lively(spikegpt()).eval()
    (found,) = recognise(net.state_dict())
    assert found.system == "spikegpt" and not found.untold
    ids = torch.randint(11, (5, 1))
    again = load_official(None, {"model": net.state_dict()}).eval()
    assert torch.equal(again(ids), net(ids))
    save_model(net, tmp_path / "net.safetensors", family="spikegpt")
    assert torch.equal(load_model(tmp_path / "net.safetensors").eval()(ids), net(ids))
    with pytest.raises(ValueError, match="not a SpikeGPT checkpoint: nothing in it is head"):
        weights = {k: v for k, v in net.state_dict().items() if not k.startswith("head")}
        load_official("spikegpt", weights)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.rand(4, 2), TypeError, "int64, got torch.float32"),
        (torch.zeros(4, dtype=torch.int64), ValueError, "unsqueeze"),
        (torch.zeros(0, 2, dtype=torch.int64), ValueError, "empty"),
        (torch.full((4, 2), 11), ValueError, "vocabulary=12 at least"),
        (torch.full((4, 2), -1), ValueError, r"words -1\.\.\.-1"),
    ],
)
def test_texts_are_refused_at_the_door(ids, error, message):
    with pytest.raises(error, match=message):
        spikegpt()(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be positive"),
        ({"rescale_every": 0}, "rescale_every must be positive"),
        ({"dropout": 1.0}, "share below 1"),
    ],
)
def test_configs_refuse_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        spikegpt(**options)


def spikebert(**options):
    torch.manual_seed(0)
    sizes = {"vocabulary": 11, "dim": 16, "depth": 2, "heads": 2, "T": 3}
    net = create_model("spikebert_12_768", **(sizes | options))
    for module in net.modules():
        if isinstance(module, torch.nn.LayerNorm):  # so that neurons fire
            torch.nn.init.uniform_(module.weight, 1.0, 3.0)
            torch.nn.init.uniform_(module.bias, 0.0, 1.0)
    return net.double().eval()


class Fire(torch.autograd.Function):
    """A spike and the arctangent's derivative, alpha 2."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return g / (1 + (torch.pi * z) ** 2)


def lif(x, threshold=1.0, tau=2.0):
    u, spikes = torch.zeros_like(x[0]), []
    for x_t in x:
        h = u + (x_t - u) / tau
        spikes.append(Fire.apply(h - threshold))
        u = h * (1 - spikes[-1].detach())
    return torch.stack(spikes)


def spikebert_by_hand(net, ids):
    """From the formulas alone: steps, texts, heads and words written out."""
    p = dict(net.named_parameters())

    def unit(name, x):
        y = F.linear(x, p[f"{name}.linear.weight"], p[f"{name}.linear.bias"])
        return lif(F.layer_norm(y, y.shape[-1:], p[f"{name}.norm.weight"], p[f"{name}.norm.bias"]))

    x = torch.stack([Fire.apply(p["emb.weight"][ids])] * net.T)
    for i in range(net.config.depth):
        at = f"blocks.{i}.attn"
        q, k, v = (unit(f"{at}.{one}", x) for one in "qkv")
        width = q.shape[-1] // net.config.heads
        heads = []
        for head in range(net.config.heads):
            part = slice(head * width, (head + 1) * width)
            counts = torch.einsum("tnid,tnjd->tnij", q[..., part], k[..., part])
            heads.append(torch.einsum("tnij,tnjd->tnid", counts, v[..., part]))
        x = x + unit(f"{at}.proj", lif(torch.cat(heads, -1) * 0.125, threshold=0.5))
        x = x + unit(f"blocks.{i}.mlp.fc2", unit(f"blocks.{i}.mlp.fc1", x))
    x = F.layer_norm(x, x.shape[-1:], p["norm.weight"], p["norm.bias"]).mean(2)
    return F.linear(x, p["head.weight"], p["head.bias"])


def test_spikebert_and_its_gradients_by_hand():
    """Through the neurons too, which the official numbers leave out (see `rheobase.verify`)."""
    net = spikebert(distilled=False)
    ids, weight = torch.randint(11, (2, 7)), torch.randn(3, 2, 2, dtype=torch.float64)
    found = []
    for y in (net(ids), spikebert_by_hand(net, ids)):
        net.zero_grad()
        (y * weight).sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in net.parameters())])
    assert all(g.any() for g in found[0])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_spikebert_learns_from_the_layers_of_a_teacher():
    """By the recipe's features: what `transforms` make of a stream, and a teacher's layer."""

    class Teacher(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(11, 16)
            self.layer = torch.nn.Linear(16, 16)
            self.head = torch.nn.Linear(16, 2)

        def forward(self, ids):
            return self.head(self.layer(self.words(ids)).mean(1))

    net, teacher = spikebert(), Teacher().double()
    ids = torch.randint(11, (2, 7))
    term = Distillation(teacher, alpha=0.0, beta=2.0, features={"transforms.1": "layer"})
    with term.watching(net, ids) as value:
        logits = net(ids)
    found = {}
    net.blocks[1].register_forward_hook(lambda m, i, o: found.__setitem__("x", o))
    net(ids)
    wanted = F.mse_loss(net.transforms[1](found["x"].mean(0)), teacher.layer(teacher.words(ids)))
    torch.testing.assert_close(value(logits), 2.0 * wanted)
    value(logits).backward()
    assert net.transforms[1][0].weight.grad.any() and net.emb.weight.grad.any()
    assert net.transforms[0][0].weight.grad is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 3}, "heads=3 does not divide dim=16"), ({"T": 0}, "T must be positive")],
)
def test_spikebert_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        spikebert(**options)


def spikingbert(**options):
    torch.manual_seed(0)
    sizes = {"vocabulary": 11, "dim": 16, "depth": 2, "heads": 2, "hidden": 24, "T": 9}
    net = create_model("spikingbert_4_768", **(sizes | {"positions": 12} | options))
    for name, parameter in net.named_parameters():  # so that neurons fire, but not always
        if name.endswith("LayerNorm.bias"):
            torch.nn.init.constant_(parameter, 0.3)
        elif parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return net.double().eval()


def settled_by_hand(net, ids):
    """The rates of the equilibrium for texts without padding: BERT, every layer clipped."""
    p = dict(net.named_parameters())

    def linear(name, x):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-12)

    def clip(x):
        return torch.clamp(x, 0.0, 1.0)

    at = "embeddings"
    words = p[f"{at}.word_embeddings.weight"][ids]
    places = p[f"{at}.position_embeddings.weight"][: ids.shape[1]]
    kind = p[f"{at}.token_type_embeddings.weight"][0]
    layers = [clip(norm(f"{at}.LayerNorm", words + places + kind))]
    for i in range(net.config.depth):
        x, at = layers[-1], f"encoders.{i}"
        k, v = clip(linear(f"{at}.key", x)), clip(linear(f"{at}.value", x))
        q = linear(f"{at}.query", x)
        width = q.shape[-1] // net.config.heads
        heads = []
        for head in range(net.config.heads):
            part = slice(head * width, (head + 1) * width)
            scores = torch.einsum("nid,njd->nij", q[..., part], k[..., part]) / width**0.5
            heads.append(scores.softmax(-1) @ v[..., part])
        y = linear(f"{at}.attention_output.dense", clip(torch.cat(heads, -1)))
        y = clip(norm(f"{at}.attention_output.LayerNorm", y + x))
        z = clip(F.gelu(linear(f"{at}.intermediate.dense", y)))
        layers.append(clip(norm(f"{at}.output.LayerNorm", linear(f"{at}.output.dense", z) + y)))
    return layers


def test_spikingbert_reads_rates_and_learns_by_the_equilibrium():
    """The value is the measured rate's; the gradient that of the clipped network, by hand."""
    net = spikingbert()
    ids, weight = torch.randint(1, 11, (3, 7)), torch.randn(3, 2, dtype=torch.float64)
    spikes = []
    net.encoders[-1].fires[-1].neuron.register_forward_hook(lambda m, i, o: spikes.append(o))
    logits = net(ids)
    with torch.no_grad():
        torch.testing.assert_close(net(ids), logits)
    rate = spikes[0].mean(0)
    assert 0.05 < float(rate.mean()) < 0.95
    torch.testing.assert_close(logits.mean(0), net.head(rate[:, 0]))
    (logits.mean(0) * weight).sum().backward()
    ours = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    last = settled_by_hand(net, ids)[-1]
    (
        F.linear(rate[:, 0] + last[:, 0] - last[:, 0].detach(), *net.head.parameters()) * weight
    ).sum().backward()
    theirs = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys() and len(ours) == len(dict(net.named_parameters())) - 2
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-12)
    assert ours["embeddings.word_embeddings.weight"].any()


def test_spikingbert_is_taught_by_rates():
    net, teacher = spikingbert(), torch.nn.Embedding(11, 16).double()
    ids = torch.randint(1, 11, (3, 7))
    found = {}
    for i, tap in enumerate(net.representations):
        tap.register_forward_hook(lambda m, a, o, i=i: found.__setitem__(i, o))
    net(ids)
    assert len(found) == 3
    by_hand = settled_by_hand(net, ids)
    wanted = teacher(ids).detach()
    F.mse_loss(found[1], wanted).backward()
    ours = net.encoders[0].output.dense.weight.grad.clone()
    net.zero_grad()
    rate = found[1].detach()
    seen = net.fit(by_hand[1])
    F.mse_loss(rate + seen - seen.detach(), wanted).backward()
    torch.testing.assert_close(net.encoders[0].output.dense.weight.grad, ours)
    assert spikingbert(distilled=False)(ids).shape == (9, 3, 2)


def test_spikingbert_passes_over_padding():
    net = spikingbert()
    ids = torch.tensor([[3, 5, 7, 0, 0]])
    padded, bare = net(ids), net(ids[:, :3])
    torch.testing.assert_close(padded, bare)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    torch.testing.assert_close(net(torch.tensor([[3, 5, 7, 2, 2]]), mask=mask), bare)
    second = net(ids[:, :3], torch.tensor([[0, 1, 1]]))
    assert not torch.equal(second, bare)
    with pytest.raises(ValueError, match="13 words, the network positions=12"):
        net(torch.ones(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match="heads=3 does not divide dim=16"):
        spikingbert(heads=3)


def test_spikingbert_checkpoints_with_copies_of_their_layers_load():
    """Released ones hold every layer several times; and heads are no part of the weights."""
    net = spikingbert()
    names = {"embeddings": "network_x", "fit": "fit_dense", "head": "classification"}
    parts = ["key", "value", "query", "attention_output", "intermediate", "output"]
    weights = {}
    for name, value in net.state_dict().items():
        first, _, rest = name.partition(".")
        if first == "encoders":
            i, part, *rest = rest.split(".")
            number = 1 + 6 * int(i) + parts.index(part)
            dense = {"query": ["query"], "key": ["dense"], "value": ["dense"]}.get(part, [])
            key = ".".join([f"network_s{number}", *dense, *rest])
            weights[f"snn_func.network_s_list.{number - 1}.{key.partition('.')[2]}"] = value
        else:
            key = f"{names[first]}.{rest}"
        weights[key] = value
    weights["network_s25.fc.weight"] = weights["pooler_layer.dense.weight"] = torch.rand(16, 16)
    (found,) = recognise(weights)
    assert (found.system, found.untold) == ("spikingbert", ("num_attention_heads",))
    with pytest.warns(UserWarning, match="never uses were left out"):
        again = load_official(
            "spikingbert", weights, {"num_attention_heads": 2, "t_conv": 9}
        ).double()
    ids = torch.randint(1, 11, (3, 7))
    torch.testing.assert_close(again(ids), net(ids))
