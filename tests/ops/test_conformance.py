"""The kernels against the reference: what `rheobase selftest` runs."""

import itertools

import pytest
import torch

from rheobase.neurons import NEURONS, Neuron
from rheobase.ops import conformance
from rheobase.surrogate import surrogates

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
FAST = list(conformance.cases("fast", DTYPES))
PARTS = 16

# What those neurons cannot be made without.
NEEDED = {"glif": {"T": 4}, "im_lif": {"T": 4}}


@pytest.mark.parametrize("case", FAST, ids=lambda c: f"{c.spec.key}-{c.dtype}-{c.layout}")
def test_cpu_kernel_equals_reference(case: conformance.Case) -> None:
    row = conformance.check(case, "cpu")
    assert row.spikes_differ == 0
    assert row.ok, row


@pytest.mark.long  # an hour and more of compiling in all
@pytest.mark.parametrize("part", range(PARTS))
def test_every_neuron_with_every_surrogate(part: int) -> None:
    failed = [row for row in conformance.run("pairs", part, PARTS) if not row.ok]
    assert not failed, failed


def test_rows_of_the_long_levels_come_from_processes_that_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conformance, "_ROWS_A_PROCESS", 1)
    rows = list(conformance.run("pairs", part=7, parts=900))
    assert len(rows) > 1 and all(row.ok and row.backend == "cpu" for row in rows)


def test_the_matrix_holds_every_neuron_on_the_scan() -> None:
    """Each registered neuron that runs on the scan, as it is and with either reset."""
    held = {
        kind for choices in conformance.NEURONS.values() for kind in itertools.product(*choices)
    }
    for name, make in NEURONS.items():
        if not (isinstance(make, type) and issubclass(make, Neuron) and make.scanned):
            continue
        neuron = make(**NEEDED.get(name, {}))
        kind = (neuron.spec.charge, neuron.spec.fire, neuron.spec.reset)
        assert kind in held, name


def test_the_full_matrix_is_every_neuron_surrogate_dtype_and_detachment_once() -> None:
    names = {row.name for row in surrogates()}
    kinds = {
        kind for choices in conformance.NEURONS.values() for kind in itertools.product(*choices)
    }
    full = [
        ((c.spec.charge, c.spec.fire, c.spec.reset), c.spec.surrogate, c.dtype, c.spec.detach_reset)
        for c in conformance.cases("full", DTYPES)
    ]
    assert set(full) == set(itertools.product(kinds, names, DTYPES, (False, True)))
    assert len(full) == len(set(full))
    pairs = [
        ((c.spec.charge, c.spec.fire, c.spec.reset), c.spec.surrogate)
        for c in conformance.cases("pairs", DTYPES)
    ]
    assert set(pairs) == set(itertools.product(kinds, names)) and len(pairs) == len(set(pairs))
    for level, taps in (("pairs", {None, "h", "v"}), ("full", {None, "h", "v"})):
        assert {c.tap for c in conformance.cases(level, DTYPES)} == taps  # type: ignore[arg-type]
