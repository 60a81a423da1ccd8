"""AutoSNN's search: train a supernet one path at a time, then evolve paths in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rheobase.experiments.search import Found, Images, Report, batches, seen_by_neurons
from rheobase.experiments.search_kept import Kept
from rheobase.models.autosnn import BLOCKS, PLACES, AutoSNNConfig, AutoSNNSupernet

__all__ = ["evolve", "search_autosnn", "train_supernet"]

Path = tuple[str, ...]


def search_autosnn(
    data: Images,
    *,
    epochs: int = 600,
    rounds: int = 20,
    pool: int = 20,
    exponent: float = -0.08,
    width: int = 8,
    T: int = 4,
    lr: float = 1e-3,
    batch: int = 96,
    report: Report = print,
    kept: Kept | None = None,
) -> Found:
    """Find the blocks with the best accuracy for their number of spikes.

    The fitness of a path is its accuracy on held-out images times its spikes an image, over those
    of an average path, to the power of ``exponent``.

    Args:
        data: images; four fifths train the supernet, the others judge paths.
        epochs: passes over them; the paper makes 600.
        rounds: generations; the paper has 20.
        pool: paths a generation; the paper has 20.
        exponent: how much spikes cost; the paper's is -0.08.
        width: channels of the network's stem; the paper's is 16.
        T: time steps; the paper has 8.
        lr: of the supernet's training.
        batch: images a step of it.
        report: called with each line of progress.
        kept: where what is done so far is kept, and gone on from.

    Source: Na et al. 2022, arXiv 2201.12738, section 4, and its repository.
    """
    train, judge = data.split(0.8)
    channels, side = data.images.shape[1], data.images.shape[-1]
    sizes: dict[str, Any] = {
        "width": width, "T": T, "channels": channels, "image_size": side,
        "num_classes": int(data.labels.max()) + 1,
    }  # fmt: skip
    net = AutoSNNSupernet(AutoSNNConfig(" ".join(PLACES * ["skip"]), **sizes))
    train_supernet(net, train, epochs, lr, batch, report, kept)
    best, score, scores = evolve(net, judge, rounds, pool, exponent, report, kept)
    return Found("autosnn_16", {"blocks": " ".join(best), **sizes}, score, scores, loss="mse")


def train_supernet(
    net: AutoSNNSupernet,
    data: Images,
    epochs: int,
    lr: float,
    batch: int,
    report: Report = print,
    kept: Kept | None = None,
) -> None:
    """Adam on one random path a batch; the error of firing rates, squared."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    kept = kept or Kept()
    done = kept.of("supernet")
    if done:
        net.load_state_dict(done["net"])
        optimizer.load_state_dict(done["optimizer"])
    net.train()
    for epoch in range(done.get("epochs", 0), epochs):
        losses = []
        for images, labels in batches(data, min(batch, len(data))):
            rates = net(images, " ".join(_random_path())).mean(0)
            loss = F.mse_loss(rates, F.one_hot(labels, rates.shape[1]).to(rates.dtype))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        report(f"supernet, epoch {epoch + 1} of {epochs}: loss {sum(losses) / len(losses):.4f}")
        states = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
        kept.save("supernet", epochs=epoch + 1, **states)


def evolve(
    net: AutoSNNSupernet,
    data: Images,
    rounds: int,
    pool: int,
    exponent: float,
    report: Report = print,
    kept: Kept | None = None,
) -> tuple[Path, float, list[float]]:
    """The fittest path after some generations, its fitness, and the best after each.

    A generation is a quarter mutants (each block changes with probability 0.2) and a quarter
    crossings of the fittest half, and else new random paths; no path is judged twice.
    """
    kept = kept or Kept()
    done = kept.of("generations")
    judged: dict[Path, tuple[float, float]] = done.get("judged", {})
    usual, scores = done.get("usual", 0.0), done.get("scores", [])
    fitness: dict[Path, float] = done.get("fitness", {})
    generation: list[Path] = done.get("generation") or _fresh(
        pool, (_random_path() for _ in range(50 * pool)), judged
    )
    for i in range(len(scores), rounds):
        judged |= {path: _judge(net, data, path) for path in generation}
        # Spikes are measured in those of an average path.
        usual = usual or sum(spikes for _, spikes in judged.values()) / len(judged)
        fitness = {
            p: a * (max(s, 1.0) / max(usual, 1.0)) ** exponent for p, (a, s) in judged.items()
        }
        fittest = sorted(fitness, key=lambda path: -fitness[path])[: max(2, pool // 2)]
        scores.append(fitness[fittest[0]])
        accuracy, spikes = judged[fittest[0]]
        report(
            f"generation {i + 1} of {rounds}: {' '.join(fittest[0])}, accuracy {accuracy:.3f}, "
            f"{spikes:.0f} spikes an image"
        )
        mutants = _fresh(pool // 4, (_mutant(fittest) for _ in range(3 * pool)), judged)
        crossings = _fresh(
            pool // 4, (_crossing(fittest) for _ in range(3 * pool)), [*judged, *mutants]
        )
        bred = [*mutants, *crossings]
        new = (_random_path() for _ in range(50 * pool))
        generation = bred + _fresh(pool - len(bred), new, [*judged, *bred])
        kept.save(
            "generations", judged=judged, usual=usual, scores=scores, fitness=fitness,
            generation=generation,
        )  # fmt: skip
    best = max(fitness, key=lambda path: fitness[path])
    return best, fitness[best], scores


@torch.no_grad()
def _judge(net: AutoSNNSupernet, data: Images, path: Path) -> tuple[float, float]:
    """Accuracy, and spikes an image."""
    spikes = 0.0

    def count(fired: Tensor) -> None:
        nonlocal spikes
        spikes += float(fired.sum())

    net.eval()
    right = 0
    with seen_by_neurons(net, count):
        for start in range(0, len(data), 200):
            answers = net(data.images[start : start + 200], " ".join(path)).mean(0).argmax(1)
            right += int((answers == data.labels[start : start + 200]).sum())
    return right / len(data), spikes / len(data)


def _random_path() -> Path:
    return tuple(BLOCKS[i] for i in torch.randint(len(BLOCKS), (PLACES,)).tolist())


def _mutant(parents: list[Path]) -> Path:
    parent = parents[_below(len(parents))]
    changes = torch.rand(PLACES) < 0.2
    return tuple(
        BLOCKS[(BLOCKS.index(block) + 1 + _below(len(BLOCKS) - 1)) % len(BLOCKS)] if new else block
        for block, new in zip(parent, changes.tolist(), strict=True)
    )


def _crossing(parents: list[Path]) -> Path:
    first, second = torch.randperm(len(parents))[:2].tolist()
    cut = 1 + _below(PLACES - 1)
    return tuple(parents[first][:cut] + parents[second][cut:])


def _below(n: int) -> int:
    return int(torch.randint(n, ()))


def _fresh(count: int, paths: Iterable[Path], known: Iterable[Path]) -> list[Path]:
    """The first ``count`` paths that are neither known nor repeated; fewer if they run out."""
    seen, fresh = set(known), list[Path]()
    for path in paths:
        if len(fresh) == count:
            break
        if path not in seen:
            seen.add(path)
            fresh.append(path)
    return fresh
