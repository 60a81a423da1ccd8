import pytest
import torch
from model_toys import SMALL, small


@pytest.fixture(params=SMALL)
def net(request):
    return small(request.param)


@pytest.fixture
def images(net):
    torch.manual_seed(1)
    side = net.config.image_size
    return torch.rand(2, net.config.channels, side, side)
