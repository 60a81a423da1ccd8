"""The neuron scan: charge, fire, reset over a whole sequence, in one pass over memory."""

from rheobase.ops.scan.learnt import LearntCoefficients
from rheobase.ops.scan.op import (
    InputNorm,
    Step,
    available_backends,
    prepared_step,
    scan,
    scan_to_bytes,
    takes_norm,
    use_backend,
)
from rheobase.ops.scan.reference import scan_reference
from rheobase.ops.scan.spec import ScanSpec

__all__ = [
    "InputNorm",
    "LearntCoefficients",
    "ScanSpec",
    "Step",
    "available_backends",
    "prepared_step",
    "scan",
    "scan_reference",
    "scan_to_bytes",
    "takes_norm",
    "use_backend",
]
