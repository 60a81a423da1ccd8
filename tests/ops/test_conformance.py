"""The kernels against the reference: what `rheobase selftest` runs."""

import pytest
import torch

from rheobase.ops import conformance

FAST = list(conformance.cases(False, (torch.float32, torch.bfloat16, torch.float64)))


@pytest.mark.parametrize("case", FAST, ids=lambda c: f"{c.spec.key}-{c.dtype}-{c.layout}")
def test_cpu_kernel_equals_reference(case: conformance.Case) -> None:
    row = conformance.check(case, "cpu")
    assert row.spikes_differ == 0
    assert row.ok, row


@pytest.mark.long
def test_every_cpu_kernel_equals_reference() -> None:
    failed = [row for row in conformance.run(full=True) if not row.ok]
    assert not failed, failed
