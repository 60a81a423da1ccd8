"""The benchmarks are a package at the root of the repository, not an installed one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
