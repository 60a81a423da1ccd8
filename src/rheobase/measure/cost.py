"""All that one inference costs, measured of a network on real input."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rheobase.measure.energy import CONVENTIONS, EnergyReport, energy
from rheobase.measure.latency import wall_time_per_image
from rheobase.measure.lemaire import LemaireEnergy, lemaire
from rheobase.measure.metrics import connectivity_efficiency
from rheobase.measure.operations import OperationReport, count_operations, is_sequence
from rheobase.measure.rates import spiking_sparsity
from rheobase.measure.twin import twin_energies

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """What one inference of a network costs.

    Attributes:
        counts: operations, spikes and synapses.
        energies: under each convention of `CONVENTIONS`, by its name.
        lemaire: under the model of Lemaire et al., memory included.
        twin: picojoules of an ordinary network of the same shape (`twin_energies`).
        latency: seconds for one image alone, on this machine.
        seconds_per_image: with all images at once.
        sparsity: share of the neurons that stay silent (`spiking_sparsity`); None without neurons.
    """

    counts: OperationReport
    energies: dict[str, EnergyReport]
    lemaire: LemaireEnergy
    twin: dict[str, float]
    latency: float
    seconds_per_image: float
    sparsity: float | None

    @property
    def rate(self) -> float:
        """Share of inputs other than zero, of all layers but the first, weighted by their MACs."""
        rest = [layer for layer in self.counts.layers if not layer.first]
        dense = sum(layer.macs * layer.steps for layer in rest)
        return sum(layer.sops for layer in rest) / dense if dense else 0.0

    @property
    def density(self) -> float:
        """Connectivity efficiency: synapses over the pairs that its layers could connect."""
        pairs = sum(one.connections.pairs for one in self.counts.layers if one.connections)
        return connectivity_efficiency(self.counts.synapses, self.counts.neuron_count, pairs)


def cost(net: nn.Module, x: Tensor) -> Cost:
    """Measure a network on images ``[N, ...]`` or sequences ``[T, N, ...]``.

    Args:
        net: returns ``[T, N, classes]``, or ``[N, classes]`` without time; runs in evaluation mode.
        x: its input, as many images as the counts are to be averaged over.

    Raises:
        NotImplementedError: the network uses an operation whose products cannot be seen.

    >>> import torch
    >>> from rheobase.models import create_model
    >>> found = cost(create_model("spikformer_mnist_2_64"), torch.rand(2, 1, 28, 28))
    >>> found.energies["paper"].pj < found.lemaire.pj < found.energies["spikingjelly"].pj
    True
    """
    counts = count_operations(net, x)
    one = x[:, :1] if is_sequence(x, counts.steps, counts.images) else x[:1]
    return Cost(
        counts,
        {name: energy(counts, name) for name in CONVENTIONS},
        lemaire(counts),
        twin_energies(counts),
        wall_time_per_image(net, one) * len(one),
        wall_time_per_image(net, x) * len(x) / counts.images,
        spiking_sparsity(net, x) if counts.neurons else None,
    )
