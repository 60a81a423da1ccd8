"""The import rules of docs/architecture.md: the page's table of floors is what is enforced."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "rheobase"
HEAVY = [
    "h5py", "jsonargparse", "kornia", "matplotlib", "numba", "rich", "tensorboard", "torchdata",
    "torchmetrics", "triton", "yaml",
]  # fmt: skip


def read_floors() -> dict[str, int]:
    """Entry -> floor, from the rows of the page whose first cell is a number."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## The floors")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", section, re.MULTILINE)
    return {name: int(floor) for floor, cell in rows for name in re.findall(r"`([\w.]+)`", cell)}


FLOORS = read_floors()


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def entry_of(module: str) -> str:
    """The table's entry that a module belongs to: the longest that it starts with."""
    if module == "rheobase":
        return "rheobase"
    inside = module.removeprefix("rheobase.")
    found = [name for name in FLOORS if inside == name or inside.startswith(f"{name}.")]
    assert found, f"{module} has no floor in docs/architecture.md"
    return max(found, key=len)


def imported_modules(text: str) -> Iterator[str]:
    """The modules of rheobase that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            if node.module and is_ours(node.module):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in MODULES else node.module


def is_ours(module: str) -> bool:
    return module == "rheobase" or module.startswith("rheobase.")


def breaks(module: str, text: str) -> list[str]:
    """What a module imports against the rules."""
    mine = entry_of(module)
    return [
        f"{module} (floor {FLOORS[mine]}) imports {other} (floor {FLOORS[entry_of(other)]})"
        for other in imported_modules(text)
        if entry_of(other) != mine and FLOORS[entry_of(other)] >= FLOORS[mine]
    ]


def test_the_table_is_read_whole():
    assert len(set(FLOORS.values())) == 14
    assert {"cli", "ops", "ops.lang", "neurons", "models"} <= set(FLOORS)


@pytest.mark.parametrize("module", list(MODULES))
def test_imports_go_down_only(module):
    assert breaks(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("rheobase.neurons.base", "from rheobase.layers.time import over_time"),
        ("rheobase.surrogate.base", "def f():\n    from rheobase.ops.scan import scan"),
        ("rheobase.layers.time", "import rheobase.models"),
        ("rheobase.data.mnist", "from rheobase import train"),
        ("rheobase.models.registry", "from rheobase.measure import energy"),
        ("rheobase.ops.scan.op", "from rheobase import streaming"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_seen(module, text):
    assert len(breaks(module, text)) == 1


def test_imports_that_go_down_are_allowed():
    text = "from rheobase.ops import lang\nfrom rheobase import surrogate\nimport torch\n"
    assert breaks("rheobase.ops.scan.spec", text) == []


def newly_imported(statements: str) -> set[str]:
    code = f"import sys, torch\nbefore = set(sys.modules)\n{statements}\n"
    code += "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_rheobase_loads_nothing_heavy():
    face = (
        "import rheobase\nrheobase.neurons, rheobase.layers, rheobase.surrogate, rheobase.streaming"
    )
    loaded = newly_imported(face)
    assert "rheobase" in loaded
    assert loaded.isdisjoint(HEAVY)
