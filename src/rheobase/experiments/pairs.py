"""Which baseline each method of direct training is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from rheobase.experiments import mechanisms
from rheobase.experiments.mechanisms import Mechanism

__all__ = ["PAIRS", "Pair", "recipe_of"]


@dataclass(frozen=True)
class Pair:
    """A method against its baseline.

    Attributes:
        claim: what the paper says, in a few words.
        baseline: the settings that make the baseline of the method's recipe (`recipe_of`).
        teacher: a recipe beside it whose run teaches the method.
        mechanism: what the paper says that it does besides, to be measured on the same runs.
    """

    claim: str
    baseline: tuple[str, ...]
    teacher: str | None = None
    mechanism: Mechanism | None = None


def recipe_of(method: str) -> str:
    """File name of a method's small twin: on MNIST digits, or on the data its name ends with.

    >>> recipe_of("klif"), recipe_of("klif_cifar10")
    ('klif_mnist_small.yaml', 'klif_cifar10_small.yaml')
    """
    return f"{method}_small.yaml" if method.endswith("_cifar10") else f"{method}_mnist_small.yaml"


_LIF = ("model.overrides.neuron=lif", "model.overrides.per_channel=false")


def _lif(options: str) -> tuple[str, ...]:
    return (*_LIF, f"model.overrides.neuron_kwargs={{{options}}}")


_LIF_OF_SEQUENCES = ("model.overrides.neuron=lif", "model.overrides.neuron_kwargs={tau: 2.0}")

_MPBN_WITHOUT_NORM = (
    "model.name=tet_resnet19_cifar10",
    "model.overrides.neuron=lif",
    "model.overrides.per_channel=false",
    "model.overrides.neuron_kwargs={tau: 1.3333333333333333, decay_input: false, "
    "v_threshold: 0.5, strict: true, surrogate: {name: Dspike, b: 3.0}}",
)
_NORMAL = Mechanism(
    "distance of what fires from mean 0, deviation 1", mechanisms.distance_from_normal, lower=True
)
_COSINE = Mechanism("cosine of the gradient with finite differences", mechanisms.gradient_cosine)
_IN_NOISE = Mechanism("accuracy in noise of deviation 1", mechanisms.accuracy_in_noise)

PAIRS: dict[str, Pair] = {
    "tet": Pair(
        "TET above cross-entropy of the mean, at depth",
        ("loss.name=cross_entropy",),
        mechanism=Mechanism(
            "accuracy of the first 1 to T - 1 steps", mechanisms.accuracy_at_fewer_steps
        ),
    ),
    "tdbn": Pair("tdBN above no norm", ("model.overrides.norm=none",)),
    "bntt": Pair("BNTT above no norm", ("model.overrides.norm=none",)),
    "tebn": Pair(
        "TEBN above batch norm",
        ("model.overrides.norm=batch",),
        mechanism=Mechanism(
            "distance of the steps' currents from each other",
            mechanisms.distance_between_steps,
            lower=True,
        ),
    ),
    "mpbn": Pair("MPBN above batch norm alone", _MPBN_WITHOUT_NORM, mechanism=_NORMAL),
    "mpbn_cifar10": Pair("MPBN above batch norm alone", _MPBN_WITHOUT_NORM, mechanism=_NORMAL),
    "plif": Pair("PLIF above LIF of its first tau", _lif("tau: 4.0, detach_reset: true")),
    "diet_lif": Pair(
        "learnt leak and threshold above fixed ones, on sequences",
        (
            "model.overrides.neuron=if",
            "model.overrides.neuron_kwargs={v_reset: null, detach_reset: true, strict: true, "
            "surrogate: LinearDecay}",
        ),
    ),
    "ltmd": Pair(
        "learnt threshold above the fixed one, on sequences",
        (
            "model.overrides.neuron=lif",
            "model.overrides.neuron_kwargs={tau: 1.3333333333333333, decay_input: false, "
            "strict: true, v_threshold: 0.46211715726000975, surrogate: Rectangular}",
        ),
        mechanism=Mechanism("test accuracy, mean over epochs", mechanisms.accuracy_over_epochs),
    ),
    "glif": Pair(
        "GLIF above LIF",
        _lif(
            "tau: 1.3333333333333333, decay_input: false, strict: true, v_threshold: 0.5, "
            "surrogate: Rectangular"
        ),
    ),
    "klif": Pair("KLIF above LIF", _lif("tau: 2.0")),
    "klif_cifar10": Pair("KLIF above LIF", _lif("tau: 2.0")),
    "clif": Pair(
        "CLIF above LIF",
        _lif("tau: 2.0, decay_input: false, v_reset: null, surrogate: Rectangular"),
    ),
    "psn": Pair("PSN above LIF on sequences", _LIF_OF_SEQUENCES),
    "im_lif": Pair("IM-LIF above LIF on sequences", _LIF_OF_SEQUENCES),
    "dspike": Pair(
        "Dspike above the rectangle",
        ("model.overrides.neuron_kwargs={surrogate: Rectangular}", "temperature.step=0"),
        mechanism=_COSINE,
    ),
    "dspike_cifar10": Pair(
        "a temperature searched for above one that stands still",
        ("temperature.step=0",),
        mechanism=_COSINE,
    ),
    "lsg": Pair(
        "a width that follows the learnt decay above one that stands still",
        (
            "model.overrides.neuron=plif",
            "model.overrides.neuron_kwargs={tau: 1.25, decay_input: false, v_threshold: 0.5, "
            "surrogate: Rectangular}",
        ),
        mechanism=Mechanism("share of membranes with a gradient", mechanisms.share_with_gradient),
    ),
    "local_zo": Pair(
        "LocalZO above the rectangle, on sequences",
        ("model.overrides.neuron_kwargs={surrogate: Rectangular}",),
    ),
    "im_loss": Pair(
        "IM-Loss above none where spikes die out",
        ("loss.membrane=none",),
        mechanism=Mechanism("entropy of a layer's spikes, bits", mechanisms.entropy_of_spikes),
    ),
    "recdis": Pair("MPD-Loss above none where spikes die out", ("loss.membrane=none",)),
    "rmp": Pair(
        "RMP-Loss above none",
        ("loss.membrane=none",),
        mechanism=Mechanism(
            "squared distance of membranes from spikes", mechanisms.quantisation_error, lower=True
        ),
    ),
    "kdsnn": Pair(
        "a teacher's logits above labels alone",
        ("loss.teacher.run=''",),
        "kdsnn_teacher_small",
        _IN_NOISE,
    ),
    "kdsnn_cifar10": Pair(
        "a teacher's logits above labels alone",
        ("loss.teacher.run=''",),
        "kdsnn_teacher_cifar10_small",
        _IN_NOISE,
    ),
    "ma_snn": Pair(
        "TCSA attention above none",
        ("model.overrides.attention=none",),
        mechanism=Mechanism("spikes per neuron and step", mechanisms.spikes_per_step, lower=True),
    ),
    "ta_snn": Pair("attention over time above none", ("model.overrides.attention=none",)),
    "stsc": Pair("STSC above plain synapses", ("model.overrides.attention=none",)),
    "ms_resnet": Pair(
        "shortcuts of membranes above those that fire, at depth",
        (
            "model.name=tet_resnet18_cifar10",
            "model.overrides={depths: [6, 6, 6], widths: [8, 16, 32], stem_width: 8, "
            "norm: tdbn, channels: 1, image_size: 28, T: 2}",
        ),
    ),
}
