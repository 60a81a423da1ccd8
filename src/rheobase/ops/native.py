"""Kernels compiled by numba, called with tensors and numbers.

A kernel works on chunks ``first_chunk`` to ``last_chunk`` of its arrays. Around it stands a C
function of one address: at that address lie the arguments, and a counter from which each thread
takes its number. So a call from Python is one call of C, whatever the number of arguments.
"""

from __future__ import annotations

import ast
import ctypes
import gc
import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from rheobase.ops.memory import keep_freed_memory
from rheobase.ops.threads import run_team, team_size
from rheobase.ops.translate import load_module

__all__ = ["DTYPES", "Kernel", "conversions", "imported_kernel", "in_chunks"]

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
"""Of the tensors that kernels compute with, as `Kernel` names them."""

# A fixed number of chunks: sums come out the same whatever the number of threads.
_CHUNKS = 16

# The header: the next thread's number, how many threads, how many chunks.
_HEADER = 3

_NUMBERS = ("float32", "float64")
_ARRAYS = {
    "float32*": "float32",
    "float64*": "float64",
    "bfloat16*": "int16",
    "float16*": "int16",
    **{f"{whole}*": whole for whole in ("uint8", "int8", "int32", "int64")},
}


def in_chunks(size: int, block: int = 1) -> tuple[int, int]:
    """How many chunks to cut ``size`` columns into, and of how many columns: whole blocks."""
    chunk = max(1, -(-size // (_CHUNKS * block))) * block
    return -(-size // chunk), chunk


def conversions(dtype: torch.dtype) -> tuple[str, str]:
    """Names of the functions that turn what lies in memory into numbers, and back."""
    low = dtype == torch.bfloat16
    return ("bfloat16_to_float", "float_to_bfloat16") if low else ("same", "same")


Argument = Tensor | float | tuple[int, int] | None


class Kernel:
    """A numba kernel ``kernel(first_chunk, last_chunk, *parameters)`` made from source text.

    Args:
        stem: beginning of the module's name in the cache.
        source: a module's text that defines ``kernel``.
        parameters: name and kind of each, in the manner of C: "int64", "float32", "float64", or
            an array such as "float32*". Arrays are one line of memory; halves come as int16 bits.
    """

    def __init__(self, stem: str, source: str, parameters: Mapping[str, str]) -> None:
        keep_freed_memory()
        with _no_collection():
            module = load_module(stem, _provenance(source) + source + _entry(parameters))
        self._module = module  # owns the compiled code
        self._entry: Callable[[int], None] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
            module.entry.address
        )
        layout = {"int64": "q", **dict.fromkeys(_NUMBERS, "d")}
        self._pack = struct.Struct(
            "=" + "q" * _HEADER + "".join(layout.get(kind, "qq") for kind in parameters.values())
        ).pack

    def __call__(self, chunks: int, traffic: int, *arguments: Argument) -> None:
        """Do all chunks; ``traffic`` (bytes) says whether threads are worth it.

        For an array give a tensor, of whatever shape, or its address and how many numbers there
        are, or None: it is then empty.
        """
        threads = team_size(chunks, traffic)
        words: list[float] = [0, threads, chunks]
        for value in arguments:
            # Of a number it takes long to ask whether it is a tensor.
            if type(value) is int or type(value) is float:
                words.append(value)
            elif value is None:
                words += (0, 0)
            elif isinstance(value, tuple):
                words += value
            elif isinstance(value, Tensor):
                words += (value.data_ptr(), value.numel())
            else:
                words.append(value)
        memory = ctypes.create_string_buffer(self._pack(*words))
        run_team(self._entry, ctypes.addressof(memory), threads)


def imported_kernel(module: str, name: str, parameters: Mapping[str, str]) -> Kernel:
    """The kernel that is a function of one of our modules.

    Args:
        module: within `rheobase.ops`.
        name: of the function, whose first arguments are the chunks.
        parameters: those that follow, as `Kernel` takes them.
    """
    source = f"from rheobase.ops.{module} import {name} as kernel"
    return Kernel(f"{module.partition('.')[0]}_{name}", source, parameters)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: a sixth of the time that numba takes, and none to be found."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _provenance(source: str) -> str:
    """A comment that changes with what the compiled code may have taken in.

    numba keeps a module's compiled code until that module's text changes, and does not look at the
    modules that it imports.
    """
    files = sorted(_imported_by(source))
    text = b"".join(file.read_bytes() for file in files)
    return f"# helpers {hashlib.sha256(text).hexdigest()[:16]}\n"


def _imported_by(source: str) -> set[Path]:
    """Our modules that a module's text imports, and those that they import."""
    found: set[Path] = set()
    texts = [source]
    while texts:
        for name in _imports(texts.pop()):
            file = _file_of(name)
            if file not in found:
                found.add(file)
                texts.append(file.read_text(encoding="utf-8"))
    return found


@cache  # what many kernels import is parsed once
def _imports(source: str) -> frozenset[str]:
    """The names of our modules that a module's text imports."""
    statements = ast.walk(ast.parse(source))
    names = {s.module for s in statements if isinstance(s, ast.ImportFrom) and s.module}
    return frozenset(name for name in names if name.startswith("rheobase.ops."))


def _file_of(module: str) -> Path:
    path = Path(__file__).parent.joinpath(*module.split(".")[2:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _entry(parameters: Mapping[str, str]) -> str:
    """The text of the C function around ``kernel``."""
    word = count(_HEADER)
    values = []
    for kind in parameters.values():
        if kind == "int64":
            values.append(f"words[{next(word)}]")
        elif kind in _NUMBERS:
            values.append(f"np.{kind}(numbers[{next(word)}])")
        else:
            place, size, dtype = next(word), next(word), _ARRAYS[kind]
            values.append(f"carray(pointer(words[{place}]), (words[{size}],), np.{dtype})")
    total = next(word)
    lines = ",\n               ".join(values)
    return f"""

import numpy as np
from numba import carray, cfunc
from rheobase.ops.numba_lang import pointer, prefer_wide_vectors, take_number


@cfunc("void(voidptr)", cache=True, error_model="numpy")
def entry(call):
    prefer_wide_vectors()
    words = carray(call, ({total},), np.int64)
    numbers = carray(call, ({total},), np.float64)
    threads, chunks = words[1], words[2]
    while True:
        i = take_number(call)
        if i >= threads:
            break
        kernel(chunks * i // threads, chunks * (i + 1) // threads,
               {lines})
"""
