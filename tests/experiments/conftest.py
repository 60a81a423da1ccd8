from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rheobase.experiments.demo import run_demo


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Threads only slow these small tensors down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """The folder of a quick demo, trained without interruption."""
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, quick=True)
    return folder
