"""The search of AutoST: evolution over its configurations, by a score that needs no training.

Wang et al. 2024 (AutoST), ICASSP 2024, arXiv 2307.00293. The released score, to be maximised, is
``GFLOPs + weight / NASWOT`` with a weight of 0: among networks of equal size, the one that computes
most. NASWOT (Mellor et al. 2021, arXiv 2006.04647) is the log determinant of how alike the spikes
of different images are.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rheobase.models.autost import AutoSTConfig
from rheobase.neurons import Neuron

__all__ = ["SPACES", "Search", "Space", "gflops", "naswot", "parameter_count", "search"]


@dataclass(frozen=True)
class Space:
    """What may be chosen: a depth, ``dim``, and for each block a ratio and a number of heads."""

    mlp_ratios: tuple[int, ...]
    heads: tuple[int, ...]
    depths: range
    dims: range


SPACES = {
    "tiny": Space((3, 4, 5), (4, 8), range(1, 11), range(192, 385, 64)),
    "small": Space((3, 4, 5), (4, 8), range(2, 13), range(256, 513, 64)),
    "base": Space((3, 4, 5, 6), (4, 8), range(4, 16), range(384, 769, 64)),
}
"""The published spaces."""


@dataclass(frozen=True)
class Search:
    """How to search.

    Args:
        parameters: fewest and most parameters of a candidate.
        population: candidates of a round.
        kept: best candidates of all rounds so far, the parents of the next.
        mutated: candidates of a round that are changed parents.
        crossed: candidates of a round that are mixtures of two parents.
        rounds: how many times parents are chosen.
        entry_probability: of a mutation of each ratio and each number of heads.
        size_probability: of a mutation of the depth, and of ``dim``.
        seed: of the random choices.
        tries: candidates that may be drawn for one that fits.
    """

    parameters: tuple[int, int]
    population: int = 50
    kept: int = 10
    mutated: int = 25
    crossed: int = 25
    rounds: int = 20
    entry_probability: float = 0.2
    size_probability: float = 0.4
    seed: int = 0
    tries: int = 2000


def parameter_count(config: AutoSTConfig) -> int:
    """The number of parameters of `AutoST` with that config, in closed form.

    >>> parameter_count(AutoSTConfig(384, (4,) * 4, (12,) * 4))
    9324761
    """
    dim = config.dim
    widths = [config.channels, dim // 8, dim // 4, dim // 2, dim, dim]
    stem = sum(9 * a * b + 2 * b for a, b in pairwise(widths)) + 3
    blocks = 0
    for ratio in config.mlp_ratios:
        hidden = int(dim * ratio)
        attention = 4 * (dim * dim + 3 * dim) + 5
        blocks += attention + 2 * dim * hidden + 3 * hidden + 3 * dim + 2
    return stem + blocks + (dim + 1) * config.num_classes


def gflops(config: AutoSTConfig) -> float:
    """Billions of multiply-accumulates of one image over T steps."""
    dim, side = config.dim, config.image_size
    widths = [config.channels, dim // 8, dim // 4, dim // 2, dim]
    first_pooled, macs = 4 - (config.patch_size.bit_length() - 1), 0
    for i, (a, b) in enumerate(pairwise(widths)):
        macs += 9 * a * b * side * side
        side //= 2 if i >= first_pooled else 1
    tokens = side * side
    macs += 9 * dim * dim * tokens
    for ratio in config.mlp_ratios:
        layers = 4 * dim * dim + 2 * dim * int(dim * ratio)
        macs += tokens * layers + 2 * tokens * tokens * dim
    return (macs * config.T + dim * config.num_classes) / 1e9


@torch.no_grad()
def naswot(net: nn.Module, x: Tensor) -> float:
    r"""How differently images make the neurons of a network fire: larger is better.

    :math:`\log\det K`, with :math:`K_{ij}` the number of neurons and steps at which images i and j
    agree. Source: Mellor et al. 2021, arXiv 2006.04647, with spikes for the signs of ReLUs.

    Args:
        net: a network of `Neuron` modules.
        x: images ``[N, C, H, W]``.
    """
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)

    def add(_module: nn.Module, _inputs: object, spikes: Tensor) -> None:
        code = spikes.transpose(0, 1).flatten(1).double()
        kernel.add_(code @ code.T + (1.0 - code) @ (1.0 - code).T)

    handles = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, Neuron)]
    try:
        net(x)
    finally:
        for handle in handles:
            handle.remove()
    return float(torch.linalg.slogdet(kernel).logabsdet)


def search(
    space: Space,
    settings: Search,
    base: AutoSTConfig,
    score: Callable[[AutoSTConfig], float] = gflops,
) -> list[tuple[float, AutoSTConfig]]:
    """Evolve configurations towards a high score.

    Args:
        space: what may be chosen, see `SPACES`.
        settings: sizes of the evolution.
        base: where fields that are not searched come from (image, classes, T).
        score: of a config; default the released one.

    Returns:
        the ``settings.kept`` best, best first, with their scores.

    Raises:
        ValueError: no candidate has as many parameters as asked for.

    >>> base = AutoSTConfig(384, (4,), (8,), num_classes=100)
    >>> few = Search((11_000_000, 12_000_000), population=4, kept=2, mutated=2, crossed=1, rounds=2)
    >>> (best, config), _ = search(SPACES["tiny"], few, base)
    >>> 11_000_000 <= parameter_count(config) <= 12_000_000
    True
    """
    return _Evolution(space, settings, base, score).run()


class _Evolution:
    def __init__(
        self,
        space: Space,
        settings: Search,
        base: AutoSTConfig,
        score: Callable[[AutoSTConfig], float],
    ) -> None:
        self.space, self.settings, self.base, self.score = space, settings, base, score
        self.random = random.Random(settings.seed)
        self.scores: dict[AutoSTConfig, float] = {}
        self.parents: list[AutoSTConfig] = []

    def run(self) -> list[tuple[float, AutoSTConfig]]:
        settings = self.settings
        found = self._draw(settings.population, self._any)
        if not found:
            low, high = settings.parameters
            raise ValueError(
                f"in {settings.tries} draws no candidate had {low} to {high} parameters; widen "
                "the window or take another space"
            )
        for _ in range(settings.rounds):
            self._keep_best(found)
            found = self._draw(settings.mutated, self._mutant)
            found += self._draw(settings.crossed, self._cross)
            found += self._draw(settings.population - len(found), self._any)
        self._keep_best(found)
        return [(self.scores[config], config) for config in self.parents]

    def _keep_best(self, found: list[AutoSTConfig]) -> None:
        ranked = sorted(self.parents + found, key=self.scores.__getitem__, reverse=True)
        self.parents = ranked[: self.settings.kept]

    def _draw(self, count: int, make: Callable[[], AutoSTConfig]) -> list[AutoSTConfig]:
        """Up to ``count`` new candidates of a size that is asked for."""
        low, high = self.settings.parameters
        found: list[AutoSTConfig] = []
        for _ in range(self.settings.tries):
            if len(found) >= count:
                break
            config = make()
            if config not in self.scores and low <= parameter_count(config) <= high:
                self.scores[config] = self.score(config)
                found.append(config)
        return found

    def _config(self, dim: int, ratios: list[float], heads: list[int]) -> AutoSTConfig:
        return dataclasses.replace(self.base, dim=dim, mlp_ratios=tuple(ratios), heads=tuple(heads))

    def _any(self) -> AutoSTConfig:
        depth, dim = self.random.choice(self.space.depths), self.random.choice(self.space.dims)
        return self._config(dim, *self._blocks(depth))

    def _blocks(self, count: int) -> tuple[list[float], list[int]]:
        ratios: list[float] = [self.random.choice(self.space.mlp_ratios) for _ in range(count)]
        return ratios, [self.random.choice(self.space.heads) for _ in range(count)]

    def _mutant(self) -> AutoSTConfig:
        """A parent, longer or shorter, and other entries here and there."""
        parent, chance = self.random.choice(self.parents), self.random.random
        dim, ratios, heads = parent.dim, list(parent.mlp_ratios), list(parent.heads)
        if chance() < self.settings.size_probability:
            depth = self.random.choice(self.space.depths)
            more_ratios, more_heads = self._blocks(max(depth - len(heads), 0))
            ratios, heads = (ratios + more_ratios)[:depth], (heads + more_heads)[:depth]
        other_ratios, other_heads = self._blocks(len(heads))
        for i in range(len(heads)):
            if chance() < self.settings.entry_probability:
                ratios[i] = other_ratios[i]
            if chance() < self.settings.entry_probability:
                heads[i] = other_heads[i]
        if chance() < self.settings.size_probability:
            dim = self.random.choice(self.space.dims)
        return self._config(dim, ratios, heads)

    def _cross(self) -> AutoSTConfig:
        """Each entry from one of two parents of equal depth."""
        one = self.random.choice(self.parents)
        two = self.random.choice([p for p in self.parents if p.depth == one.depth])
        pick = self.random.choice
        return self._config(
            pick([one.dim, two.dim]),
            [pick(pair) for pair in zip(one.mlp_ratios, two.mlp_ratios, strict=True)],
            [pick(pair) for pair in zip(one.heads, two.heads, strict=True)],
        )
