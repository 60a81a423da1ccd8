from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import train_killed

SCRIPT = Path(train_killed.__file__)


def alone(folder: Path, kill_at: int = 0) -> int | None:
    """Train in a process of its own; return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_killed"])  # imports once for all processes
    process = context.Process(target=train_killed.main, args=(folder, "ddp", kill_at))
    process.start()
    process.join(300)
    return process.exitcode


def test_killed_and_run_again_ends_the_same_bit_for_bit(tmp_path: Path) -> None:
    assert alone(tmp_path / "whole") == 0
    step = random.randint(2, 11)
    assert alone(tmp_path / "killed", kill_at=step) == -signal.SIGKILL
    assert alone(tmp_path / "killed", kill_at=step) == 0
    for name in ("steps.csv", "final.safetensors"):
        whole, pieces = ((tmp_path / part / name).read_bytes() for part in ("whole", "killed"))
        assert whole == pieces, f"{name} differs after a kill at step {step}"


def torchrun(folder: Path, strategy: str, kill_at: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=2"]
    command += ["--nproc-per-node=2", str(SCRIPT), str(folder), strategy, str(kill_at)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_rank_is_restarted_with_the_same_losses(tmp_path: Path, strategy: str) -> None:
    torchrun(tmp_path / "whole", strategy)
    torchrun(tmp_path / "killed", strategy, kill_at=6)
    assert (tmp_path / "killed.mark").exists()
    whole, pieces = ((tmp_path / part / "steps.csv").read_text() for part in ("whole", "killed"))
    assert whole == pieces and whole.count("\n") == 13
