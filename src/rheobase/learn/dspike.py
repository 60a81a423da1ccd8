"""Choosing Dspike's temperature by finite differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rheobase.layers.buffers import buffers_kept
from rheobase.learn.rule import Lesson
from rheobase.surrogate import Dspike

__all__ = [
    "TemperatureChoice",
    "choose_temperature",
    "finite_difference_cosine",
    "set_temperature",
]


@dataclass(frozen=True)
class TemperatureChoice:
    """What `choose_temperature` found.

    Attributes:
        b: the temperature that the network now has.
        cosines: candidate temperature -> cosine of its gradient with the finite differences.
    """

    b: float
    cosines: dict[float, float]


def choose_temperature(
    lesson: Lesson,
    *,
    step: float = 0.2,
    epsilon: float = 0.1,
    elements: int | None = None,
    seed: int = 0,
) -> TemperatureChoice:
    r"""Give every `Dspike` of a network the temperature whose gradient is nearest to the truth.

    The truth is :math:`\nabla_\epsilon L(w_i) = \frac{L(w + \epsilon e_i) - L(w - \epsilon
    e_i)}{2\epsilon}` for the weights of the first layer; the candidates are b, b + step and
    b - step, compared by the cosine of their surrogate gradients with it. The paper does so at the
    start of every epoch, as `rheobase.train` does where ``temperature.step`` is set. The network
    runs in the mode it is in; all evaluations draw the same random numbers, and buffers (running
    statistics) are put back.

    Source: Li et al. 2021 (Dspike), NeurIPS 34, section 4.

    Args:
        lesson: a network and a batch.
        step: distance of the candidates; those that are not above 0 are left out.
        epsilon: of the differences.
        elements: weights to take, chosen at random; None takes all, two forward passes each.
        seed: of that choice, and of the numbers that the network draws (dropout).

    Returns:
        the choice, which is also made.

    Raises:
        ValueError: no `Dspike`, several of different temperature, or one that is learnt; no
            weights.
    """
    surrogates = [m for m in lesson.net.modules() if isinstance(m, Dspike)]
    if any(isinstance(m.b, nn.Parameter) for m in surrogates):
        raise ValueError("this network learns the temperature of its Dspike; give it a number")
    temperatures = {float(m.parameters_by_name()["b"]) for m in surrogates}
    if len(temperatures) != 1:
        raise ValueError(
            "choose_temperature takes a network whose surrogates are Dspike, all of one "
            f"temperature; found {sorted(temperatures)}"
        )
    weight, chosen = _first_weights(lesson.net, elements, seed)
    b = temperatures.pop()
    cosines = {}
    with buffers_kept(lesson.net):
        truth = _differences(lesson, weight, chosen, epsilon, seed)
        for candidate in (b, b + step, b - step):
            if candidate > 0.0:
                set_temperature(lesson.net, candidate)
                cosines[candidate] = _cosine(lesson, weight, chosen, truth, seed)
    best = max(cosines, key=lambda candidate: cosines[candidate])
    set_temperature(lesson.net, best)
    return TemperatureChoice(best, cosines)


def finite_difference_cosine(
    lesson: Lesson, *, epsilon: float = 0.1, elements: int | None = None, seed: int = 0
) -> float:
    """Cosine between the surrogate gradient of a network and finite differences of its loss.

    What `choose_temperature` compares, of a network with any surrogate as it is.

    Args:
        lesson: a network and a batch.
        epsilon: of the differences.
        elements: weights of the first layer to take; None takes all.
        seed: as `choose_temperature`.

    Returns:
        the cosine; 0 where one of the two gradients is 0.

    Raises:
        ValueError: no weights.

    Source: Li et al. 2021 (Dspike), NeurIPS 34, section 4.

    >>> loss = lambda logits, target: (logits.mean(0) - target).square().sum()
    >>> net = nn.Linear(3, 2)  # without spikes nothing is approximated
    >>> lesson = Lesson(net, torch.rand(1, 5, 3), torch.rand(5, 2), loss)
    >>> round(finite_difference_cosine(lesson), 3)
    1.0
    """
    weight, chosen = _first_weights(lesson.net, elements, seed)
    with buffers_kept(lesson.net):
        truth = _differences(lesson, weight, chosen, epsilon, seed)
        return _cosine(lesson, weight, chosen, truth, seed)


def set_temperature(net: nn.Module, b: float) -> None:
    """Give every `Dspike` of ``net`` the temperature ``b``.

    Raises:
        ValueError: b is not above 0.
    """
    for module in net.modules():
        if isinstance(module, Dspike):
            module.assign("b", b)


def _first_weights(net: nn.Module, elements: int | None, seed: int) -> tuple[nn.Parameter, Tensor]:
    """The first layer's weights, and which of them to take."""
    weight = next((p for p in net.parameters() if p.dim() > 1 and p.requires_grad), None)
    if weight is None:
        raise ValueError("the network has no weights to compare gradients of")
    rng = torch.Generator().manual_seed(seed)
    return weight, torch.randperm(weight.numel(), generator=rng)[:elements]


def _cosine(
    lesson: Lesson, weight: nn.Parameter, chosen: Tensor, truth: Tensor, seed: int
) -> float:
    (gradient,) = torch.autograd.grad(_loss(lesson, seed), weight)
    ours = gradient.flatten()[chosen].double()
    return float(nn.functional.cosine_similarity(ours, truth, dim=0))


def _loss(lesson: Lesson, seed: int) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return lesson.loss(lesson.net(lesson.inputs), lesson.target)


@torch.no_grad()
def _differences(
    lesson: Lesson, weight: Tensor, chosen: Tensor, epsilon: float, seed: int
) -> Tensor:
    flat, found = weight.data.view(-1), []
    for i in chosen.tolist():
        kept = float(flat[i])
        losses = []
        for shift in (epsilon, -epsilon):
            flat[i] = kept + shift
            losses.append(float(_loss(lesson, seed)))
        flat[i] = kept
        found.append((losses[0] - losses[1]) / (2.0 * epsilon))
    return torch.tensor(found, dtype=torch.float64)
