"""Through the converted network once, layer by layer, stopping behind every neuron."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from rheobase.convert.kinds import WEIGHTED
from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.spiking import Code, Spiking, unfolded

__all__ = ["Stop", "walk"]


@dataclass
class Stop:
    """A neuron that the walk has just passed.

    Attributes:
        name: of its module, that of the activation in the ANN.
        module: the neuron, or the code.
        steps: T.
        current: what came in, ``[T * N, ...]``, or ``[N, ...]`` if it is the same at every step.
        output: what came out, ``[T * N, ...]``.
        constant: whether the current is the same at every step.
        layer: the weighted layer whose result the current is, if that is called nowhere else.
        layer_input: what that layer took, like ``current``.
    """

    name: str
    module: Spiking | Code
    steps: int
    current: Tensor
    output: Tensor
    constant: bool
    layer: nn.Module | None
    layer_input: Tensor | None

    @property
    def spiking(self) -> Spiking:
        """The neuron, where codes are not visited."""
        assert isinstance(self.module, Spiking)
        return self.module

    def mean_output(self) -> Tensor:
        """``[N, ...]``, over T; step after step, as released code adds up: last bits count."""
        return (
            sum(unfolded(self.output, self.steps).unbind(0), self.output.new_zeros(())) / self.steps
        )

    def mean_input(self) -> Tensor:
        """What the layer took, ``[N, ...]``, over T."""
        assert self.layer_input is not None
        if self.constant:
            return self.layer_input
        return (
            sum(unfolded(self.layer_input, self.steps).unbind(0), self.output.new_zeros(()))
            / self.steps
        )

    def again(self) -> Tensor:
        """The output with the layer and the neuron as they are now."""
        if self.layer is not None:
            self.current = self.layer(self.layer_input)
        once = {"constant": True} if self.constant else {}
        self.output = self.module(self.current, steps=self.steps, **once)
        return self.output


@torch.no_grad()
def walk(
    net: ConvertedNetwork,
    x: Tensor,
    visit: Callable[[Stop], Tensor | None],
    steps: int | None = None,
    *,
    codes: bool = False,
) -> Tensor:
    """Run the network; ``visit`` may change the module it stops at and return a new output.

    Args:
        net: the network.
        x: its input.
        visit: called behind every neuron.
        steps: T, if not the network's.
        codes: stop behind codes too.

    Returns:
        the network's output, ``[T, N, ...]``.
    """
    count = steps if steps is not None else net.T + net.recipe.readout.delay
    graphs = (net.stem.graph, net.body.graph)
    calls = Counter(n.target for g in graphs for n in g.nodes if n.op == "call_module")
    alone = {str(target) for target, number in calls.items() if number == 1}
    stem = _Stem(net.stem, alone)
    constants = stem.run(x)
    kinds = (Spiking, Code) if codes else (Spiking,)
    body = _Body(net.body, alone, stem.layers(), visit, count, kinds)
    return unfolded(body.run(*constants, count), count)


class _Stem(fx.Interpreter):
    """Remembers which layer every output came from, and what it took."""

    def __init__(self, module: fx.GraphModule, alone: set[str]) -> None:
        super().__init__(module)
        self.alone = alone
        self.taken: dict[fx.Node, tuple[nn.Module, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        module = self.submodules.get(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, WEIGHTED) and str(n.target) in self.alone:
            self.taken[n] = module, self.fetch_args_kwargs_from_env(n)[0][0]
        return super().run_node(n)

    def layers(self) -> list[tuple[nn.Module, Tensor] | None]:
        """For every output in turn."""
        output = next(n for n in self.graph.nodes if n.op == "output")
        return [self.taken.get(n) for n in output.args[0]]


class _Body(fx.Interpreter):
    def __init__(
        self,
        module: fx.GraphModule,
        alone: set[str],
        constants: list[tuple[nn.Module, Tensor] | None],
        visit: Callable[[Stop], Tensor | None],
        steps: int,
        kinds: tuple[type[Spiking] | type[Code], ...],
    ) -> None:
        super().__init__(module)
        self.kinds = kinds
        self.alone = alone
        self.visit = visit
        self.steps = steps
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"][:-1]
        self.taken = dict(zip(inputs, constants, strict=True))

    def run_node(self, n: fx.Node) -> Any:
        module = self.submodules.get(str(n.target)) if n.op == "call_module" else None
        once = str(n.target) in self.alone and len(n.users) == 1
        if isinstance(module, WEIGHTED) and once:
            self.taken[n] = module, self.fetch_args_kwargs_from_env(n)[0][0]
        value = super().run_node(n)
        if not isinstance(module, self.kinds):
            return value
        source = n.args[0]
        assert isinstance(source, fx.Node)
        layer, taken = self.taken.pop(source, None) or (None, None)
        current = self.env[source]
        constant = bool(n.kwargs.get("constant", False))
        stop = Stop(str(n.target), module, self.steps, current, value, constant, layer, taken)
        new = self.visit(stop)
        return value if new is None else new
