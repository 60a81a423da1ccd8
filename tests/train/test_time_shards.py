"""The time axis on three processes: what one process computes with the whole sequence."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from rheobase.layers import TEBN, Recurrent, over_time
from rheobase.neurons import ALIF, CLIF, CUBALIF, LIF, PLIF
from rheobase.ops.scan import use_backend
from rheobase.train.time_shards import sum_gradients, time_sharded

PIECES = (slice(0, 4), slice(4, 5), slice(5, 9))


class Net(nn.Module):
    """Neurons with one state and with several, a norm that counts steps, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Linear(6, 16), TEBN(16, 9), LIF(v_threshold=0.5), nn.Linear(16, 16), CUBALIF(),
                nn.Linear(16, 16), Recurrent(16, ALIF(tau=4.0, beta=0.5)), nn.Linear(16, 16),
                CLIF(v_threshold=0.3), nn.Linear(16, 16), PLIF(tau=3.0, v_threshold=0.3),
                nn.Linear(16, 3),
            ]
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return over_time(x, *self.layers)


def make() -> tuple[Net, Tensor, Tensor]:
    torch.manual_seed(0)
    net = Net().double().eval()
    with torch.no_grad():
        for layer in net.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(2.5)
    return net, torch.rand(9, 4, 6).double(), torch.randn(9, 4, 3).double()


def process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=3)
    net, x, g = make()
    y = time_sharded(net, x[PIECES[rank]])
    (y * g[PIECES[rank]]).sum().backward()
    sum_gradients(net)
    with torch.no_grad():
        again = time_sharded(net, x[PIECES[rank]])
    found = {name: p.grad for name, p in net.named_parameters()}
    torch.save({"y": y.detach(), "again": again, **found}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("three")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(process, (port, folder), nprocs=3, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(3)]


def test_three_processes_compute_what_one_does(found: list[dict[str, Tensor]]) -> None:
    net, x, g = make()
    with use_backend("reference"):  # no kernels to compile; others hold those to it
        y = net(x)
    (y * g).sum().backward()
    whole = torch.cat([rank["y"] for rank in found])
    torch.testing.assert_close(whole, y.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.cat([rank["again"] for rank in found]), whole)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        for rank in found:
            torch.testing.assert_close(rank[name], parameter.grad, rtol=1e-9, atol=1e-10)
