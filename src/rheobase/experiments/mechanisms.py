"""What papers of direct training claim of their networks besides accuracy, as numbers.

Each function is a paper's claim made into one number of a trained network, on test images that it
was not trained on. Which method is measured by which stands in `rheobase.experiments.pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rheobase.learn import Lesson, finite_difference_cosine
from rheobase.measure import firing_rates
from rheobase.measure.gradients import changed_currents
from rheobase.neurons import Membrane, Neuron, record_membranes
from rheobase.train import Evaluation, cross_entropy_of_mean, evaluate, rmp_loss

__all__ = [
    "Mechanism",
    "Trained",
    "accuracy_at_fewer_steps",
    "accuracy_in_noise",
    "accuracy_over_epochs",
    "distance_between_steps",
    "distance_from_normal",
    "entropy_of_spikes",
    "gradient_cosine",
    "quantisation_error",
    "share_with_gradient",
    "spikes_per_step",
]


@dataclass(frozen=True)
class Trained:
    """A network after training, and what it is measured on.

    Attributes:
        net: in evaluation mode.
        images: test images as the network takes them, ``[N, C, H, W]``.
        labels: theirs, ``[N]``.
        accuracies: its test accuracy after each epoch.
    """

    net: nn.Module
    images: Tensor
    labels: Tensor
    accuracies: list[float]


@dataclass(frozen=True)
class Mechanism:
    """What a method is to do besides raising accuracy.

    Attributes:
        quantity: what is measured, in a few words.
        of: measures it.
        lower: whether the paper wants less of it.
    """

    quantity: str
    of: Callable[[Trained], float]
    lower: bool = False


def accuracy_at_fewer_steps(trained: Trained) -> float:
    """Test accuracy of the first 1, 2, ..., T - 1 steps, the mean; the network learnt with T.

    Source: TET (Deng et al. 2022, arXiv 2202.11946), abstract: TET improves the temporal
    scalability of an SNN.
    """
    return mean(_evaluation(trained, trained.images).accuracy_at[:-1])


def accuracy_in_noise(trained: Trained) -> float:
    """Test accuracy on images with normal noise as strong as the images: of deviation 1.

    Source: KDSNN (Xu et al. 2023, arXiv 2304.05627), abstract: immunity to artificial noises.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(trained.images.shape, generator=generator)
    return _evaluation(trained, trained.images + noise).accuracy


def accuracy_over_epochs(trained: Trained) -> float:
    """Test accuracy after each epoch, the mean: what converges faster has more.

    Source: LTMD (Wang et al. 2022, NeurIPS 35), abstract: learnable thresholds enable fast
    convergence.
    """
    return mean(trained.accuracies)


def spikes_per_step(trained: Trained) -> float:
    """Spikes per neuron and step of the whole network.

    Source: MA-SNN (Yao et al. 2023, arXiv 2209.13929), abstract: attention regulates spiking, and
    far fewer spikes are counted.
    """
    membranes = _membranes(trained)
    return sum(float(m.spikes.sum()) for m in membranes) / sum(m.spikes.numel() for m in membranes)


def entropy_of_spikes(trained: Trained) -> float:
    """Entropy in bits of a layer's spikes, 0 or 1 with its mean rate; the mean over layers.

    Source: IM-Loss (Guo et al. 2022, NeurIPS 35), abstract: the loss maximises the information that
    spikes carry.
    """
    return mean(_bits(rate) for rate in firing_rates(trained.net, trained.images).values())


def quantisation_error(trained: Trained) -> float:
    """Mean squared distance of charged membranes from the spikes that they become.

    Source: RMP-Loss (Guo et al. 2023, arXiv 2308.06787), abstract: membranes come close to spikes,
    for less quantisation error.
    """
    return float(rmp_loss(_membranes(trained)))


def share_with_gradient(trained: Trained) -> float:
    """Share of membranes at which the surrogate's derivative is not 0, the mean over layers.

    Source: LSG (Lian et al. 2023, IJCAI), abstract: widths that follow the membranes avoid that
    gradients vanish; so measured by its successor (Jiang et al. 2025, arXiv 2505.11863).
    """
    shares = []
    for membrane in _membranes(trained):
        neuron = trained.net.get_submodule(membrane.name)
        assert isinstance(neuron, Neuron)
        values = neuron.coefficients(membrane.h)
        parameters = [values[f"surrogate_{name}"] for name in neuron.surrogate.defaults]
        slope = neuron.surrogate.derivative(membrane.h - membrane.threshold, *parameters)
        shares.append(float(slope.ne(0).double().mean()))
    return mean(shares)


def gradient_cosine(trained: Trained) -> float:
    """Cosine between surrogate gradient and finite differences, for the first layer's weights.

    Source: Dspike (Li et al. 2021, NeurIPS 34), section 4: the shape of its surrogate is the one
    whose gradient is nearest to the finite differences.
    """
    lesson = Lesson(trained.net, trained.images, trained.labels, cross_entropy_of_mean)
    return finite_difference_cosine(lesson)


@torch.no_grad()
def distance_between_steps(trained: Trained) -> float:
    r"""How far the currents of single steps are from those of all steps, in their deviations.

    Distributions are compared by mean and deviation, as normal ones (by their Wasserstein
    distance): :math:`\sqrt{(m_t - m)^2 + (d_t - d)^2} / d` of each channel, the mean over
    steps, channels and layers.

    Source: TEBN (Duan et al. 2022, NeurIPS 35), abstract: its weights of the steps make the
    distributions of presynaptic inputs over time smoother and more uniform.
    """
    distances: list[float] = []

    def measure(_: str, currents: Tensor) -> Tensor:
        m, d = _moments(currents)
        whole_m, whole_d = _moments(currents.flatten(0, 1).unsqueeze(0))
        apart = torch.hypot(m - whole_m, d - whole_d) / whole_d.clamp_min(1e-12)
        distances.append(float(apart.mean()))
        return currents

    with changed_currents(trained.net, measure):
        trained.net(trained.images)
    return mean(distances)


def distance_from_normal(trained: Trained) -> float:
    r"""How far what is compared with the threshold is from mean 0 and deviation 1.

    :math:`\sqrt{m^2 + (d - 1)^2}` of each step and channel, the mean over steps, channels and
    layers.

    Source: MPBN (Guo et al. 2023, arXiv 2308.08359), abstract: what a norm of the currents
    regulates is disturbed by the membrane's update, and is normalised again before firing.
    """
    apart = []
    for membrane in _membranes(trained):
        m, d = _moments(membrane.h)
        apart.append(float(torch.hypot(m, d - 1.0).mean()))
    return mean(apart)


def _evaluation(trained: Trained, images: Tensor) -> Evaluation:
    return evaluate(trained.net, TensorDataset(images, trained.labels))


@torch.no_grad()
def _membranes(trained: Trained) -> list[Membrane]:
    with record_membranes(trained.net) as found:
        trained.net(trained.images)
    return found


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every step and channel of ``[T, N, C, ...]``, each ``[T, C]``."""
    channels = x.double().transpose(1, 2).flatten(2)
    return channels.mean(2), channels.std(2, correction=0)


def _bits(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1.0 - p) if q > 0.0)
