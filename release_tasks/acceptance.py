"""Section 7.2: the release proceeds only if these hold on staging; one gate a bullet of the process.

A bullet is made of the checks of its kind. All of them are asked at once, by the first gate that needs them, and again
only after something has changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, get_args

from release_tasks import asking, screen
from release_tasks.checks import looking
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import PASS, Result, Unknown, Wrong
from release_tasks.database.pack import pack_at
from release_tasks.deployment import deployment_of, stamped_at
from release_tasks.environments import Environment, in_turn
from release_tasks.errors import NotYet, Problem, Refused, refuse
from release_tasks.files import records_folder
from release_tasks.kinds import Check, Keyed, Listed, Page, Version
from release_tasks.processes.links import read_link
from release_tasks.release import Release, until_live

SECTION = "7.2"
BULLETS = {
    "version": "API OK",
    "http": "API OK",
    "page": "UI renders all views",
    "fresh": "Sampling and matrices are fresh",
    "gaps": "No gaps in ingest",
    "log": "No SQL warnings in server logs",
}
KINDS = get_args(Listed)
MEND = "to look again; then the same command goes on, and nothing is deployed again"
BETWEEN = 2.0  # seconds between two looks of a watch


@until_live
def answer_api_ok(release: Release) -> str:
    """API OK."""
    return hold(release, "http")


@until_live
def render_all_views(release: Release) -> str:
    """UI renders all views."""
    return hold(release, "page")


@until_live
def have_fresh_data(release: Release) -> str:
    """Sampling and matrices are fresh."""
    return hold(release, "fresh")


@until_live
def have_no_gaps(release: Release) -> str:
    """No gaps in ingest."""
    return hold(release, "gaps")


@until_live
def log_no_sql_warnings(release: Release) -> str:
    """No SQL warnings in server logs."""
    return hold(release, "log")


def hold(release: Release, kind: Listed) -> str:
    """Pass the checks of the bullet that `kind` belongs to; return what they saw in a few words.

    A kind that has nothing to look at is refused before anything changes, unless it is waived with a reason.
    """
    refuse_an_empty_list(release, kind)
    verdict = verdict_on(release, release.here)
    mine = [each for each in verdict.results if each.bullet == BULLETS[kind]]
    refuse(asking.problems_in(mine, release.here.name, "check", f"inv accept --env {release.here.name}   # {MEND}"))
    words = [f"{each.name}: {each.words}" if each.words else each.name for each in mine]
    reason = release.settings.acceptance.waived.get(kind)
    return "; ".join([*words, *([f"waived: {reason}"] if reason else [])])


def refuse_an_empty_list(release: Release, kind: Listed) -> None:
    """Raise `Refused` where no check of `kind` is set, and nobody said why."""
    settings = release.settings.acceptance
    if not getattr(settings, kind) and kind not in settings.waived:
        raise Refused(
            f"release.acceptance.{kind} is empty; a check on nothing passes nothing.",
            f"Set it in invoke.yaml, or say why not: release.acceptance.waived.{kind}",
        )


@dataclass(frozen=True)
class Verdict:
    """What section 7.2 came to: of which commit, when, and each check's result."""

    commit: str
    at: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(each.verdict == PASS for each in self.results)

    @property
    def essence(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What a person's word on it is about: the commit, and each check with its verdict."""
        return self.commit, tuple((each.name, each.verdict) for each in self.results)

    def __str__(self) -> str:
        passed = sum(each.verdict == PASS for each in self.results)
        return f"{passed} of {len(self.results)} checks of section 7.2 pass at {self.at}, on commit {self.commit:.9}"


def verdict_on(release: Release, here: Environment) -> Verdict:
    """Return what all checks of section 7.2 say of the release that runs here; asked once until something changes."""
    if release.verdict is None:
        if not here.runs(release):
            raise NotYet(f"after the release runs on {here.name}")
        if release.settings.stamp.command and not stamped_at(release, here):
            raise NotYet(f"after the session is stamped on {here.name}")
        place = place_of(release, here)
        results = tuple(asking.ask(place, section=SECTION))
        at = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        release.verdict = Verdict(place.commit, at, results)
        release.keep_results(f"acceptance-{here.name}", here.name, results, commit=place.commit, at=at)
    found: Verdict = release.verdict
    return found


def place_of(release: Release, here: Environment, wait: float | None = None) -> Place:
    """Return `here` with the checks of section 7.2, and what should run there.

    Each check may wait for what is left of the time that a deployment gets to settle, or `wait` seconds.
    """
    settings = release.settings
    deployment = deployment_of(release, here)
    deployed = deployment["commit"]
    if wait is None:
        wait = max(0.0, settings.acceptance.wait - (time.time() - deployment.get("began_unix", 0.0)))
    facts: dict[str, Any] = {}
    if deployed:
        pack = pack_at(release.git, deployed, settings)
        facts = {
            "commit": deployed,
            "began": deployment["began"],
            "positions": deployment.get("positions", {}),
            "stamp_log": settings.stamp.log if settings.stamp.command else "",
            "stamp_flags": settings.stamp.flags,
            "ledger": settings.ddl.ledger,
            "pack": {file.path: file.sha256 for file in pack},
        }
    place = asking.place_of(here, release.version, release.kept(f"acceptance-{here.name}"), **facts)
    return replace(place, asked=tuple(_asked(release, wait)))


def _asked(release: Release, wait: float) -> Iterator[Asked]:
    """Yield the checks of section 7.2 as they are asked, under names that differ."""
    acceptance = release.settings.acceptance
    entries = [Version(), *(entry for kind in KINDS for entry in getattr(acceptance, kind))]
    names: list[str] = []
    for entry in entries:
        for check in _singles(entry):
            for turn in check.turns:
                name = check.why or check.title
                names.append(name)
                again = ", again" if turn == max(check.turns) > min(check.turns) else ""
                again = again or (f" ({names.count(name)})" if names.count(name) > 1 else "")
                patience = wait if check.wait is None else check.wait
                yield Asked(name + again, SECTION, BULLETS[check.kind], check, patience, turn)


def _singles(check: Check) -> list[Check]:
    """Return a check for each view that one entry names."""
    if isinstance(check, Page) and len(check.path) > 1:
        return [check.model_copy(update={"path": [path], "why": ""}) for path in check.path]
    return [check]


def asking_problems(release: Release, dev: Environment) -> list[Problem]:
    """Return why checks of section 7.2 cannot be asked, as far as dev can tell; what they answer there is no matter."""
    problems = []
    place = asking.place_of(dev, release.version, release.kept("acceptance-dev"))
    for asked in _asked(release, 0.0):
        if isinstance(asked.check, Keyed):
            try:
                with suppress(Wrong):
                    looking.look_of(asked.check)(asked.check, place, {}, asked)
            except Unknown as no:
                problems.append(Problem(f"{asked.name} cannot be asked on dev: {no}", no.mend))
    return problems


def report(config: Any, where: str, version: str | None, watch: str | None, as_json: bool) -> None:
    """Ask the checks of section 7.2 in the environment `where`, outside a release, and show a table.

    With `watch` they are asked again until all pass or that many seconds are over. Raises `Refused` otherwise.
    """
    from release_tasks.release import project_root, settings_of, version_here

    screen.for_machines(as_json)
    settings, root, seconds = settings_of(config), project_root(config), _seconds(watch)
    with in_turn(where, root, settings):
        release = Release(version or version_here(root), root, settings)
        try:
            release.options, release.only_looks = {"where": where}, True
            if version is None and where != "dev" and (code := read_link(release.here.current)):
                release.version = code.name.removeprefix("v")
            title = f"Section 7.2 on {where}, version {release.version}"
            results = _asked_again(release, title, seconds)
        finally:
            release.close()
    asking.keep(records_folder(root) / "checks" / f"acceptance-{where}", results)
    if as_json:
        screen.as_json(results)
    else:
        asking.show(title, results)
        for kind, reason in settings.acceptance.waived.items():
            screen.say(f"Waived: {BULLETS[kind]} ({kind}): {reason}")
    refuse(asking.problems_in(results, where, "check", f"inv accept --env {where}"))


def _seconds(watch: str | None) -> float:
    """Return the seconds that `--watch` names, 0 without it. Raises `Refused`."""
    if watch is None:
        return 0.0
    with suppress(ValueError):
        if 0 < float(watch) < float("inf"):
            return float(watch)
    raise Refused(f"--watch says {watch!r}; expected seconds.", "--watch 120")


def _asked_again(release: Release, title: str, seconds: float) -> Sequence[Result]:
    """Ask until all pass or `seconds` are over, with a table that follows; once where there are none."""
    for kind in KINDS:
        refuse_an_empty_list(release, kind)
    if not seconds:
        with screen.busy(f"Asking {title}"):
            return asking.ask(place_of(release, release.here), section=SECTION)
    deadline = time.monotonic() + seconds
    with screen.live(title, asking.COLUMNS) as draw:
        while True:
            results = asking.ask(place_of(release, release.here, wait=0.0), section=SECTION)
            left = [each.name for each in results if each.verdict != PASS]
            if not left or time.monotonic() + BETWEEN > deadline:
                return results
            passed = len(results) - len(left)
            draw(asking.rows_of(results), f"{passed} of {len(results)} pass, not yet {', '.join(left)}")
            time.sleep(BETWEEN)
