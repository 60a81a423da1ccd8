"""Progressive tandem learning: layer after layer begins to spike, and those behind adapt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.convert.bias import BiasOverTime
from rheobase.convert.kinds import WEIGHTED
from rheobase.convert.network import ConvertedNetwork
from rheobase.convert.pipeline import convert
from rheobase.convert.spiking import Spiking, unfolded
from rheobase.convert.statistics import percentile_of_largest
from rheobase.convert.trace import Traced
from rheobase.convert.walk import Stop, walk

__all__ = ["TandemStage", "progressive_tandem"]


@dataclass(frozen=True)
class TandemStage:
    """What one stage came to.

    Attributes:
        layer: the activation that began to spike.
        epochs: trained for.
        accuracy: of the best epoch on the samples held out, in percent.
    """

    layer: str
    epochs: int
    accuracy: float


def progressive_tandem(
    ann: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    T: int = 16,
    epochs: int = 150,
    patience: int = 6,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    seed: int = 0,
    on_stage: Callable[[TandemStage], None] | None = None,
) -> ConvertedNetwork:
    """Convert by the recipe "tandem", training what follows each layer that begins to spike.

    In stage k the first k layers spike. Values are their counts, gradients those of the ANN's
    layers at these counts (a count's gradient is its activation's). Layers before the k-th are
    fixed; the others train by Adam (weight decay 1e-5, in the last stage a tenth of the rate) until
    the accuracy on a tenth of the samples, held out, has not risen for ``patience`` epochs; the
    best weights are kept. The k-th threshold is the 99.9th percentile of one batch's activations
    over T, every epoch anew. Batch norm is folded first. Source: Wu et al. 2021, IEEE TPAMI 44(11),
    arXiv 2007.01204.

    Args:
        ann: trained, in evaluation mode; left as it is.
        inputs: training inputs ``[N, ...]``.
        labels: their classes ``[N]``.
        T: time steps.
        epochs: the most of all stages together, shared evenly.
        patience: see above.
        learning_rate: of Adam.
        batch_size: samples at a time.
        seed: of the order of samples.
        on_stage: called after every stage.

    Returns:
        the spiking network.

    Raises:
        ValueError: fewer than 20 samples, labels that do not fit, or what `convert` refuses.
    """
    if len(inputs) < 20 or labels.shape != inputs.shape[:1]:
        raise ValueError(
            f"tandem learning takes at least 20 inputs [N, ...] with labels [N], got "
            f"{list(inputs.shape)} and {list(labels.shape)}"
        )
    net = convert(ann, inputs[:batch_size], recipe="tandem", T=T)
    assert net.origin is not None
    pair = _Pair(net, net.origin.ann)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]
    for number, name in enumerate(pair.sites):
        rate = learning_rate * (0.1 if number == len(pair.sites) - 1 else 1.0)
        optimiser = torch.optim.Adam(pair.parameters_from(number), lr=rate, weight_decay=1e-5)
        best, highest, since, epoch = pair.state(), -1.0, 0, 0
        while epoch < max(1, epochs // len(pair.sites)) and since < patience:
            pair.set_threshold(number, inputs[rest[:batch_size]])
            generator = torch.Generator().manual_seed(epoch)
            shuffled = rest[torch.randperm(len(rest), generator=generator)]
            for chosen in torch.split(shuffled, batch_size):
                _descend(pair, optimiser, inputs[chosen], labels[chosen], number + 1)
            with torch.no_grad():
                right = pair(inputs[held], number + 1).argmax(1) == labels[held]
            accuracy = (100.0 * right.double().mean()).item()
            since, epoch = since + 1, epoch + 1
            if accuracy > highest:
                best, highest, since = pair.state(), accuracy, 0
        net.load_state_dict(best)
        if on_stage is not None:
            on_stage(TandemStage(name, epoch, highest))
    return net


def _descend(
    pair: _Pair, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, spiking: int
) -> None:
    optimiser.zero_grad()
    loss = F.cross_entropy(pair(x, spiking), y)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


class _Pair:
    """The spiking network and the ANN, with weights that are the same tensors."""

    def __init__(self, net: ConvertedNetwork, ann: Traced) -> None:
        self.net, self.ann = net, ann
        modules = dict(net.body.named_modules())
        nodes = [n for n in ann.graph.nodes if n.op == "call_module"]
        spiking = {name for name, module in modules.items() if isinstance(module, Spiking)}
        self.sites = [str(n.target) for n in nodes if n.target in spiking]
        self.layers = [str(n.target) for n in nodes if isinstance(ann.owner(n), WEIGHTED)]
        self.places = {str(n.target): place for place, n in enumerate(nodes)}
        for name, module in modules.items():
            if isinstance(module, BiasOverTime):
                layer = ann.module.get_submodule(module.name)
                assert isinstance(layer.bias, nn.Parameter)
                module.layer.weight, module.bias = layer.weight, layer.bias
            elif isinstance(module, WEIGHTED) and name in self.layers:
                module.weight = ann.module.get_submodule(name).weight  # type: ignore[assignment]

    def __call__(self, x: Tensor, spiking: int) -> Tensor:
        """Logits ``[N, classes]``, with so many of the first layers spiking."""
        with _counting(self.ann, self._counts(x, spiking)):
            logits: Tensor = self.ann.module(x)
        return logits

    def _counts(self, x: Tensor, spiking: int) -> dict[str, Tensor]:
        """What the spiking layers send in all, in thresholds' size."""
        found: dict[str, Tensor] = {}

        def visit(stop: Stop) -> None:
            found[stop.name] = unfolded(stop.output, stop.steps).sum(0)

        walk(self.net, x, visit)
        return {name: found[name] for name in self.sites[:spiking]}

    @torch.no_grad()
    def set_threshold(self, number: int, x: Tensor) -> None:
        """Of one site, by the activations that the layers before it bring about."""
        seen: list[Tensor] = []
        name = self.sites[number]
        handle = self.ann.module.get_submodule(name).register_forward_hook(
            lambda module, args, output: seen.append(output)
        )
        self(x, number)
        handle.remove()
        falling = seen[0].flatten().sort(descending=True).values
        count = torch.tensor([len(falling)], device=falling.device)
        top = percentile_of_largest(falling.unsqueeze(0), count, 99.9)
        neuron = self.net.body.get_submodule(name).neuron
        assert isinstance(neuron, nn.Module) and isinstance(neuron.v_threshold, nn.Parameter)
        neuron.v_threshold.fill_(max(top.item() / self.net.T, 1e-6))

    def parameters_from(self, number: int) -> list[nn.Parameter]:
        """Of the layers behind the site before this one."""
        first = -1 if number == 0 else self.places[self.sites[number - 1]]
        later = [name for name in self.layers if self.places[name] > first]
        return [p for name in later for p in self.ann.module.get_submodule(name).parameters()]

    def state(self) -> dict[str, Tensor]:
        """Weights and thresholds."""
        return copy.deepcopy(self.net.state_dict())


@contextmanager
def _counting(ann: Traced, counts: dict[str, Tensor]) -> Iterator[None]:
    """Within the block these activations give the counts, with their own gradients."""

    def take(count: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
        return lambda module, args, a: a + (count - a).detach()

    handles = [
        ann.module.get_submodule(name).register_forward_hook(take(count))
        for name, count in counts.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
