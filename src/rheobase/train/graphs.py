"""Forward and backward pass as CUDA graphs: two launches instead of thousands.

With few time steps and small batches a GPU is done with a kernel before Python has launched the
next. A graph keeps what was launched once, and replays it: the same kernels on the same memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase.surrogate.schedule import Scheduled
from rheobase.train.config import TrainConfig
from rheobase.train.evaluate import autocast

__all__ = ["check_graphed", "graphed"]


class _InPrecision(nn.Module):
    """A network under autocast, its logits in float32."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        # The cache of casts would outlive the capture.
        with autocast(images.device, self.precision, cache=False):
            logits: Tensor = self.model(images)
        return logits.float()


def graphed(model: nn.Module, images: Tensor, precision: str = "fp32") -> nn.Module:
    """A network whose training passes replay CUDA graphs; it shares the parameters of ``model``.

    Graphs are of one size: every batch must have the shape of ``images``. In evaluation the network
    runs as ever. What Python decides in the forward pass (a schedule of a surrogate, hooks) is
    settled once.

    Args:
        model: a network on a GPU.
        images: an example batch on that GPU; what is in it does not matter.
        precision: "fp32", or autocast in "bf16" or "fp16".

    Raises:
        ValueError: the network or the images are not on a GPU.
    """
    places = {t.device.type for t in (images, *model.parameters())}
    if places != {"cuda"}:
        raise ValueError(
            f"CUDA graphs need network and images on a GPU, got them on {sorted(places)}; move "
            "them with .cuda(), or train without cuda_graph"
        )
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    net = _InPrecision(model, precision).train()
    with torch.random.fork_rng(devices=[images.device]):
        # It runs a few passes before the capture, which move the running statistics.
        # This gives ``net`` itself another forward.
        torch.cuda.make_graphed_callables(net, (images,), allow_unused_input=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
    return net


def check_graphed(cfg: TrainConfig, model: nn.Module, processes: int) -> None:
    """Refuse runs in which a step is not the same work as the step before.

    Raises:
        ValueError: naming what would have to be otherwise.
    """
    scheduled = any(isinstance(m, Scheduled) and m.schedules for m in model.modules())
    needs = {
        "device=cuda": next(model.parameters()).is_cuda,
        "one process": processes == 1,
        "rule=bptt": cfg.rule.name == "bptt",
        "loss.membrane=none": cfg.loss.membrane == "none",
        "no loss.head": not (cfg.loss.head or cfg.loss.teacher.head),
        "no loss.teacher.features": not cfg.loss.teacher.features,
        "memory.activations=0": not cfg.memory.activations,
        "temperature.step=0": not cfg.temperature.step,
        "surrogates without a schedule": not scheduled,
    }
    wanted = [need for need, given in needs.items() if not given]
    if wanted:
        raise ValueError(f"cuda_graph=true needs {', '.join(wanted)}; or leave cuda_graph=false")
