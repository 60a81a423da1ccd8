"""Every network trains as networks are trained today: precision, parallelism, graphs, memory."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import rheobase

LABELS = torch.tensor([1, 7])


def loss_of(net, *inputs):
    return torch.nn.functional.cross_entropy(net(*inputs).float().mean(0), LABELS)


def gradients(net):
    return {name: p.grad for name, p in net.named_parameters()}


def test_in_bfloat16(net, images):
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(net, images)
    loss.backward()
    assert loss.isfinite()
    for name, gradient in gradients(net).items():
        assert gradient is not None and gradient.isfinite().all(), name


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A process group of this process alone."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_in_parallel_as_alone(net, images, one_process):
    """DDP refuses parameters that got no gradient; FSDP2 shards what the network computes with."""
    ddp = DistributedDataParallel(copy.deepcopy(net))
    for _ in range(2):
        ddp.zero_grad()
        loss_of(ddp, images).backward()
    sharded = fully_shard(copy.deepcopy(net), mesh=init_device_mesh("cpu", (1,)))
    torch.manual_seed(0)
    loss = loss_of(sharded, images)
    loss.backward()
    torch.manual_seed(0)
    alone = loss_of(net, images)
    alone.backward()
    torch.testing.assert_close(loss, alone)
    whole = {name: g.full_tensor() for name, g in gradients(sharded).items()}
    torch.testing.assert_close(whole, gradients(net))


def test_compiled_whole_in_training(net, images):
    torch._dynamo.reset()
    twin = copy.deepcopy(net)
    torch.manual_seed(0)
    expected = loss_of(net, images)
    torch.manual_seed(0)
    actual = loss_of(torch.compile(twin, fullgraph=True, backend="aot_eager"), images)
    torch.testing.assert_close(actual, expected)
    expected.backward()
    actual.backward()
    torch.testing.assert_close(gradients(twin), gradients(net), rtol=1e-3, atol=1e-5)


def test_exported(net, images):
    net.eval()
    with torch.no_grad():
        exported = torch.export.export(net, (images,)).module()
        torch.testing.assert_close(exported(images), net(images))


def test_streams_or_says_that_it_is_not_causal(net, images):
    net(images)  # training sets what a fresh network would take from each call
    net.eval().double()
    x = torch.stack([images.double() * t / net.T for t in range(1, net.T + 1)])
    try:
        with torch.no_grad(), rheobase.streaming(net):
            pieces = torch.cat([net(x[:1]), net(x[1:])]) if net.T > 1 else net(x)
    except ValueError as error:
        assert "is not causal" in str(error)
        return
    with torch.no_grad():
        torch.testing.assert_close(pieces, net(x), rtol=1e-9, atol=1e-9)


def test_recomputing_activations_gives_the_same_gradients(net, images):
    twin = copy.deepcopy(net)
    torch.manual_seed(0)
    loss_of(net, images).backward()
    torch.manual_seed(0)
    logits = checkpoint(twin, images, use_reentrant=False)
    torch.nn.functional.cross_entropy(logits.float().mean(0), LABELS).backward()
    torch.testing.assert_close(gradients(twin), gradients(net))
