"""How values reach others through layers without neurons: windows, one inside another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rheobase.measure import Connections

__all__ = ["Path", "start"]


@dataclass(frozen=True)
class Path:
    """From the spikes of a source through layers that add and weigh, to values here.

    Attributes:
        source: whose spikes they are.
        shape: of the source, channels first: ``(C, H, W)``.
        layers: names of the layers with weights on the way.
        channels: of the values here.
        positions: axes of the values here, ``(H', W')``.
        depends: channels of the source that a value here depends on.
        kernel: window of the source's positions that a value here depends on.
        stride: of that window; 0 where all values here have the same.
        padding: of that window.
    """

    source: str
    shape: tuple[int, ...]
    layers: tuple[str, ...]
    channels: int
    positions: tuple[int, ...]
    depends: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        """Whether the values are the source's own, in whatever order."""
        return not self.layers and all(k == 1 for k in self.kernel)

    def through(self, layer: str | None, link: Connections, positions: tuple[int, ...]) -> Path:
        """Followed by a convolution, pooling or linear layer at each position.

        Args:
            layer: its name, if it has weights.
            link: its own connections; a pooling has as many groups as channels.
            positions: of what comes into it, which the path is brought to.
        """
        path = self.at(positions)
        layers = path.layers if layer is None else (*path.layers, layer)
        seen = min(path.shape[0], path.depends * (link.inputs[0] // link.groups))
        if path.positions != positions or 0 in path.stride:
            everything = path.everywhere(math.prod(link.outputs[1:]))
            depends = seen if layer is None else path.shape[0]
            return replace(everything, layers=layers, channels=link.outputs[0], depends=depends).at(
                link.outputs[1:]
            )
        reach = [(k - 1) * d + 1 for k, d in zip(link.kernel, link.dilation, strict=True)]
        old = list(zip(path.kernel, path.stride, strict=True))
        return replace(
            path,
            layers=layers,
            channels=link.outputs[0],
            positions=link.outputs[1:],
            depends=seen,
            kernel=tuple(k + (r - 1) * s for (k, s), r in zip(old, reach, strict=True)),
            stride=tuple(s * t for (_, s), t in zip(old, link.stride, strict=True)),
            padding=tuple(
                p + q * s for p, q, (_, s) in zip(path.padding, link.padding, old, strict=True)
            ),
        )

    def at(self, positions: tuple[int, ...]) -> Path:
        """The same with other axes of as many positions, where each sees one, or all see the same.

        Another path is left as it is.
        """
        if positions == self.positions or math.prod(positions) != math.prod(self.positions):
            return self
        axes = len(positions)
        if all(s == 0 for s in self.stride):
            whole = (math.prod(self.shape[1:]), *(1,) * (axes - 1))
            none = (0,) * axes
            return replace(
                self, positions=positions, shape=(self.shape[0], *whole), kernel=whole,
                stride=none, padding=none,
            )  # fmt: skip
        if any(k != 1 for k in self.kernel) or any(s != 1 for s in self.stride):
            return self
        one, none = (1,) * axes, (0,) * axes
        shape = (self.shape[0], *positions)
        return replace(self, shape=shape, positions=positions, kernel=one, stride=one, padding=none)

    def summed(self) -> Path:
        """Followed by a sum or mean over all positions, channel by channel."""
        windows = zip(self.kernel, self.stride, self.positions, self.shape[1:], strict=True)
        one = (1,) * len(self.positions)
        return replace(
            self,
            positions=one,
            kernel=tuple(min(size, k + (n - 1) * s) for k, s, n, size in windows),
            stride=one,
            padding=(0,) * len(one),
        )

    def everywhere(self, outputs: int = 1) -> Path:
        """Every value sees all positions and channels: an upper bound where no window is known."""
        whole = math.prod(self.shape[1:])
        return replace(
            self, shape=(self.shape[0], whole), positions=(outputs,), depends=self.shape[0],
            kernel=(whole,), stride=(0,), padding=(0,),
        )  # fmt: skip

    def connections(self) -> Connections:
        """Its synapses, from the source to values here."""
        even = self.shape[0] % self.depends == 0 and self.channels % (self.shape[0] // self.depends)
        groups = self.shape[0] // self.depends if even == 0 else 1
        return Connections(
            self.shape, (self.channels, *self.positions), self.kernel, self.stride, self.padding,
            (1,) * len(self.kernel), groups,
        )  # fmt: skip


def start(source: str, shape: tuple[int, ...]) -> Path:
    """The spikes of a source themselves."""
    axes = len(shape) - 1
    one = (1,) * axes
    return Path(source, shape, (), shape[0], shape[1:], 1, one, one, (0,) * axes)
