"""The demo: interrupted at any moment it ends with the same weights; the same seed repeats."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheobase._weights import read_tensors
from rheobase.experiments import side_by_side
from rheobase.experiments.demo import run_demo
from rheobase.train import Checkpoints, evaluate_run

NETWORKS = ("spiking", "ordinary")
STEPS = 12  # of each network in a quick demo


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of both networks' last checkpoints."""
    tensors = {}
    for network in NETWORKS:
        latest = Checkpoints(folder / network / "checkpoints", keep=2).latest()
        assert latest is not None
        found = read_tensors(latest / "model.safetensors")
        tensors |= {f"{network}.{name}": tensor for name, tensor in found.items()}
    return tensors


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def without_times(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    del results["command"]
    for network in results["networks"].values():
        del network["milliseconds_per_image"]
        for row in network["epochs"]:
            del row["seconds"]
    return results


def steps_logged(folder: Path, network: str) -> int:
    with suppress(FileNotFoundError):
        return len((folder / network / "steps.csv").read_text().splitlines()) - 1
    return 0


def interrupt_after(events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when the display has been shown that many events."""
    show: Callable[..., None] = side_by_side._Display.show
    seen = iter(range(events))

    def pressing(self: Any, name: str, event: Any) -> None:
        show(self, name, event)
        if next(seen, None) is None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(side_by_side._Display, "show", pressing)


def test_ctrl_c_saves_both_and_the_next_run_continues(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(9, patch)
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, quick=True)
    logged = {network: steps_logged(tmp_path, network) for network in NETWORKS}
    assert all(0 < count < STEPS for count in logged.values())
    assert abs(logged["spiking"] - logged["ordinary"]) <= 1
    for network, count in logged.items():
        latest = Checkpoints(tmp_path / network / "checkpoints", keep=2).latest()
        assert latest is not None and latest.name.endswith(f"step-{count:09d}")
    assert not (tmp_path / "report.html").exists()

    run_demo(tmp_path, quick=True)
    assert_same_weights(demo, tmp_path)
    assert without_times(demo) == without_times(tmp_path)


def test_a_finished_demo_is_not_trained_again(demo: Path) -> None:
    before = weights(demo)
    (demo / "report.html").unlink()
    run_demo(demo, quick=True)
    assert (demo / "report.html").exists()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(demo).items())


@pytest.mark.parametrize("network", NETWORKS)
def test_its_networks_can_be_evaluated(demo: Path, network: str) -> None:
    """On all test digits, by what the run folder itself says of data and network."""
    found = evaluate_run(demo / network)
    assert found["samples"] == 1000
    assert found["accuracy"] == found[f"accuracy_T{1 if network == 'ordinary' else 4}"]


def test_another_seed_in_the_same_folder_is_refused(demo: Path) -> None:
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        run_demo(demo, seed=1, quick=True)


@pytest.mark.long
def test_another_seed_gives_another_network(demo: Path, tmp_path: Path) -> None:
    run_demo(tmp_path, seed=1, epochs=1, quick=True)
    first, second = weights(demo), weights(tmp_path)
    assert not torch.equal(first["spiking.head.weight"], second["spiking.head.weight"])


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from rheobase.experiments.demo import run_demo
run_demo(sys.argv[1], quick=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("trial", range(3))
def test_killed_at_any_moment_it_ends_the_same(demo: Path, tmp_path: Path, trial: int) -> None:
    moment = random.Random(trial)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
        while process.poll() is None and steps_logged(tmp_path, "spiking") < 1:
            time.sleep(0.01)
        time.sleep(moment.uniform(0.0, 1.5))
        process.kill()
        process.wait()
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True)
    assert_same_weights(demo, tmp_path)
    assert without_times(demo) == without_times(tmp_path)
