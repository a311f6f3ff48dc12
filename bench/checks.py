"""How long the sample's smokes and section 7.2 take against their slowest member, on an embedded dev.

Run by `nox -s bench`. Each round runs all, as `inv smokes` and `inv accept` do, in new processes of pytest.
Prints medians, and the ratio of the whole to its slowest test, the baseline.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from invoke.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import screen, suites  # noqa: E402
from release_tasks.checks import Target, deployed, runner  # noqa: E402
from release_tasks.embedded import environment_of  # noqa: E402
from release_tasks.outcome import Result  # noqa: E402


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    config = Config(project_location=ROOT)
    config.load_project()
    acceptance = [Path(deployed.__file__), *sorted((ROOT / "acceptance").glob("test_*.py"))]
    rows = []
    with environment_of(config, "dev", services=True) as dev, TemporaryDirectory() as folder:
        target = runner.target_of(dev, "0.1.1-dev")
        for name, files in {"smokes": suites.smokes_of(ROOT), "section 7.2": acceptance}.items():
            rounds = [timed(target, files, Path(folder)) for _ in range(times)]
            seconds, results = statistics.median(took for took, _ in rounds), rounds[-1][1]
            members = {(each.file, each.test) for each in results}
            medians = {
                member: statistics.median(seconds_of(member, found) for _, found in rounds) for member in members
            }
            slowest = max(medians, key=lambda member: medians[member])
            baseline = f"{' '.join(slowest)}, {medians[slowest]:.2f} s"
            rows.append((name, len(results), f"{seconds:.2f}", f"{seconds / medians[slowest]:.2f}", baseline))
    screen.table("Checks", ["what", "tests", "seconds", "ratio", "baseline: the slowest"], rows)


def timed(target: Target, files: Sequence[Path], folder: Path) -> tuple[float, list[Result]]:
    """Run `files`; a test that does not pass ends the benchmark."""
    began = time.perf_counter()
    results = runner.run(target, files, folder / "kept")
    if failed := [each for each in results if not each.is_pass]:
        raise SystemExit(f"{failed[0].name}: {failed[0].message}")
    return time.perf_counter() - began, results


def seconds_of(member: tuple[str, str], results: Sequence[Result]) -> float:
    return sum(each.seconds for each in results if (each.file, each.test) == member)


if __name__ == "__main__":
    main()
