"""What holds for every test."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    """Weights and inputs that a test does not seed do not depend on the tests before it."""
    torch.manual_seed(0)
