"""SSTFormer trains as networks are trained today, branch by branch.

It takes frames and events at one fixed size and has 600 million parameters, so it is none of the
small networks of `model_toys`; what is heavy in it are these two branches.
"""

import copy

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from rheobase.models.sstformer import (
    EventEncoder,
    EventEncoderConfig,
    MemoryConfig,
    MemoryTransformer,
)
from rheobase.train import TrainConfig
from rheobase.train.config import ParallelConfig
from rheobase.train.parallel import World, wrap

pytestmark = pytest.mark.long


@pytest.fixture(params=["events", "memory"])
def net(request):
    torch.manual_seed(0)
    if request.param == "events":
        return EventEncoder(EventEncoderConfig(channels=2, widths=(4, 8), v_threshold=0.2))
    return MemoryTransformer(MemoryConfig(dim=8, heads=2, clip=1, tokens=4))


@pytest.fixture
def x(net):
    torch.manual_seed(1)
    if isinstance(net, EventEncoder):
        return 3 * torch.rand(3, 2, 2, 16, 16)
    return torch.rand(2, 2 * 1 + 2 * 4 + 1, 8)


def loss_of(outputs):
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return sum((y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum() for y in outputs)


def gradients(net):
    return {name: p.grad for name, p in net.named_parameters()}


def test_in_bfloat16(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(net(x))
    loss.backward()
    assert loss.isfinite()
    for name, gradient in gradients(net).items():
        assert gradient is not None and gradient.isfinite().all(), name


def test_replicated(net, x, one_process):
    """DDP refuses parameters that got no gradient, in the step after."""
    ddp = DistributedDataParallel(net)
    for _ in range(2):
        ddp.zero_grad()
        loss_of(ddp(x)).backward()


def test_sharded_as_alone(net, x, one_process):
    config = TrainConfig(parallel=ParallelConfig("fsdp", sync_batchnorm=False))
    alone = World(0, 1, torch.device("cpu"))
    if any(p.dim() == 0 for p in net.parameters()):
        with pytest.raises(ValueError, match=r"single numbers, such as .*strategy=ddp"):
            wrap(net, alone, config)
        return
    sharded = wrap(copy.deepcopy(net), alone, config)
    loss_of(sharded(x)).backward()
    loss_of(net(x)).backward()
    whole = {name: g.full_tensor() for name, g in gradients(sharded).items()}
    torch.testing.assert_close(whole, gradients(net))


def test_compiled_whole_in_training(net, x):
    torch._dynamo.reset()
    net, x = net.double(), x.double()
    twin = copy.deepcopy(net)
    expected = loss_of(net(x))
    # PyTorch takes recurrent layers (the memory's GRU) into a graph only when asked to.
    with torch._dynamo.config.patch(allow_rnn=True):
        actual = loss_of(torch.compile(twin, fullgraph=True, backend="aot_eager")(x))
    torch.testing.assert_close(actual, expected)
    expected.backward()
    actual.backward()
    torch.testing.assert_close(gradients(twin), gradients(net))


def test_exported(net, x):
    net.eval()
    with torch.no_grad():
        exported = torch.export.export(net, (x,)).module()
        torch.testing.assert_close(exported(x), net(x))


def test_recomputing_activations_gives_the_same_gradients(net, x):
    twin = copy.deepcopy(net)
    loss_of(net(x)).backward()
    loss_of(checkpoint(twin, x, use_reentrant=False)).backward()
    torch.testing.assert_close(gradients(twin), gradients(net))
