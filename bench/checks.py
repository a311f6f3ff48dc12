"""How long the whole suite takes against its slowest member: the sample's smokes and section 7.2, on an embedded dev.

Run by `nox -s bench`. Each round asks every check alone, then all at once, as `inv smokes` and `inv accept` do, each
time in a new process of pytest. Prints medians, and the ratio of all at once to the slowest one alone, the baseline.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from invoke import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import acceptance, asking, screen, smokes  # noqa: E402
from release_tasks.checks.place import Asked, Place  # noqa: E402
from release_tasks.checks.verdict import PASS  # noqa: E402
from release_tasks.release import Release, settings_of  # noqa: E402


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    config = Config(project_location=str(ROOT))
    config.load_project()
    release = Release("0.1.1-dev", ROOT, settings_of(config))
    release.options, release.only_looks = {"where": "dev"}, True
    try:
        with TemporaryDirectory() as kept:
            dev = release.here
            place = replace(acceptance.place_of(release, dev), kept=kept)
            own = smokes.asked_of(release.settings.smokes, place, "7.1")
            suites = {"smokes": own, "section 7.2": place.asked, "both": (*own, *place.asked)}
            rounds = [measure(place, suites) for _ in range(times)]
    finally:
        release.close()
    rows = []
    for name, asked in suites.items():
        alone = {each.name: statistics.median(one[each.name] for one in rounds) for each in asked}
        slowest = max(alone, key=lambda each: alone[each])
        whole, summed = statistics.median(one[f"all of {name}"] for one in rounds), sum(alone.values())
        rows.append(
            (
                name,
                len(asked),
                f"{whole:.2f}",
                f"{whole / alone[slowest]:.2f}",
                f"{slowest} alone, {alone[slowest]:.2f} s",
                f"{whole / summed:.2f}",
            )
        )
    screen.table("All at once", ["what", "checks", "seconds", "ratio", "baseline: the slowest", "to one by one"], rows)


def measure(place: Place, suites: dict[str, tuple[Asked, ...]]) -> dict[str, float]:
    """Return the seconds of each check alone, and of each suite at once."""
    found = {each.name: timed(lambda each=each: pass_all(place, (each,))) for each in suites["both"]}
    return found | {
        f"all of {name}": timed(lambda asked=asked: pass_all(place, asked)) for name, asked in suites.items()
    }


def pass_all(place: Place, asked: tuple[Asked, ...]) -> None:
    """Ask the checks; one that does not pass ends the benchmark."""
    failed = [each for each in asking.ask(replace(place, asked=asked)) if each.verdict != PASS]
    if failed:
        raise SystemExit(f"{failed[0].name} is no pass: {failed[0].words}")


def timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
