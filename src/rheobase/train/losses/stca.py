"""A loss on when, not only whether, an output neuron crosses its threshold (STCA)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheobase._numbers import Size, numbers_checked
from rheobase.train.losses.readout import check_logits

__all__ = ["STCA"]


@numbers_checked
@dataclass(frozen=True)
class STCA:
    """Temporal loss: outputs are membranes, and errors are credited to single time steps.

    Spikes (an output at or above `v_threshold`) no more than `gap` steps apart are one cluster. The
    right class is to fire `count` clusters, the others none. Where clusters are missing, the
    highest membrane pays its distance to the threshold, among the steps that lie more than `gap`
    steps from every spike: a new cluster can begin there. Where there are too many, the last spike
    of the smallest cluster (the first of several) pays what it exceeds. So the error reaches back
    from one moment, which may lie long before the end of the sample (delayed feedback).

    Source: Gu et al. 2019 (STCA), IJCAI, as SpikingJelly's `functional.spike_cluster` and the loss
    in its documentation tell it.

    Attributes:
        v_threshold: What an output must reach to have fired.
        count: Clusters wanted of the right class.
        gap: The largest distance of two neighbours in a cluster, in steps.

    >>> logits = torch.tensor([[[0.2, 0.0]], [[0.7, 1.5]]])  # [T, N, classes]
    >>> STCA()(logits, torch.tensor([0]))  # 1 - 0.7 is missing, 1.5 - 1 too much
    tensor(0.8000)
    """

    v_threshold: float = 1.0
    count: Size = 1
    gap: int = 1

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.count < 1 or self.gap < 0:
            raise ValueError(
                f"STCA wants at least 1 cluster and a gap of 0 steps or more, got count="
                f"{self.count} and gap={self.gap}"
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar: the sum over classes, the mean over the batch.

        Args:
            logits: `[T, N, classes]`.
            target: Labels `[N]` (int64).

        Raises:
            ValueError: Shapes that do not fit, or probabilities as target.
        """
        check_logits(logits, target)
        if target.is_floating_point():
            raise ValueError("STCA counts the spikes of one class: labels [N], no mixup")
        clusters, rise, fall = self._moments(logits.detach())
        wanted = torch.zeros_like(clusters).scatter_(1, target.unsqueeze(1), self.count)
        missing = ((clusters < wanted) & (rise >= 0)).to(logits.dtype)
        too_many = (clusters > wanted).to(logits.dtype)
        below = self.v_threshold - _at(logits, rise)
        above = _at(logits, fall) - self.v_threshold
        return (missing * below + too_many * above).sum(1).mean()

    def _moments(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How many clusters there are, and the steps to raise and to lower (-1: there is none)."""
        steps = len(v)
        fired = v >= self.v_threshold
        t = torch.arange(steps, device=v.device).view(-1, 1, 1).expand_as(v)
        far = steps + self.gap + 1
        last = torch.where(fired, t, -far).cummax(0).values
        next_ = torch.where(fired, t, 2 * far).flip(0).cummin(0).values.flip(0)
        before = torch.cat([torch.full_like(last[:1], -far), last[:-1]])
        begins = fired & (t - before > self.gap)
        cluster = torch.where(fired, begins.cumsum(0), 0)

        sizes = torch.zeros(steps + 1, *v.shape[1:], dtype=t.dtype, device=v.device)
        sizes = sizes.scatter_add(0, cluster, fired.to(t.dtype))[1:]
        # The smallest, and of those the first.
        order = torch.where(sizes > 0, sizes * steps + t, steps * far)
        smallest = order.argmin(0) + 1
        fall = torch.where(fired & (cluster == smallest), t, -1).amax(0)

        free = (t - last > self.gap) & (next_ - t > self.gap)
        rise = torch.where(free, v, -torch.inf).argmax(0)
        return begins.sum(0), torch.where(free.any(0), rise, -1), fall


def _at(v: Tensor, step: Tensor) -> Tensor:
    """The membranes at a step of each output; where there is none, those of any."""
    return v.gather(0, step.clamp_min(0).unsqueeze(0)).squeeze(0)
