"""How long people wait: `inv --list` against an empty tasks.py, a rehearsal, and a second run of a finished release.

Run by `nox -s bench`. Prints medians, and ratios against the baselines named in the table.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from invoke import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

EMPTY = "from invoke import task\n\n@task\ndef nothing(c):\n    pass\n"


def inv(*words: str, cwd: Path) -> None:
    """Run `inv` in `cwd`; a failure ends the benchmark with what it said."""
    ran = subprocess.run([sys.executable, "-m", "invoke", *words], cwd=cwd, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"inv {' '.join(words)} failed:\n{ran.stdout}{ran.stderr}")


def median(action: Callable[[], None], times: int) -> float:
    """Return the median of `times` runs of `action`, in seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def alternating(first: Callable[[], None], second: Callable[[], None], times: int) -> tuple[float, float]:
    """Return the medians of both, run in turns, so that the machine's moods meet both alike."""
    pairs = [(median(first, 1), median(second, 1)) for _ in range(times)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    from release_tasks import screen

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty = folder / "empty"
        empty.mkdir()
        (empty / "tasks.py").write_text(EMPTY, encoding="utf-8")
        bare, ours = alternating(lambda: inv("--list", cwd=empty), lambda: inv("--list", cwd=ROOT), max(times, 5) * 2)
        rehearsed = median(lambda: inv("rehearse", cwd=ROOT), max(times // 2, 3))
        first, again = release_twice(folder, times)
    screen.table(
        "Medians",
        ["what", "seconds", "ratio", "baseline"],
        [
            ("inv --list, empty tasks.py", f"{bare:.3f}", "1.00", ""),
            ("inv --list", f"{ours:.3f}", f"{ours / bare:.2f}", "the same with an empty tasks.py"),
            ("first run of a release", f"{first:.1f}", "1.00", ""),
            ("second run of the finished release", f"{again:.2f}", f"{again / first:.3f}", "the first run"),
            ("a whole rehearsal", f"{rehearsed:.1f}", f"{rehearsed / first:.2f}", "the first run"),
        ],
    )


def release_twice(folder: Path, times: int) -> tuple[float, float]:
    """Return the seconds of a first run, and the median of runs after it."""
    from release_tasks import rehearsal, versions
    from release_tasks.git import Git
    from release_tasks.release import settings_of

    version = versions.release_of((ROOT / "VERSION").read_text(encoding="utf-8").strip())
    config = Config(project_location=ROOT)
    config.load_project()
    settings = settings_of(config)
    clone = rehearsal.make_clone(Git.open(ROOT, settings.remote), folder, settings)
    words = ("release", "--version", version, "--yes")
    first = median(lambda: inv(*words, cwd=clone), 1)
    return first, median(lambda: inv(*words, cwd=clone), times)


if __name__ == "__main__":
    main()
