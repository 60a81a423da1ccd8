"""Networks of spike-response layers, on which online and spike-time learning rules work.

One network for each rule's preset: the filters and thresholds of its paper, and images as its paper
presents them. Sizes are ours, for digits; the papers' tasks were others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from rheobase.data.encoders import latency
from rheobase.layers import repeat
from rheobase.layers.spike_response import SpikeResponse, exponential
from rheobase.models._inputs import check_choice
from rheobase.models.registry import Family
from rheobase.surrogate import FastSigmoid, LinearDecay, SuperSpike, Surrogate

__all__ = ["FAMILY", "PRESETS", "SpikeResponseConfig", "SpikeResponseNet"]

CODES = ("direct", "rows", "latency")
READOUTS = ("potential", "spikes", "peak")


@dataclass(frozen=True)
class SpikeResponseConfig:
    """One network.

    Args:
        hidden: width of each hidden layer.
        num_classes: outputs.
        inputs: features of a step: pixels of an image, or of a row.
        T: time steps of an image (``rows`` has as many as the image).
        code: how an image becomes a sequence: ``direct``, the pixels at every step; ``rows``, a
            row a step; ``latency``, one spike a pixel, the brighter the sooner.
        readout: what the last layer puts out: ``potential``, its membrane at every step;
            ``spikes``; ``peak``, the highest membrane over T less the threshold, as one step.
        layer: arguments of every `SpikeResponse`.
        last: those of the last one that differ.
        surrogate: a factory of the surrogate gradient.

    Raises:
        ValueError: an unknown word, or sizes that are not positive.
    """

    hidden: tuple[int, ...]
    num_classes: int = 10
    inputs: int = 784
    T: int = 25
    code: str = "latency"
    readout: str = "spikes"
    layer: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    surrogate: Any = SuperSpike

    def __post_init__(self) -> None:
        check_choice("code", self.code, CODES)
        check_choice("readout", self.readout, READOUTS)
        if min(*self.hidden, self.num_classes, self.inputs, self.T) < 1:
            raise ValueError(f"sizes must be positive, got {self}")


class SpikeResponseNet(nn.Module):
    """Spike-response layers, one after another.

    Args:
        config: sizes and kinds.

    >>> import torch
    >>> net = SpikeResponseNet(SpikeResponseConfig((8,), inputs=16, T=5))
    >>> net(torch.rand(2, 1, 4, 4)).shape
    torch.Size([5, 2, 10])
    """

    def __init__(self, config: SpikeResponseConfig) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        self.causal = config.readout != "peak"
        sizes = [config.inputs, *config.hidden, config.num_classes]
        options = [config.layer] * len(config.hidden) + [{**config.layer, **config.last}]
        self.layers = nn.ModuleList(
            SpikeResponse(a, b, **own, surrogate=_new(config.surrogate))
            for a, b, own in zip(sizes[:-1], sizes[1:], options, strict=True)
        )

    def encode(self, x: Tensor) -> Tensor:
        """The sequence ``[T, N, inputs]`` that images ``[N, C, H, W]`` become.

        Sequences, ``[T, N, inputs]`` or of images ``[T, N, C, H, W]``, are taken as they are.

        Raises:
            ValueError: wrong rank or size.
        """
        config = self.config
        if x.dim() == 4:
            if config.code == "rows":
                x = x.permute(2, 0, 1, 3)
            elif config.code == "latency":
                x = latency(x, config.T)
            else:
                x = repeat(x, config.T)
        x = x.flatten(2) if x.dim() > 2 else x
        if x.dim() != 3 or x.shape[2] != config.inputs:
            raise ValueError(
                f"the network takes {config.inputs} features a step, got {list(x.shape)} (coded as "
                f"{config.code!r}); build it with inputs={x.shape[-1]}"
            )
        return x

    def forward(self, x: Tensor) -> Tensor:
        """What the last layer puts out.

        Args:
            x: see `encode`.

        Returns:
            ``[T, N, num_classes]``; ``[1, N, num_classes]`` for the readout ``peak``.
        """
        x = self.encode(x)
        for layer in self.layers[:-1]:
            x = layer(x)
        last = self.layers[-1]
        assert isinstance(last, SpikeResponse)
        membranes, spikes = last.respond(x)
        if self.config.readout == "spikes":
            return spikes
        if self.config.readout == "peak":
            return membranes.amax(0, keepdim=True) - last.threshold
        return membranes


def _new(surrogate: Any) -> Surrogate:
    made: Surrogate = surrogate()
    return made


def _pseudo_derivative() -> Surrogate:
    return LinearDecay(0.3)


def _slope_ten() -> Surrogate:
    return FastSigmoid(10.0)


_EPROP_DECAY = exponential(20.0)
_TEMPOTRON = (exponential(15.0 / 4.0), exponential(15.0))
_SUPERSPIKE = (exponential(5.0), exponential(10.0))

PRESETS: dict[str, SpikeResponseConfig] = {
    # Bellec et al. 2020: LIF and adaptive neurons with recurrence, a leaky readout; an image is
    # read row by row.
    "eprop_mnist": SpikeResponseConfig(
        (100,),
        inputs=28,
        T=28,
        code="rows",
        readout="potential",
        layer={
            "decays": (_EPROP_DECAY,),
            "refractory": (_EPROP_DECAY, 1.0),
            "recurrent": True,
            "adaptation": (exponential(200.0), 0.1),
            "bias": False,
        },
        last={"refractory": (0.0, 0.0), "recurrent": False, "adaptation": (0.0, 0.0), "bias": True},
        surrogate=_pseudo_derivative,
    ),
    # Zenke and Ganguli 2018: synapses of 5, membranes of 10 steps.
    "superspike_mnist": SpikeResponseConfig(
        (100,),
        T=40,
        layer={"decays": _SUPERSPIKE, "gains": (0.2, 1.0), "refractory": (_SUPERSPIKE[1], 1.0)},
        surrogate=SuperSpike,
    ),
    # Kaiser et al. 2020, with the filters of the released code.
    "decolle_mnist": SpikeResponseConfig(
        (128, 128),
        T=25,
        code="direct",
        readout="potential",
        layer={
            "decays": (0.85, 0.9),
            "gains": (0.15, 0.1),
            "lagged": True,
            "refractory": (0.65, 1.0),
            "threshold": 0.0,
        },
        last={"refractory": (0.0, 0.0)},
        surrogate=_slope_ten,
    ),
    # Gütig and Sompolinsky 2006: tau 15, tau_s a quarter of it; the peak of a single potential is
    # about 1 (2.12 times the difference of the exponentials).
    "tempotron_mnist": SpikeResponseConfig(
        (),
        T=50,
        readout="peak",
        layer={
            "decays": _TEMPOTRON,
            "gains": (1.0, 2.1165 * (_TEMPOTRON[1] - _TEMPOTRON[0])),
            "lagged": True,
            "refractory": (0.0, 0.0),
            "bias": False,
        },
    ),
    # Ponulak and Kasinski 2010: one layer of LIF neurons, membranes of 10 steps.
    "resume_mnist": SpikeResponseConfig(
        (),
        T=10,
        layer={
            "decays": (exponential(2.0), exponential(10.0)),
            "gains": (0.4, 0.5),
            "refractory": (exponential(10.0), 1.0),
            "bias": False,
        },
    ),
}


FAMILY = Family("spike_response_net", network=SpikeResponseNet, presets=PRESETS)
