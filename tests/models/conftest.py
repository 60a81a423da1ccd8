import pytest
import torch
import torch.distributed as dist
from model_toys import SMALL, small

# One network of each kind on every run; each of the others compiles kernels of its own.
OFTEN = (
    "spikformer",
    "spikformer_events",
    "spikformer_ann",
    "sew_resnet",
    "spiking_resnet",
    "spike_driven_transformer",
    "qkformer",
    "swformer",
    "revsformer",
    "spiking_vgg",
    "ms_resnet",
    "snasnet",
)


@pytest.fixture(
    params=[pytest.param(name, marks=() if name in OFTEN else pytest.mark.long) for name in SMALL]
)
def net(request):
    return small(request.param)


@pytest.fixture
def images(net):
    torch.manual_seed(1)
    side = net.config.image_size
    return torch.rand(2, net.config.channels, side, side)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A process group of this process alone."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()
