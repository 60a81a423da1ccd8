"""Search in the branchless supernet: weights and masks by gradient, in turns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.experiments.search import Found, Images, Report, batches
from rheobase.experiments.search_kept import Kept
from rheobase.models.snn_supernet import SearchedNetConfig, Supernet

__all__ = ["search_supernet"]


def search_supernet(
    data: Images,
    *,
    epochs: int = 8,
    balance: float = 0.1,
    features: str = "16k5 M 32k5 M 32k5",
    T: int = 4,
    report: Report = print,
    kept: Kept | None = None,
) -> Found:
    """Choose each layer's kernel and width by the loss and the synaptic operations together.

    Weights learn on one half of the images; the masks' scores, on the other, minimise the
    cross-entropy plus ``balance`` times the logarithm of the synaptic operations of an image.
    Reconstruction: see `rheobase.models.snn_supernet`; the logarithm and the turns are ours.

    Args:
        data: images.
        epochs: passes over a half of them.
        balance: how much operations cost; 0 looks at accuracy alone.
        features: the largest network of the search space.
        T: time steps.
        report: called with each line of progress.
        kept: where what is done so far is kept, and gone on from.
    """
    channels, side = data.images.shape[1], data.images.shape[-1]
    sizes = {
        "T": T, "channels": channels, "image_size": side,
        "num_classes": int(data.labels.max()) + 1,
    }  # fmt: skip
    net = Supernet(SearchedNetConfig(features, **sizes))
    scores = {id(parameter) for parameter in net.architecture}
    weights = torch.optim.Adam((p for p in net.parameters() if id(p) not in scores), lr=2e-3)
    masks = torch.optim.Adam(net.architecture, lr=3e-2)
    halves, size = data.split(0.5), min(64, len(data) // 2)
    kept = kept or Kept()
    done = kept.of("epochs")
    learnt: dict[str, Any] = {"net": net, "weights": weights, "masks": masks}
    history: list[float] = done.get("history", [])
    for name in learnt if done else ():
        learnt[name].load_state_dict(done[name])
    net.train()
    for epoch in range(len(history), epochs):
        for mine, other in zip(batches(halves[0], size), batches(halves[1], size), strict=False):
            _step(net, mine, weights, 0.0)
            loss = _step(net, other, masks, balance)
        history.append(-loss)
        report(f"epoch {epoch + 1} of {epochs}: {net.found.features}, loss {loss:.3f}")
        states = {name: one.state_dict() for name, one in learnt.items()}
        kept.save("epochs", history=history, **states)
    return Found(
        "searched_net_cifar10", {"features": net.found.features, **sizes}, history[-1], history
    )


def _step(
    net: Supernet,
    batch: tuple[Tensor, Tensor],
    optimizer: torch.optim.Optimizer,
    balance: float,
) -> float:
    images, labels = batch
    logits, operations = net(images)
    loss: Tensor = (
        F.cross_entropy(logits.mean(0), labels) + balance * operations.clamp_min(1.0).log()
    )
    net.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()
