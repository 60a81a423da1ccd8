"""The catalog claims nothing that cannot be called and no test that does not exist."""

from __future__ import annotations

import ast
import shlex
from collections import Counter
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch

from rheobase import cli
from rheobase.catalog import STATUSES, System, groups, systems
from rheobase.neurons import neuron_factory

ROOT = Path(__file__).parents[1]
SYSTEMS = systems()
CLAIMED = [system for system in SYSTEMS if system.status != "open"]


def by_id(system: System) -> str:
    return system.id


def test_every_row_of_the_surveys_is_there_once():
    assert Counter(system.group for system in SYSTEMS) == {
        "neurons": 18, "surrogates": 9, "normalization": 6, "training": 18, "attention": 3,
        "conversion": 15, "cnns": 10, "transformers": 42, "hardware": 6, "metrics": 10,
        "applications": 5, "experiments": 6,
    }  # fmt: skip
    assert len({system.id for system in SYSTEMS}) == len(SYSTEMS) == 148


def test_filters():
    assert groups()[0] == "neurons"
    assert [s.id for s in systems(group="attention")] == ["ta_snn", "stsc_snn", "ma_snn"]
    assert all(s.status == "open" for s in systems(status="open"))
    with pytest.raises(ValueError, match="did you mean 'transformers'"):
        systems(group="transformer")


@pytest.mark.parametrize("system", SYSTEMS, ids=by_id)
def test_every_row_is_complete(system):
    assert system.status in STATUSES
    assert system.name
    assert system.paper
    if system.status == "open":
        assert not system.evidence, "what has evidence is at least partial"
    else:
        assert system.entry, "what is claimed can be called"
    if system.status == "works":
        assert system.evidence, "what works has a test that shows it"


def test_models_without_public_code_say_what_is_uncertain():
    """In the catalog and in the docstring of their module."""
    marked = {system.id: system for system in SYSTEMS if system.uncertain}
    assert marked.keys() == {
        "spikformer_lt", "spiking_vit_dts", "spikformer_v2", "dista", "mast", "te_spikformer",
        "smmt", "spiking_physformer", "spiking_conformer", "sdit",
    }  # fmt: skip
    for id, system in marked.items():
        text = (ROOT / f"src/rheobase/models/{id}.py").read_text(encoding="utf-8")
        docstring = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
        assert "reconstruction" in docstring and "hosen here" in docstring
        assert f"(a reconstruction; uncertain: {system.uncertain})" in system.row()["name"]


def _made_of(system: System) -> str:
    """The class that the row's entry names."""
    return system.entry.partition("(")[0].rpartition(".")[2]


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.group == "neurons"], ids=by_id)
def test_neurons_are_found_by_id(system):
    needs = {"T": 4} if system.entry.endswith("(T=4)") else {}
    assert type(neuron_factory(system.id, **needs)()).__name__ == _made_of(system)


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.group == "surrogates"], ids=by_id)
def test_surrogates_are_found_by_id(system):
    if system.id == "lsg":  # a surrogate that is one with its neuron
        assert type(neuron_factory("lsg_lif")()).__name__ == _made_of(system)
        return
    surrogate = neuron_factory("lif", surrogate=system.id)().surrogate
    assert type(surrogate).__name__ == _made_of(system)


@pytest.mark.parametrize("system", CLAIMED, ids=by_id)
def test_every_entry_can_be_called(system):
    if system.entry.startswith("rheobase "):
        cli._parser().parse_args(shlex.split(system.entry)[1:])
        return
    expression = ast.parse(system.entry, mode="eval").body
    if isinstance(expression, ast.Call):
        called(expression)
    else:
        assert callable(resolve_name(system.entry))


def called(call: ast.Call) -> Any:
    function = resolve_name(ast.unparse(call.func))
    arguments = [ast.literal_eval(argument) for argument in call.args]
    keywords = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
    with torch.device("meta"):  # a large model costs nothing
        return function(*arguments, **keywords)


@pytest.mark.parametrize("system", CLAIMED, ids=by_id)
def test_every_evidence_exists(system):
    for node in system.evidence:
        path, function = node.split("::")
        assert path.startswith("tests/")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        names = {item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef)}
        assert function in names, f"{path} has no {function}"
