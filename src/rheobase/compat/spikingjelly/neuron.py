"""The neurons of ``spikingjelly.activation_based`` 0.0.0.0.14, computed by those of rheobase."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rheobase import neurons
from rheobase.compat.spikingjelly import surrogate
from rheobase.compat.spikingjelly.base import MemoryModule
from rheobase.stateful import resumed

__all__ = [
    "BaseNode",
    "EIFNode",
    "IFNode",
    "IzhikevichNode",
    "KLIFNode",
    "LIFNode",
    "ParametricLIFNode",
    "QIFNode",
]

SurrogateFunction = Callable[[Tensor], Tensor]

# What a subclass outside this package writes itself, and no kernel of ours knows.
_STEPS = ("neuronal_charge", "neuronal_fire", "neuronal_reset", "single_step_forward")


class BaseNode(MemoryModule):
    """A neuron whose membrane ``v`` lasts from call to call until `reset`.

    A neuron of one's own derives from it and brings ``neuronal_charge``; it is computed step by
    step. Those of this module are computed by a neuron of `rheobase.neurons` (`as_rheobase`), the
    whole sequence at once; gradients flow in evaluation mode too.

    Args:
        v_threshold: the membrane at which it fires.
        v_reset: the membrane after a spike and before the first step; None: a spike subtracts
            ``v_threshold``, and it starts at 0.
        surrogate_function: called on ``v - v_threshold`` it fires.
        detach_reset: cut the gradient through the spike in the reset.
        step_mode: "s" takes a step ``[N, ...]``, "m" a sequence ``[T, N, ...]``.
        backend: accepted, without effect.
        store_v_seq: keep the membranes of every step of a sequence as ``v_seq``.
    """

    v: Any
    v_seq: Any
    remembers_settings: bool = False
    """Whether `reset` brings ``v_threshold`` and ``v_reset`` back too."""

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: SurrogateFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "torch",
        store_v_seq: bool = False,
    ) -> None:
        super().__init__()
        self.register_memory("v", 0.0 if v_reset is None else float(v_reset))
        keep = self.register_memory if self.remembers_settings else self.__setattr__
        keep("v_threshold", v_threshold)
        keep("v_reset", v_reset)
        self.detach_reset = detach_reset
        self.surrogate_function: Any = surrogate_function
        if surrogate_function is None:
            self.surrogate_function = surrogate.Sigmoid()
        self.step_mode = step_mode
        self.backend = backend
        self.store_v_seq = store_v_seq

    @property
    def store_v_seq(self) -> bool:
        """Whether ``v_seq`` keeps the membranes of every step of a sequence."""
        return self._store_v_seq

    @store_v_seq.setter
    def store_v_seq(self, value: bool) -> None:
        self._store_v_seq = value
        if value and "v_seq" not in self._memories:
            self.register_memory("v_seq", None)

    def as_rheobase(self) -> neurons.Neuron | None:
        """The neuron of rheobase that this is, with the same parameters; None if there is none."""
        return None

    def options(self) -> dict[str, Any]:
        """The arguments that all neurons of rheobase share."""
        return {
            "v_threshold": self.v_threshold,
            "v_reset": self.v_reset,
            "detach_reset": self.detach_reset,
            "surrogate": self.surrogate_function.as_rheobase(),
        }

    def neuronal_charge(self, x: Tensor) -> None:
        """Charge ``v`` by the current ``x``."""
        raise NotImplementedError(f"{type(self).__name__} brings no neuronal_charge")

    def neuronal_fire(self) -> Any:
        """Spikes of the charged membrane."""
        return self.surrogate_function(self.v - self.v_threshold)

    def neuronal_reset(self, spike: Tensor) -> None:
        """Reset ``v`` where it fired."""
        spike = spike.detach() if self.detach_reset else spike
        if self.v_reset is None:
            self.v = self.v - spike * self.v_threshold
        else:
            self.v = (1.0 - spike) * self.v + spike * self.v_reset

    def single_step_forward(self, x: Tensor) -> Any:
        """One step ``[N, ...]``: charge, fire, reset."""
        neuron = self._fused()
        if neuron is not None:
            spikes, _ = self._advance(neuron, x.unsqueeze(0))
            return spikes.squeeze(0)
        self.v_float_to_tensor(x)
        self.neuronal_charge(x)
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike

    def multi_step_forward(self, x_seq: Tensor) -> Any:
        """A sequence ``[T, N, ...]``."""
        neuron = self._fused()
        if neuron is not None:
            spikes, v_seq = self._advance(neuron, x_seq)
        else:
            steps = [(self.single_step_forward(x), self.v) for x in x_seq]
            spikes, v_seq = (torch.stack(list(each)) for each in zip(*steps, strict=True))
        if self.store_v_seq:
            self.v_seq = v_seq
        return spikes

    def v_float_to_tensor(self, x: Tensor) -> None:
        """Make a tensor like ``x`` of a membrane that is a number."""
        if not isinstance(self.v, Tensor):
            self.v = torch.full_like(x.detach(), self.v)

    def settings(self) -> str:
        """What ``repr`` shows of every neuron."""
        return (
            f"v_threshold={self.v_threshold}, v_reset={self.v_reset}, "
            f"detach_reset={self.detach_reset}, step_mode={self.step_mode}, backend={self.backend}"
        )

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return self.settings()

    def _fused(self) -> neurons.Neuron | None:
        """The neuron of rheobase that computes this, unless a step or surrogate is not ours."""
        own = all(getattr(type(self), name).__module__.startswith(_PACKAGE) for name in _STEPS)
        curve = getattr(self.surrogate_function, "as_rheobase", None)
        if not own or curve is None or not self.surrogate_function.spiking:
            return None
        return self.as_rheobase()

    def _advance(self, neuron: neurons.Neuron, x_seq: Tensor) -> tuple[Tensor, Tensor | None]:
        """Spikes and membranes of a sequence, from ``v`` on, which is left at its end."""
        if not isinstance(self.v, Tensor) and self.v != neuron.rest:
            self.v_float_to_tensor(x_seq[0])
        with resumed(neuron, self._membrane(x_seq) if isinstance(self.v, Tensor) else None):
            # The last membrane alone is without gradient.
            watched = torch.is_grad_enabled() or self.store_v_seq
            spikes, v_seq, last = neuron.run(x_seq, neuron.carried, "v" if watched else None)
        self.v = last if v_seq is None else v_seq[-1].clone()
        return spikes, v_seq

    def _membrane(self, x_seq: Tensor) -> Tensor:
        """``v`` for every element of a step: one sample's goes on in all of a batch."""
        try:
            membrane: Tensor = self.v.expand(x_seq.shape[1:]).contiguous()
            return membrane
        except RuntimeError as error:
            raise ValueError(
                f"the membrane left by the last call has shape {list(self.v.shape)}, a step of "
                f"this one {list(x_seq.shape[1:])}; call functional.reset_net(net) between them"
            ) from error


_PACKAGE = __name__.rpartition(".")[0]


class IFNode(BaseNode):
    """`rheobase.neurons.IF`; arguments as `BaseNode`."""

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        return neurons.IF(**self.options())

    def neuronal_charge(self, x: Tensor) -> None:
        """Add the current."""
        self.v = self.v + x


class LIFNode(BaseNode):
    """`rheobase.neurons.LIF`; the other arguments are those of `BaseNode`.

    Args:
        tau: time constant in steps, at least 1.
        decay_input: whether the input is divided by tau too.
    """

    def __init__(
        self, tau: float = 2.0, decay_input: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.tau = tau
        self.decay_input = decay_input

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        return neurons.LIF(self.tau, decay_input=self.decay_input, **self.options())

    def neuronal_charge(self, x: Tensor) -> None:
        """Relax towards the current, or leak and add it."""
        leak = (self.v - (self.v_reset or 0.0)) / self.tau
        self.v = self.v + ((x / self.tau if self.decay_input else x) - leak)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, tau={self.tau}"


class ParametricLIFNode(BaseNode):
    """`rheobase.neurons.PLIF`, one ``w`` for the layer; other arguments are those of `BaseNode`.

    Args:
        init_tau: initial time constant, above 1.
        decay_input: whether the input is multiplied by 1/tau too.
    """

    def __init__(
        self, init_tau: float = 2.0, decay_input: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if not init_tau > 1.0:
            raise ValueError(f"init_tau must be above 1, got {init_tau}")
        self.decay_input = decay_input
        self.w = nn.Parameter(torch.as_tensor(-math.log(init_tau - 1.0)))

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        neuron = neurons.PLIF(decay_input=self.decay_input, **self.options())
        neuron.w = self.w
        return neuron

    def neuronal_charge(self, x: Tensor) -> None:
        """Relax towards the current, or leak and add it."""
        rate = self.w.sigmoid()
        leak = (self.v - (self.v_reset or 0.0)) * rate
        self.v = self.v + ((x * rate if self.decay_input else x) - leak)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, tau={1.0 / self.w.detach().sigmoid()}"


class QIFNode(BaseNode):
    """`rheobase.neurons.QIF`, and its arguments by place as SpikingJelly had them."""

    def __init__(
        self,
        tau: float = 2.0,
        v_c: float = 0.8,
        a0: float = 1.0,
        v_threshold: float = 1.0,
        v_rest: float = 0.0,
        v_reset: float = -0.1,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(v_threshold, v_reset, *args, **kwargs)
        self.tau, self.v_c, self.a0, self.v_rest = tau, v_c, a0, v_rest

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        if self.v_reset is None:
            return None
        return neurons.QIF(self.tau, v_c=self.v_c, a0=self.a0, v_rest=self.v_rest, **self.options())

    def neuronal_charge(self, x: Tensor) -> None:
        """The parabola."""
        rise = self.a0 * (self.v - self.v_rest) * (self.v - self.v_c)
        self.v = self.v + (x + rise) / self.tau

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"tau={self.tau}, v_c={self.v_c}, a0={self.a0}, v_rest={self.v_rest}"
        return f"{super().extra_repr()}, {shown}"


class EIFNode(BaseNode):
    """`rheobase.neurons.EIF`, and its arguments by place as SpikingJelly had them."""

    def __init__(
        self,
        tau: float = 2.0,
        delta_T: float = 1.0,
        theta_rh: float = 0.8,
        v_threshold: float = 1.0,
        v_rest: float = 0.0,
        v_reset: float = -0.1,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(v_threshold, v_reset, *args, **kwargs)
        self.tau, self.delta_T, self.theta_rh, self.v_rest = tau, delta_T, theta_rh, v_rest

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        if self.v_reset is None:
            return None
        return neurons.EIF(
            self.tau,
            delta_T=self.delta_T,
            theta_rh=self.theta_rh,
            v_rest=self.v_rest,
            **self.options(),
        )

    def neuronal_charge(self, x: Tensor) -> None:
        """The exponential."""
        upswing = self.delta_T * torch.exp((self.v - self.theta_rh) / self.delta_T)
        self.v = self.v + (x + self.v_rest - self.v + upswing) / self.tau

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        shown = f"tau={self.tau}, delta_T={self.delta_T}, theta_rh={self.theta_rh}"
        return f"{super().extra_repr()}, {shown}"


class KLIFNode(BaseNode):
    """`rheobase.neurons.KLIF`; the other arguments are those of `BaseNode`.

    Args:
        scale_reset: divide the membrane by k before the reset.
        tau: time constant in steps, at least 1.
        decay_input: whether the input is divided by tau too.
    """

    def __init__(
        self,
        scale_reset: bool = False,
        tau: float = 2.0,
        decay_input: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.scale_reset, self.tau, self.decay_input = scale_reset, tau, decay_input
        self.k = nn.Parameter(torch.as_tensor(1.0))

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        neuron = neurons.KLIF(
            self.tau,
            decay_input=self.decay_input,
            scale_reset=self.scale_reset,
            **self.options(),
        )
        neuron.k = self.k
        return neuron


class IzhikevichNode(BaseNode):
    """`rheobase.neurons.AdaptiveQIF`, and its arguments by place as SpikingJelly had them.

    Its second memory ``w`` is the adaptation.
    """

    w: Any

    def __init__(
        self,
        tau: float = 2.0,
        v_c: float = 0.8,
        a0: float = 1.0,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        v_rest: float = -0.1,
        w_rest: float = 0.0,
        tau_w: float = 2.0,
        a: float = 0.0,
        b: float = 0.0,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(v_threshold, v_reset, *args, **kwargs)
        self.tau, self.v_c, self.a0, self.v_rest = tau, v_c, a0, v_rest
        self.tau_w, self.a, self.b, self.w_rest = tau_w, a, b, w_rest
        self.register_memory("w", w_rest)

    def as_rheobase(self) -> neurons.Neuron | None:
        """See `BaseNode.as_rheobase`."""
        names = ("tau", "v_c", "a0", "v_rest", "tau_w", "a", "b", "w_rest")
        return neurons.AdaptiveQIF(**{n: getattr(self, n) for n in names}, **self.options())

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        names = ("v_rest", "w_rest", "tau_w", "a", "b", "tau", "v_c", "a0")
        return ", ".join([super().extra_repr(), *(f"{n}={getattr(self, n)}" for n in names)])

    def _advance(self, neuron: neurons.Neuron, x_seq: Tensor) -> tuple[Tensor, Tensor | None]:
        self.v_float_to_tensor(x_seq[0])
        if not isinstance(self.w, Tensor):
            self.w = torch.full_like(self.v, self.w)
        with resumed(neuron, torch.stack([self.v, self.w])):
            spikes, v_seq, last = neuron.run(x_seq, neuron.carried, "v")
        assert last is not None
        self.v, self.w = last.unbind(0)
        return spikes, v_seq
