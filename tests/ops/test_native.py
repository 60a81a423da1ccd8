"""Compiled kernels are kept between runs, for as long as nothing that they took in changes."""

from pathlib import Path

import pytest

from rheobase.ops import native


def stamp_with(monkeypatch: pytest.MonkeyPatch, changed: str) -> str:
    """What a Winograd kernel's text is stamped with after one of our files has changed."""
    read = Path.read_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda file: read(file) + b"#" * (file.name == changed))
        return native._provenance("from rheobase.ops.winograd.cpu import forward as kernel")


@pytest.mark.parametrize(
    ("changed", "compiled_anew"),
    [
        ("cpu.py", True),  # which it imports
        ("numba_lang.py", True),  # which that imports
        ("bits.py", False),
        ("nothing", False),
    ],
)
def test_a_kernel_is_compiled_anew_when_what_it_takes_from_changes(
    monkeypatch: pytest.MonkeyPatch, changed: str, compiled_anew: bool
) -> None:
    before = stamp_with(monkeypatch, "")
    assert (stamp_with(monkeypatch, changed) != before) == compiled_anew


def test_packages_are_followed_too() -> None:
    found = native._imported_by("from rheobase.ops.lookup.rows import encode as kernel")
    assert {"rows.py", "sums.py", "__init__.py"} <= {file.name for file in found}
