"""AutoST's search for a data set: of networks as large as asked for, the one that computes most."""

from __future__ import annotations

import dataclasses

from rheobase.experiments.search import Found, Images, Report
from rheobase.models.autost import AutoSTConfig
from rheobase.models.autost_search import SPACES, Search, parameter_count, search

__all__ = ["search_autost"]


def search_autost(
    data: Images,
    *,
    parameters: tuple[int, int] = (1_000_000, 2_000_000),
    rounds: int = 20,
    seed: int = 0,
    report: Report = print,
) -> Found:
    """Evolve depth, width, MLPs and heads in the published tiny space, by the released score.

    Nothing is trained, and of the images only size, channels and classes count.

    Args:
        data: images whose sides are multiples of 4.
        parameters: fewest and most of a network; the paper's tiny ones have 11 to 12 million.
        rounds: how many times parents are chosen.
        seed: of the random choices.
        report: called with each line of progress.

    Raises:
        ValueError: images of other sides.

    Source: Wang et al. 2024, arXiv 2307.00293, and its repository; `rheobase.models.autost_search`.
    """
    base = AutoSTConfig(
        192, (4,), (4,), image_size=data.images.shape[-1], channels=data.images.shape[1],
        num_classes=int(data.labels.max()) + 1,
    )  # fmt: skip
    ranked = search(SPACES["tiny"], Search(parameters, rounds=rounds, seed=seed), base)
    for score, config in reversed(ranked):
        size = parameter_count(config) / 1e6
        report(f"depth {config.depth}, dim {config.dim}, {size:.2f} M: {score:.3f} GFLOPs")
    score, best = ranked[0]
    overrides = {field.name: getattr(best, field.name) for field in dataclasses.fields(best)}
    return Found("autost_cifar10_uniform_4_384", overrides, score)
