"""What no neuron can be made of, and what the message says then."""

import math
from typing import Any

import pytest
import torch

from rheobase.neurons import (
    DSRIF,
    DSRLIF,
    NEURONS,
    ImbalancedSignedIF,
    Neuron,
    SignedIF,
    neuron_factory,
)
from rheobase.surrogate import ATan

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("glif", {"T": 4, "gates": (0.5, 0.5)}, "three gates"),
    ("diet_lif", {"leak": 1.5}, "leak above 0 and up to 1, got 1.5"),
    ("diet_lif", {"v_threshold": 0.0}, "above 0 as v_threshold, got 0.0"),
    ("ltmd", {"v_threshold": 1.0}, r"tanh\(w\): it must be in \(0, 1\), got 1.0"),
    ("klif", {"k": 0.0}, "above 0 as k, got 0.0"),
    ("glif", {"T": 4, "tau": 1.0}, r"GLIF learns tau through a sigmoid"),
    ("clif", {"tau": 1.0}, "tau must be above 1"),
    ("clif", {"memory": "none"}, "memory must be 'plain' or 'squashed'"),
    ("refractory_lif", {"refractory": -1}, "0 or more; got -1"),
    ("alif", {"beta": -1.0}, "beta must not be negative"),
    ("alif", {"tau": 0.0}, "above 0 as tau, got 0.0"),
    ("lif", {"tau": math.inf}, "LIF takes a finite number as tau, got inf"),
    ("lif", {"v_threshold": math.inf}, "LIF takes a finite number as v_threshold, got inf"),
    ("lif", {"v_threshold": math.nan}, "LIF takes a finite number as v_threshold, got nan"),
    ("lif", {"v_reset": -math.inf}, "LIF takes a finite number or None as v_reset, got -inf"),
    ("glif", {"T": 0}, "GLIF takes .* at least 1 as T, got 0"),
    ("psn", {"T": 0}, "PSN takes .* at least 1 as T, got 0"),
    ("im_lif", {"T": 0}, "IMLIF takes .* at least 1 as T, got 0"),
    ("im_lif", {"T": 4, "reduction": 0}, "at least 1 as reduction, got 0"),
    ("cuba_lif", {"current_decay": 1.0}, r"current_decay must be in \[0, 1\), got 1.0"),
    ("ilif", {"levels": 0}, "at least 1 as levels, got 0"),
    ("gif", {"levels": 0}, "at least 1 as levels, got 0"),
    ("qif", {"tau": 0.5}, "tau must be at least 1"),
    ("qif", {"a0": 0.0}, "above 0 as a0, got 0.0"),
    ("eif", {"delta_T": 0.0}, "above 0 as delta_T, got 0.0"),
    ("adaptive_qif", {"tau_w": 0.5}, "in steps, at least 1"),
    ("adaptive_qif", {"a0": -1.0}, "above 0 as a0, got -1.0"),
    ("raf", {"b": 0.1}, "b below 0"),
    ("ternary_if", {"v_reset": -1.0}, "would fire for ever"),
    ("ternary_lif", {"tau": 0.5}, "tau must be at least 1"),
    ("imbalanced_signed_if", {"slope": 0.0}, "above 0 .* as slope, got 0.0"),
    ("signed_if", {"epsilon": 0.0}, "above 0 .* as epsilon, got 0.0"),
    ("multi_threshold", {"v_negative": -1.0}, "above 0 .* as v_negative, got -1.0"),
    ("multi_threshold", {"levels": 0}, "at least 1 as levels, got 0"),
    ("st_bif", {"highest": 0}, "lowest <= 0 < highest"),
    ("dsr_if", {"alpha": 1.5}, r"alpha must be in \(0, 1\]"),
    ("dsr_if", {"v_threshold": 0.001}, "lowest <= v_threshold"),
    ("dsr_lif", {"delta_t": 0.0}, "above 0 as delta_t, got 0.0"),
    ("masked_psn", {"T": 4, "k": 5}, "from 1 to T=4, got 5"),
    ("masked_psn", {"T": 4, "k": 2, "masking": 2.0}, "from 0 to 1, got 2.0"),
    ("sliding_psn", {"k": 0}, "at least 1 as k, got 0"),
    ("adex", {"dt": 0.0}, "above 0 as dt, got 0.0"),
    ("izhikevich", {"method": "rk5"}, "unknown integrator 'rk5'; did you mean 'rk4'"),
]


@pytest.mark.parametrize(("name", "arguments", "match"), BAD)
def test_bad_arguments_are_refused(name: str, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        NEURONS[name](**arguments)


@pytest.mark.parametrize("given", ["ATan", ATan, 2.0])
@pytest.mark.parametrize("name", ["lif", "clif", "sliding_psn", "adex"])
def test_a_surrogate_is_an_object(name: str, given: Any) -> None:
    """Its name is for `neuron_factory` and configurations."""
    needed = {"k": 2} if name == "sliding_psn" else {}
    with pytest.raises(TypeError, match=r"rheobase\.surrogate as surrogate, such as ATan\(2\.0\)"):
        NEURONS[name](**needed, surrogate=given)


@pytest.mark.parametrize(
    ("name", "option", "match"),
    [
        ("lif", "tua", "unknown option of LIF 'tua'; did you mean 'tau'"),
        ("lif", "v_treshold", "did you mean 'v_threshold'"),
        ("lsg_lif", "tau", "unknown option of LSGLIF 'tau'; known: .*decay"),
        ("sliding_psn", "T", "unknown option of SlidingPSN 'T'; known: .*surrogate"),
    ],
)
def test_the_factory_knows_what_a_neuron_takes(name: str, option: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        neuron_factory(name, **{option: 2.0})


NEEDED: dict[str, dict[str, Any]] = {
    **{name: {"T": 4} for name in ("glif", "im_lif", "psn")},
    "masked_psn": {"T": 4, "k": 2},
    "sliding_psn": {"k": 2},
}


@pytest.mark.parametrize("option", ["tau", "v_threshold", "v_reset", "strict", "surrogate", "dt"])
@pytest.mark.parametrize("name", NEURONS)
def test_the_factory_takes_what_the_neuron_takes(name: str, option: str) -> None:
    given = {option: getattr(NEURONS[name](**NEEDED.get(name, {})), option, None)}
    try:
        NEURONS[name](**NEEDED.get(name, {}) | given)
    except (TypeError, ValueError) as error:
        if "unexpected keyword" in str(error):
            with pytest.raises(ValueError, match=f"unknown option of .* '{option}'"):
                neuron_factory(name, **given)
            return
    neuron_factory(name, **given)


@pytest.mark.parametrize("learnt", [0.0, -1.0, math.nan])
@pytest.mark.parametrize(
    "make",
    [
        lambda: SignedIF(torch.tensor([1.0, 2.0])),
        lambda: ImbalancedSignedIF(v_threshold=torch.tensor([1.0, 2.0])),
        DSRIF,
        DSRLIF,
    ],
    ids=["SignedIF", "ImbalancedSignedIF", "DSRIF", "DSRLIF"],
)
def test_a_threshold_trained_out_of_its_domain_is_refused(make: Any, learnt: float) -> None:
    neuron: Neuron = make()
    x = torch.rand(4, 3, 2)
    neuron(x)
    with torch.no_grad():
        neuron.v_threshold.view(-1)[0] = learnt  # type: ignore[union-attr]
    if isinstance(neuron, DSRIF) and not math.isnan(learnt):
        return  # clamped to its lowest
    with pytest.raises(ValueError, match=r"learnt a threshold of .*, which must stay above 0"):
        neuron(x)
