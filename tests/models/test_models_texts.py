"""Networks of texts: counts, doors, how they start, that they stream and learn."""

import pytest
import torch

import rheobase
from rheobase.models import create_model, load_model, load_official, recognise, save_model
from rheobase.train import NextToken

# Of the released code, counted.
PARAMETERS = {
    "spikegpt_bookcorpus_12_512": 41_042_944,
    "spikegpt_enwik8_12_512": 47_173_632,
    "spikegpt_enwik8_bytes_12_512": 41_174_016,
    "spikegpt_18_768": 215_399_424,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    with torch.device("meta"):
        net = create_model(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


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
