"""The benchmarks can be run: nothing else that is run every day imports them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", sorted((ROOT / "bench").glob("*.py")), ids=lambda script: script.stem)
def test_a_benchmark_finds_all_that_it_measures(script: Path) -> None:
    """One had lost a name that had moved, and with it ended `nox -s bench`."""
    ran = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
