"""An ANN as a graph of named operations that know their source line, ready to be changed."""

from __future__ import annotations

import copy
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rheobase.convert.einops import teach_einops
from rheobase.convert.sizes import SizeProxy, Sizes
from rheobase.stateful import Stateful

__all__ = ["Traced", "add_module", "free_name", "line_of", "record", "trace"]

_HERE = (
    "/torch/", "torch/fx", "/einops/", "/rheobase/convert/trace.py", "/rheobase/convert/sizes.py",
)  # fmt: skip


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
    ``conversion_kind``; remembers lines; knows sizes."""

    proxy_buffer_attributes = True  # their methods take sizes that are known when it runs alone

    def __init__(self, leaves: tuple[type[nn.Module], ...], inputs: int, sizes: Sizes) -> None:
        super().__init__()
        self.leaves = leaves
        self.inputs = inputs
        self.sizes = sizes
        self.record_stack_traces = True

    def proxy(self, node: fx.Node) -> SizeProxy:
        return SizeProxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.sizes.of(obj.node))

    def path_of_module(self, mod: nn.Module) -> str:
        if mod not in self.submodule_paths:  # type: ignore[operator]
            self._adopt(mod)
        return super().path_of_module(mod)

    def _adopt(self, mod: nn.Module) -> None:
        """Make a module that forward itself makes, as in ``nn.ReLU()(x)``, one of the network's."""
        assert isinstance(self.root, nn.Module)
        name = free_name(self.root, f"made_{type(mod).__name__.lower()}")
        self.root.add_module(name, mod)
        self.submodule_paths[mod] = name  # type: ignore[index]

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.sizes.running:  # on examples, which is no part of the graph
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self.sizes.running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, self.leaves) or hasattr(m, "conversion_kind")
        return own or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """So many inputs, the first; what else forward takes keeps its default."""
        assert isinstance(self.root, nn.Module)
        taken = inspect.signature(self.root.forward).parameters.values()
        names = [p.name for p in taken if p.kind not in _ANY_NUMBER]
        names += [f"input_{number}" for number in range(len(names), self.inputs)]  # *inputs
        given = (self.create_proxy("placeholder", n, (), {}) for n in names[: self.inputs])
        return root_fn, [self.root, *given]


def trace(
    ann: nn.Module, inputs: Sequence[Tensor], leaves: Iterable[type[nn.Module]] = ()
) -> Traced:
    """The graph of a network, of a copy of it in evaluation mode.

    Args:
        ann: any module whose control flow does not depend on data; a `torch.fx.GraphModule` too.
            What depends on sizes is followed as for the sizes of ``inputs``.
        inputs: what forward takes, each ``[N, ...]`` with three samples.
        leaves: module classes to keep whole (PyTorch's own are kept whole anyway).

    Raises:
        TypeError: it is no module, or one whose Python code is gone.
        ValueError: a batch norm is in training mode or keeps no statistics, the network takes
            more or fewer inputs, spikes already or has hooks, its control flow depends on its
            input, or it refuses such inputs; the message names the module, or the line.
    """
    _check_network(ann, len(inputs))
    kept = tuple(leaves)
    ann = _copy(ann)
    sizes = Sizes(ann, [[x[:count] for x in inputs] for count in (1, 2, 3)])
    tracer = _Tracer(kept, len(inputs), sizes)
    if tracer.is_leaf_module(ann, ""):  # a layer alone is the whole network
        ann = sizes.root = nn.Sequential(ann)
    _check_hooks(ann, tracer)
    teach_einops()
    try:
        graph = tracer.trace(ann)
    except (fx.proxy.TraceError, TypeError, RuntimeError, LookupError) as error:
        raise ValueError(
            f"{type(ann).__name__} can't be traced: {_line_of_error(error)} does in Python what "
            f"hangs on the values of a tensor or the number of samples ({error}). Move it out of "
            "forward, make it a constant of the module or an operation on tensors, or name the "
            "class of the module it stands in as a leaf"
        ) from error
    except (AssertionError, ValueError) as error:
        shapes = ", ".join(str(["N", *x.shape[1:]]).replace("'", "") for x in inputs)
        raise ValueError(
            f"{type(ann).__name__} refuses calibration inputs of shape {shapes}: "
            f"{_line_of_error(error)} raises {type(error).__name__}: {error}"
        ) from error
    sizes.drop(graph)
    _return_one(graph)
    return Traced(fx.GraphModule(tracer.root, graph, type(ann).__name__), kept)


def _return_one(graph: fx.Graph) -> None:
    """Let a tuple, a dictionary or a record that holds one tensor alone be that tensor."""
    output = next(iter(reversed(graph.nodes)))
    given: Any = output.args[0]
    record = given if isinstance(given, fx.Node) and is_dataclass(given.target) else None
    if record is not None:
        given = record.kwargs
    if not isinstance(given, dict | tuple | list):
        return
    named = given.items() if isinstance(given, dict) else enumerate(given)
    found = {name: node for name, node in named if isinstance(node, fx.Node)}
    if len(found) == 1:  # others are refused when the network's own output is looked at
        output.args = tuple(found.values())
        if record is not None:
            graph.erase_node(record)


def _check_network(ann: nn.Module, inputs: int) -> None:
    """It is a network as it was written, of so many inputs, without spikes, in evaluation mode."""
    parallel = isinstance(ann, nn.DataParallel | DistributedDataParallel)
    inner = "module" if parallel else "_orig_mod"  # where torch.compile keeps it
    if parallel or isinstance(getattr(ann, inner, None), nn.Module):
        raise TypeError(f"{type(ann).__name__} wraps a network: convert what it wraps, ann.{inner}")
    exported = isinstance(ann, fx.GraphModule) and hasattr(ann, "_guards_fn")
    if not isinstance(ann, nn.Module) or isinstance(ann, torch.jit.ScriptModule) or exported:
        raise TypeError(
            f"conversion takes a torch.nn.Module as it was written, not {type(ann).__name__}"
            + (" of an exported program" if exported else "")
            + "; give the module that it was made from"
        )
    named = inspect.signature(ann.forward).parameters.values()
    several = any(p.kind is p.VAR_POSITIONAL for p in named)
    needed = [p.name for p in named if p.default is p.empty and p.kind not in _ANY_NUMBER]
    taken = [p.name for p in named if p.kind not in _ANY_NUMBER]
    if not len(needed) <= inputs <= (inputs if several else len(taken)):
        raise ValueError(
            f"forward of {type(ann).__name__} takes {len(needed)} inputs ({', '.join(needed)}), "
            f"but there is calibration data for {inputs}; give a tuple of tensors [N, ...]: "
            "convert(ann, (first, second), ...)"
        )
    for name, parameter in (*ann.named_parameters(), *ann.named_buffers()):
        if is_lazy(parameter):
            raise ValueError(
                f"{name!r} has no size before the network has seen an input; call it once, ann(x)"
            )
    for name, module in ann.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{name!r} is a torch.jit.ScriptModule, which hides what it computes; conversion "
                "takes modules as they were written: make it an nn.Module"
            )
        if isinstance(module, Stateful):
            raise ValueError(
                f"{name or type(ann).__name__!r} is a {type(module).__name__}: this network spikes "
                "already; conversion takes the ANN that it should be made from"
            )
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"batch norm {name!r} is in training mode: its statistics would change with the "
                "calibration data; call ann.eval() before converting"
            )
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"batch norm {name!r} keeps no running statistics (track_running_stats=False): "
                "what it gives for a sample depends on the others; train it with them"
            )


_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _copy(ann: nn.Module) -> nn.Module:
    """In evaluation mode, with weights that are plain parameters."""
    for module, hook in _weight_hooks(ann):
        if isinstance(hook, WeightNorm | SpectralNorm):
            with torch.no_grad():  # a weight that autograd made can't be copied
                hook(module, None)
    ann = copy.deepcopy(ann).eval()
    for module, hook in list(_weight_hooks(ann)):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
        else:
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    for module in list(ann.modules()):
        if parametrize.is_parametrized(module):
            _keep_weights(module)
    return ann


def _keep_weights(module: nn.Module) -> None:
    """Give a parametrised module what its weights are now.

    PyTorch's own function for it changes the class, which a copy shares with its original.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    weights = {name: getattr(module, name).detach().clone() for name in names}
    plain = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    module.__class__ = plain
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight))


def _weight_hooks(ann: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """Modules whose weight a hook makes before every call, and the hook."""
    for module in ann.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm | prune.BasePruningMethod):
                yield module, hook


def _check_hooks(ann: nn.Module, tracer: _Tracer) -> None:
    """Hooks of what tracing looks into become part of the graph; others would be lost."""
    for name, module in ann.named_modules():
        hooked = module._forward_hooks or module._forward_pre_hooks
        if hooked and (module is ann or tracer.is_leaf_module(module, name)):
            raise ValueError(
                f"{name or type(module).__name__!r} has forward hooks, which conversion would "
                "lose; remove them (handle.remove()), and write what they do into forward"
            )


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
    name = free_name(traced.module, wanted.replace(".", "_"))
    traced.module.add_module(name, module)
    return name


def free_name(root: nn.Module, wanted: str) -> str:
    """``wanted``, or that with a number behind it, which ``root`` has no attribute of."""
    name, number = wanted, 1
    while hasattr(root, name):
        name, number = f"{wanted}_{number}", number + 1
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
