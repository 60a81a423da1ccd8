"""Neurons behind a synaptic current with a memory of its own: CUBA-LIF and IM-LIF."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rheobase._numbers import Size
from rheobase.neurons.integrate_and_fire import LIF
from rheobase.neurons.parameters import wrong_steps

__all__ = ["CUBALIF", "IMLIF"]


class CUBALIF(LIF):
    r"""Current-based LIF: the input charges a synaptic current, the current the membrane.

    :math:`i_t = d\,i_{t-1} + x_t` and :math:`h_t = (1 - 1/\tau)\,u_{t-1} + i_t`; two linear states,
    of which only the membrane is reset; both decay towards 0, whatever ``v_reset`` is. Decay
    factors c and v are ``current_decay=c, tau=1/(1-v)``. Source: Davies et al. 2018 (Loihi);
    Gerstner et al. 2014, *Neuronal Dynamics*, ch. 1.

    Args:
        tau: time constant of the membrane, at least 1.
        current_decay: what is left of the current after a step, in [0, 1).
        options: the arguments of `Neuron`.

    Raises:
        ValueError: ``tau`` is below 1, or ``current_decay`` not in [0, 1).

    >>> import torch
    >>> CUBALIF(current_decay=0.5)(torch.tensor([[0.6], [0.6], [0.0], [0.0]])).squeeze()
    tensor([0., 1., 0., 0.])
    """

    filtered = True
    states = 2

    def __init__(self, tau: float = 4.0, *, current_decay: float = 0.5, **options: Any) -> None:
        if not 0.0 <= current_decay < 1.0:
            raise ValueError(f"current_decay must be in [0, 1), got {current_decay}")
        super().__init__(tau, decay_input=False, **options)
        self.current_decay = current_decay

    def charge_coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """The decay; unlike LIF's, the membrane does not leak back to ``v_reset``."""
        return super().charge_coefficients(x) | {"bias": 0.0}

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """With the current's decay."""
        return {"current_decay": self.current_decay, **super().coefficients(x)}

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"current_decay={self.current_decay}, {super().extra_repr()}"


class IMLIF(LIF):
    r"""LIF whose synaptic current keeps, by attention, a part of its history. A reconstruction.

    :math:`i_t = a_t\,i_{t-1} + x_t` charges the membrane in the place of x. The scores
    :math:`a \in (0, 1)^T`, one for each step and sample, are the temporal-wise attention of TA-SNN:
    the input averaged over everything but time and batch, two linear layers over T, a sigmoid.
    The attention sees the whole sequence, so pieces cannot be streamed.

    The paper's equations could not be had. Its abstract says that the synaptic current equation is
    modified so that temporal-wise attention "selectively establishes the connection between the
    current and historical response values"; the form above is the plainest that does so. Where the
    score enters, and what it is computed from, is uncertain.
    Source: Lian et al. 2024, IEEE TETCI 8(2), abstract; Yao et al. 2021, arXiv 2107.11711.

    Args:
        T: number of time steps.
        reduction: the hidden layer has ``T // reduction`` units, at least one.
        tau: time constant of the membrane, at least 1.
        options: those of `LIF`.

    Raises:
        ValueError: T or reduction is below 1; the input has another T.

    >>> import torch
    >>> IMLIF(T=4)(torch.rand(4, 2, 3)).shape
    torch.Size([4, 2, 3])
    """

    causal = False
    filtered = True
    states = 2

    def __init__(self, T: Size, *, reduction: Size = 4, tau: float = 2.0, **options: Any) -> None:
        super().__init__(tau, **options)
        self.T = T
        hidden = max(1, T // reduction)
        self.score = nn.Sequential(
            nn.Linear(T, hidden), nn.ReLU(), nn.Linear(hidden, T), nn.Sigmoid()
        )

    def takes_norm(self, x: Tensor) -> bool:
        """Never: the scores are those of the input behind the norm."""
        return False

    def coefficients(self, x: Tensor) -> dict[str, float | Tensor]:
        """With the attention's scores, the current's decay.

        Raises:
            ValueError: the input has another T.
        """
        if x.shape[0] != self.T:
            raise ValueError(wrong_steps("IMLIF", self.T, x))
        # A mean whose gradient is a view: that of `Tensor.mean` is as large as the input.
        mean = x.flatten(2).sum(2) / x[0, 0].numel() if x.dim() > 2 else x
        weight = self.score[0].weight
        assert isinstance(weight, Tensor)
        scores = self.score(mean.t().to(weight.dtype)).t()
        decay = scores.reshape(*x.shape[:2], *[1] * (x.dim() - 2))
        return {"current_decay": decay, **super().coefficients(x)}
