"""Which baseline each method of direct training is measured against."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAIRS", "Pair"]


@dataclass(frozen=True)
class Pair:
    """A method against its baseline.

    Attributes:
        claim: what the paper says, in a few words.
        baseline: the settings that make the baseline of ``configs/METHOD_mnist_small.yaml``.
        teacher: a recipe beside it whose run teaches the method.
    """

    claim: str
    baseline: tuple[str, ...]
    teacher: str | None = None


_LIF = ("model.overrides.neuron=lif", "model.overrides.per_channel=false")


def _lif(options: str) -> tuple[str, ...]:
    return (*_LIF, f"model.overrides.neuron_kwargs={{{options}}}")


_LIF_OF_SEQUENCES = ("model.overrides.neuron=lif", "model.overrides.neuron_kwargs={tau: 2.0}")

PAIRS: dict[str, Pair] = {
    "tet": Pair("TET above cross-entropy of the mean, at depth", ("loss.name=cross_entropy",)),
    "tdbn": Pair("tdBN above no norm", ("model.overrides.norm=none",)),
    "bntt": Pair("BNTT above no norm", ("model.overrides.norm=none",)),
    "tebn": Pair("TEBN above batch norm", ("model.overrides.norm=batch",)),
    "mpbn": Pair(
        "MPBN above batch norm alone",
        (
            "model.name=tet_resnet19_cifar10",
            "model.overrides.neuron=lif",
            "model.overrides.per_channel=false",
            "model.overrides.neuron_kwargs={tau: 1.3333333333333333, decay_input: false, "
            "v_threshold: 0.5, strict: true, surrogate: {name: Dspike, b: 3.0}}",
        ),
    ),
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
    ),
    "glif": Pair(
        "GLIF above LIF",
        _lif(
            "tau: 1.3333333333333333, decay_input: false, strict: true, v_threshold: 0.5, "
            "surrogate: Rectangular"
        ),
    ),
    "klif": Pair("KLIF above LIF", _lif("tau: 2.0")),
    "clif": Pair(
        "CLIF above LIF",
        _lif("tau: 2.0, decay_input: false, v_reset: null, surrogate: Rectangular"),
    ),
    "psn": Pair("PSN above LIF on sequences", _LIF_OF_SEQUENCES),
    "im_lif": Pair("IM-LIF above LIF on sequences", _LIF_OF_SEQUENCES),
    "dspike": Pair(
        "Dspike above the rectangle",
        ("model.overrides.neuron_kwargs={surrogate: Rectangular}", "temperature.step=0"),
    ),
    "lsg": Pair(
        "a width that follows the learnt decay above one that stands still",
        (
            "model.overrides.neuron=plif",
            "model.overrides.neuron_kwargs={tau: 1.25, decay_input: false, v_threshold: 0.5, "
            "surrogate: Rectangular}",
        ),
    ),
    "local_zo": Pair(
        "LocalZO above the rectangle, on sequences",
        ("model.overrides.neuron_kwargs={surrogate: Rectangular}",),
    ),
    "im_loss": Pair("IM-Loss above none where spikes die out", ("loss.membrane=none",)),
    "recdis": Pair("MPD-Loss above none where spikes die out", ("loss.membrane=none",)),
    "rmp": Pair("RMP-Loss above none", ("loss.membrane=none",)),
    "kdsnn": Pair(
        "a teacher's logits above labels alone", ("loss.teacher.run=''",), "kdsnn_teacher_small"
    ),
    "ma_snn": Pair("TCSA attention above none", ("model.overrides.attention=none",)),
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
