"""Checks at the door of layers that see a whole sequence."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["check_sequence", "check_steps"]


def check_sequence(module: nn.Module, x: Tensor, channels: int | None = None) -> None:
    """Refuse what is no sequence ``[T, N, C, ...]``, or has another number of channels.

    Raises:
        ValueError: as above; names the module and both shapes.
    """
    name = type(module).__name__
    if x.dim() < 3:
        raise ValueError(
            f"{name} takes a whole sequence [T, N, C, ...] (time first), got shape "
            f"{list(x.shape)}; a single step [N, C, ...] becomes x.unsqueeze(0)"
        )
    if channels is not None and x.shape[2] != channels:
        raise ValueError(
            f"{name} was made for {channels} channels, input [T, N, C, ...] has {x.shape[2]}: "
            f"{list(x.shape)}"
        )


def check_steps(module: nn.Module, given: int, steps: int) -> None:
    """Refuse another number of steps than the module was made for.

    Raises:
        ValueError: names both.
    """
    if given != steps:
        raise ValueError(
            f"{type(module).__name__} was made for T={steps} time steps and was given T={given}; "
            "it has parameters of its own for every step, so train one for that T"
        )
