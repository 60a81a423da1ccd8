"""SNASNet's search: of random cells, the one whose untrained spikes tell samples apart best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheobase.experiments.search import Found, Images, Report, seen_by_neurons
from rheobase.experiments.search_kept import Kept
from rheobase.models import create_model
from rheobase.models.snasnet import OPERATIONS

__all__ = ["diversity", "random_cell", "search_snasnet"]


def search_snasnet(
    data: Images,
    *,
    candidates: int = 5000,
    batch: int = 64,
    repeats: int = 2,
    feedback: bool = True,
    width: int = 16,
    report: Report = print,
    kept: Kept | None = None,
) -> Found:
    """Score random cells without training, and keep the best.

    Args:
        data: images; labels play no role.
        candidates: how many cells; the paper draws 5000.
        batch: images a score is taken on.
        repeats: scores, on other images each, whose mean counts.
        feedback: whether connections may run back in time.
        width: channels of the first cell of the network that is scored.
        report: called with each line of progress.
        kept: where what is done so far is kept, and gone on from.

    Raises:
        ValueError: fewer images than a batch.

    Source: Kim et al. 2022, arXiv 2201.10355, section 4, and its repository.
    """
    if len(data) < batch:
        raise ValueError(f"{len(data)} images are fewer than a batch of {batch}")
    channels, side = data.images.shape[1], data.images.shape[-1]
    overrides: dict[str, Any] = {
        "width": width, "hidden": 64, "channels": channels, "image_size": side, "pool": 2,
        "num_classes": int(data.labels.max()) + 1,
    }  # fmt: skip
    kept = kept or Kept()
    done = kept.of("cells")
    best, best_score = done.get("best", ""), done.get("score", -float("inf"))
    scores: list[float] = done.get("scores", [])
    for i in range(len(scores), candidates):
        cell = random_cell(feedback)
        net = create_model("snasnet_backward_cifar10", cell=cell, **overrides)
        score = 0.0
        for _ in range(repeats):
            chosen = torch.randperm(len(data))[:batch]
            score += diversity(net, data.images[chosen]) / repeats
        if score > best_score:
            best, best_score = cell, score
            report(f"cell {i + 1} of {candidates}: {cell}, score {score:.2f}")
        scores.append(best_score)
        kept.save("cells", best=best, score=best_score, scores=scores)
    return Found("snasnet_backward_cifar10", {"cell": best, **overrides}, best_score, scores)


def random_cell(feedback: bool = True) -> str:
    """A random cell whose input and output are connected directly, without idle nodes.

    With ``feedback`` every pair of nodes has a connection in one direction, drawn at random.

    >>> _ = torch.manual_seed(0)
    >>> random_cell(feedback=False)[5]
    '0'
    """
    while True:
        drawn = torch.randint(len(OPERATIONS), (4, 4))
        forth = torch.ones(4, 4) if not feedback else torch.randint(2, (4, 4))
        forth = forth.triu(1)
        cell = drawn * forth
        if feedback:
            cell = cell + drawn * (1 - forth.T).tril(-1)
        cell = _without_idle_nodes(cell)
        if cell[0, 3]:
            return " ".join("".join(str(int(code)) for code in row) for row in cell)


def _without_idle_nodes(cell: Tensor) -> Tensor:
    """Cut off nodes that the output does not hear of, or that do not hear of the input."""
    reach = sum(torch.linalg.matrix_power(cell.double(), n) for n in range(1, 5))
    assert isinstance(reach, Tensor)
    cell = cell.clone()
    for node in range(4):
        if (node < 3 and reach[node, 3] == 0) or (node > 0 and reach[0, node] == 0):
            cell[node, :] = 0
            cell[:, node] = 0
    return cell


@torch.no_grad()
def diversity(net: nn.Module, images: Tensor) -> float:
    r"""Log determinant of the mean kernel of all neuron layers and steps.

    One layer of n neurons gives :math:`K_{ij} = n - d_{ij}\,/\,2E_{ij}` with the Hamming distance d
    of the spikes of samples i and j, and E its expectation at their firing rates: sparse layers
    count as much as busy ones.
    """
    total = torch.zeros(len(images), len(images), dtype=torch.float64)
    layers = 0

    def add(spikes: Tensor) -> None:
        nonlocal layers
        for at_step in spikes.unbind(0):
            total.add_(_kernel(at_step.flatten(1)))
            layers += 1

    with seen_by_neurons(net, add):
        net(images)
    return float(torch.linalg.slogdet(total / layers).logabsdet)


def _kernel(spikes: Tensor) -> Tensor:
    n = spikes.shape[1]
    on = (spikes > 0).double()
    rate = on.mean(1, keepdim=True)
    distance = on @ (1.0 - on).T + (1.0 - on) @ on.T
    expected = (rate @ (1.0 - rate).T + (1.0 - rate) @ rate.T) * n
    return n - 0.5 * distance / (expected + 1e-3)
