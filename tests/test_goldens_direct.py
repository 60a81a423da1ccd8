"""No golden of ``direct`` is passed over in silence; what others bring may be skipped, by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens")) / "direct"
# What test_goldens_*.py take; each then names the kinds that it does not know.
TAKEN = (
    "attn_",
    "brian_",
    "loss_",
    "model_ms",
    "model_s",
    "neuron_",
    "norm_",
    "official_",
    "online_",
    "stdp_",
    "surrogates_",
)


def test_every_file_is_taken() -> None:
    left = [path.stem for path in sorted(FOLDER.glob("*.npz")) if not path.name.startswith(TAKEN)]
    if left and "RHEOBASE_GOLDENS" in os.environ:
        pytest.skip(f"no test takes {', '.join(left)}")
    assert not left
