"""An ANN as a graph of named operations that know their source line, ready to be changed."""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Traced", "add_module", "line_of", "record", "trace"]

_HERE = ("/torch/", "torch/fx", __file__)


class Traced:
    """A network's graph in evaluation mode, with a copy of its weights.

    Attributes:
        module: the graph and its modules; free to be changed, the source network is another.
        leaves: module classes that were not looked into.
    """

    def __init__(self, module: fx.GraphModule, leaves: tuple[type[nn.Module], ...]) -> None:
        self.module = module
        self.leaves = leaves

    @property
    def graph(self) -> fx.Graph:
        """Its nodes, in order of execution."""
        return self.module.graph

    def owner(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, or None for a function, a method, or an input."""
        if node.op != "call_module":
            return None
        return self.module.get_submodule(str(node.target))


class _Tracer(fx.Tracer):
    """Looks into every module but PyTorch's own, the given ``leaves`` and those that say their
    ``conversion_kind``; remembers lines."""

    def __init__(self, leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.leaves = leaves
        self.record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, self.leaves) or hasattr(m, "conversion_kind")
        return own or super().is_leaf_module(m, module_qualified_name)


def trace(ann: nn.Module, leaves: Iterable[type[nn.Module]] = ()) -> Traced:
    """The graph of a network, of a copy of it in evaluation mode.

    Args:
        ann: any module whose control flow does not depend on data; a `torch.fx.GraphModule` too.
        leaves: module classes to keep whole (PyTorch's own are kept whole anyway).

    Raises:
        TypeError: it is no module, or one whose Python code is gone.
        ValueError: a batch norm is in training mode, or the network's control flow depends on its
            input; the message names the module, or the line.
    """
    exported = isinstance(ann, fx.GraphModule) and hasattr(ann, "_guards_fn")
    if not isinstance(ann, nn.Module) or isinstance(ann, torch.jit.ScriptModule) or exported:
        raise TypeError(
            f"conversion takes a torch.nn.Module as it was written, not {type(ann).__name__}"
            + (" of an exported program" if exported else "")
            + "; give the module that it was made from"
        )
    for name, module in ann.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"batch norm {name!r} is in training mode: its statistics would change with the "
                "calibration data; call ann.eval() before converting"
            )
    kept = tuple(leaves)
    ann = copy.deepcopy(ann).eval()
    tracer = _Tracer(kept)
    if tracer.is_leaf_module(ann, ""):  # a layer alone is the whole network
        ann = nn.Sequential(ann)
    try:
        graph = tracer.trace(ann)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(
            f"{type(ann).__name__} can't be traced: {_line_of_error(error)} decides by the value "
            f"or the shape of a tensor ({error}). Move the decision out of forward, make it a "
            "constant of the module, or name the class of the module it stands in as a leaf"
        ) from error
    # Hooks of the copy would be run by nobody, and module names must be graph targets.
    return Traced(fx.GraphModule(tracer.root, graph, type(ann).__name__), kept)


def line_of(node: fx.Node) -> str:
    """Where in the user's source a node was written, as ``file:line, in function``."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', node.stack_trace or "")
    frames = [f for f in frames if not any(part in f[0] for part in _HERE)]
    if not frames:
        return "called by PyTorch's own container"
    file, line, function = frames[-1]
    return f"{file}:{line}, in {function}"


def _line_of_error(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in _HERE)]
    if not own:
        return "the network"
    return f"{own[-1].filename}:{own[-1].lineno}, in {own[-1].name} ({own[-1].line})"


def add_module(traced: Traced, wanted: str, module: nn.Module) -> str:
    """Give a module to the graph under a free name near ``wanted``; the name it got."""
    root = traced.module
    base = wanted.replace(".", "_")
    name, number = base, 1
    while hasattr(root, name):
        name, number = f"{base}_{number}", number + 1
    root.add_module(name, module)
    return name


def record(traced: Traced, x: Tensor, visit: Callable[[fx.Node, Any], None]) -> Any:
    """Run the graph and show ``visit`` the value of every node."""

    class _Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            visit(n, value)
            return value

    with torch.no_grad():
        return _Recorder(traced.module).run(x)
