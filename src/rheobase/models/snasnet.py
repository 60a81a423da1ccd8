"""SNASNet: two searched cells of four nodes, with connections that may run back in time.

Kim et al. 2022, "Neural Architecture Search for Spiking Neural Networks", arXiv 2201.10355, and its
repository. `rheobase.experiments.search_snasnet` is the search that finds a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.layers import over_time
from rheobase.layers.dropout import DropoutOverTime
from rheobase.layers.sequential import TimeSequential
from rheobase.layers.vote import vote
from rheobase.models._inputs import as_sequence
from rheobase.models._names import need_layers
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import LIF, Neuron, neuron_factory
from rheobase.stateful import Stateful, resumed
from rheobase.surrogate import ATan

__all__ = ["FAMILY", "OPERATIONS", "PRESETS", "Cell", "SNASNet", "SNASNetConfig", "read_cell"]

OPERATIONS = ("none", "skip", "1x1 convolution", "3x3 convolution", "3x3 average")


def read_cell(text: str) -> tuple[tuple[int, ...], ...]:
    """The operations of a cell, ``[from][to]``, from four rows of four digits.

    A digit is a place in `OPERATIONS`. Node 0 is the input, node 3 the output; above the diagonal
    are connections within a step, below it those to the step after.

    Raises:
        ValueError: not four rows of digits 0 to 4 with an empty diagonal, or no way from the input
            to the output.

    >>> read_cell("0302 0030 3003 0000")[0]
    (0, 3, 0, 2)
    """
    if not re.fullmatch(r"[0-4]{4}( [0-4]{4}){3}", text):
        raise ValueError(f"a cell is four rows of four digits 0 to 4, got {text!r}")
    rows = tuple(tuple(int(digit) for digit in row) for row in text.split())
    if any(rows[i][i] for i in range(4)):
        raise ValueError(f"a node cannot be connected with itself, got {text!r}")
    reached = {0}
    for node in range(1, 4):
        reached |= {node for i in range(node) if i in reached and rows[i][node]}
    if 3 not in reached:
        raise ValueError(f"the cell {text!r} has no way from its input to its output")
    return rows


@dataclass(frozen=True)
class SNASNetConfig:
    """One SNASNet.

    Args:
        cell: see `read_cell`; both cells are alike.
        width: channels of the first cell; the second has twice as many.
        hidden: width of the linear layer before the last.
        voters: output neurons a class.
        pool: side of the average pooling before the linear layers.
        stem_stride: of the first convolution.
        dropout: probability, before the linear layers; one mask for all steps.
        num_classes: outputs.
        channels: input channels.
        image_size: side of the images.
        T: time steps a static image is repeated for.

    Raises:
        ValueError: an impossible cell, or sizes that do not fit.
    """

    cell: str
    width: int = 256
    hidden: int = 1024
    voters: int = 10
    pool: int = 2
    stem_stride: int = 1
    dropout: float = 0.5
    num_classes: int = 10
    channels: int = 3
    image_size: int = 32
    T: int = 5

    def __post_init__(self) -> None:
        read_cell(self.cell)
        sizes = (self.width, self.hidden, self.voters, self.pool, self.num_classes, self.channels)
        if min(*sizes, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.image_size % (self.stem_stride * 2 * self.pool):
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of stem_stride * 2 * pool = "
                f"{self.stem_stride * 2 * self.pool}"
            )


def snas_neuron(**kwargs: Any) -> MakeNeuron:
    """The paper's neuron: LIF, tau 4/3, reset detached, arctangent surrogate with alpha 2."""
    defaults = {"tau": 4 / 3, "detach_reset": True, "surrogate": ATan(2.0)}
    return neuron_factory(LIF, **(defaults | kwargs))


class Cell(Stateful):
    """Four nodes, each the sum of what its connections bring.

    Without connections back it sees the whole sequence at once; with them it goes step by step,
    and batch norm in training takes the statistics of each step, as in the released code.

    Args:
        text: see `read_cell`.
        width: channels.
        make_neuron: makes each neuron.
    """

    def __init__(self, text: str, width: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        rows = read_cell(text)
        self.edges = nn.ModuleDict(
            {
                f"{i}{j}": _operation(rows[i][j], width, make_neuron)
                for i in range(4)
                for j in range(4)
                if rows[i][j]
            }
        )
        self.feeds_back = any(i > j for i, j, _ in self._connections)

    @property
    def _connections(self) -> Iterator[tuple[int, int, nn.Module]]:
        """From, to, operation."""
        return ((int(name[0]), int(name[1]), edge) for name, edge in self.edges.items())

    def forward(self, x: Tensor) -> Tensor:
        """``[T, N, width, H, W]`` to the same shape."""
        return self._step_by_step(x) if self.feeds_back else self._at_once(x)

    def _at_once(self, x: Tensor) -> Tensor:
        nodes = [x] + 3 * [torch.zeros_like(x)]
        for i, j, edge in self._within_a_step():
            nodes[j] = nodes[j] + edge(nodes[i])
        return nodes[3]

    def _step_by_step(self, x: Tensor) -> Tensor:
        nothing = 4 * [torch.zeros_like(x[0])]
        fed = nothing if self.carried is None else list(self.carried.unbind(0))
        firing = {(i, j): _neuron_of(edge) for i, j, edge in self._connections if _fires(edge)}
        membranes = {ends: neuron.carried for ends, neuron in firing.items()}

        def step(i: int, j: int, edge: nn.Module, current: Tensor) -> Tensor:
            if (i, j) not in firing:
                return edge(current.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]
            neuron = firing[i, j]
            with resumed(neuron, membranes[i, j]):
                spikes, after = neuron(current.unsqueeze(0), tap="v")
            membranes[i, j] = after.squeeze(0)
            return over_time(spikes, *list(edge.children())[1:]).squeeze(0)

        outputs = []
        for current in x.unbind(0):
            nodes = [fed[0] + current, *fed[1:]]
            for i, j, edge in self._within_a_step():
                nodes[j] = nodes[j] + step(i, j, edge, nodes[i])
            fed = list(nothing)
            for i, j, edge in self._connections:
                if i > j:
                    fed[j] = fed[j] + step(i, j, edge, nodes[i])
            outputs.append(nodes[3])
        for ends, neuron in firing.items():
            last = membranes[ends]
            assert last is not None
            neuron.carry(last)
        self.carry(torch.stack(fed))
        return torch.stack(outputs)

    def _within_a_step(self) -> list[tuple[int, int, nn.Module]]:
        """Connections that lead on, ordered so that a node is complete before it is read."""
        return sorted(((i, j, e) for i, j, e in self._connections if i < j), key=lambda c: c[0])


def _fires(edge: nn.Module) -> bool:
    return isinstance(edge, TimeSequential)


def _neuron_of(edge: nn.Module) -> Neuron:
    neuron = edge.get_submodule("0")
    if not isinstance(neuron, Neuron):
        raise TypeError(
            f"a cell with connections back needs neurons that go step by step, not "
            f"{type(neuron).__name__}; use one of rheobase.neurons.Neuron"
        )
    return neuron


class _Average(nn.Module):
    """3x3 average pooling of a sequence that keeps the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return over_time(x, self.pool)


def _operation(code: int, width: int, make_neuron: MakeNeuron) -> nn.Module:
    if OPERATIONS[code] == "skip":
        return nn.Identity()
    if OPERATIONS[code] == "3x3 average":
        return _Average()
    k = 1 if OPERATIONS[code] == "1x1 convolution" else 3
    conv = nn.Conv2d(width, width, k, padding=k // 2, bias=False)
    return TimeSequential(make_neuron(), conv, nn.BatchNorm2d(width))


class SNASNet(nn.Module):
    """A stem, two searched cells with a convolution between them, and a voting classifier.

    Args:
        config: cell and sizes.
        make_neuron: makes each neuron; default the paper's.

    >>> net = SNASNet(SNASNetConfig("0302 0030 3003 0000", width=8, hidden=16, image_size=8))
    >>> net(torch.rand(2, 3, 8, 8)).shape
    torch.Size([5, 2, 10])
    """

    def __init__(self, config: SNASNetConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or snas_neuron()
        self.config = config
        self.T = config.T
        width = config.width
        side = config.image_size // (config.stem_stride * 2 * config.pool)
        self.stem = TimeSequential(
            nn.Conv2d(config.channels, width, 3, config.stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.cell1 = Cell(config.cell, width, make_neuron)
        self.downconv1 = TimeSequential(
            nn.BatchNorm2d(width),
            make_neuron(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.AvgPool2d(2),
        )
        self.cell2 = Cell(config.cell, 2 * width, make_neuron)
        self.last_act = TimeSequential(
            nn.BatchNorm2d(2 * width), make_neuron(), nn.AvgPool2d(config.pool), nn.Flatten()
        )
        self.classifier = TimeSequential(
            DropoutOverTime(config.dropout),
            nn.Linear(2 * width * side**2, config.hidden, bias=False),
            make_neuron(),
            nn.Linear(config.hidden, config.num_classes * config.voters),
        )
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step; their mean over T is the paper's output.

        Args:
            x: images ``[N, C, H, W]``, repeated over T, or a sequence ``[T, N, C, H, W]``.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: wrong rank, channels or size, or an empty input.
        """
        config = self.config
        x = as_sequence(x, steps=self.T, channels=config.channels, size=config.image_size)
        x = self.downconv1(self.cell1(self.stem(x)))
        x = self.classifier(self.last_act(self.cell2(x)))
        return vote(x, config.voters)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=2)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


PRESETS: dict[str, SNASNetConfig] = {
    "snasnet_backward_cifar10": SNASNetConfig("0303 0030 2002 0200", pool=4),
    "snasnet_backward_cifar100": SNASNetConfig(
        "0302 0030 3003 0000", width=128, voters=5, num_classes=100
    ),
}

# The released code's order of connections within a step, and of those back.
_FORTH = ("01", "02", "12", "03", "13", "23")
_BACK = ("10", "20", "30", "21", "31", "32")


def _rename(key: str) -> str:
    """The released code numbers connections, ours are named by their ends.

    >>> _rename("cell1.cell_architecture_back.2.1.weight")
    'cell1.edges.30.1.weight'
    """
    key = re.sub(r"cell_architecture\.(\d)", lambda m: f"edges.{_FORTH[int(m[1])]}", key)
    return re.sub(r"cell_architecture_back\.(\d)", lambda m: f"edges.{_BACK[int(m[1])]}", key)


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> SNASNetConfig:
    """The config with these weights; ``cnt_mat`` (rows as text) and T come from ``kwargs``."""
    if "cnt_mat" not in kwargs:
        raise ValueError("weights do not tell a cell's operations: give cnt_mat='0303 0030 ...'")
    need_layers(weights, "a SNASNet", "stem.0", "classifier.1", "classifier.3")
    width, channels = weights["stem.0.weight"].shape[:2]
    hidden, fan_in = weights["classifier.1.weight"].shape
    outputs = weights["classifier.3.weight"].shape[0]
    preset = PRESETS["snasnet_backward_cifar10" if outputs == 100 else "snasnet_backward_cifar100"]
    side = round((fan_in / (2 * width)) ** 0.5)
    return replace(
        preset,
        cell=kwargs["cnt_mat"],
        width=width,
        hidden=hidden,
        channels=channels,
        num_classes=outputs // preset.voters,
        pool=preset.image_size // (2 * side),
        T=kwargs.get("T", 5),
    )


FAMILY = Family(
    "snasnet",
    network=SNASNet,
    presets=PRESETS,
    neuron=snas_neuron,
    official={"snasnet": Official(_config, _rename)},
)
