"""Section 7.2: a gate waits while a deployment settles, no longer, and only judges what was deployed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release_tasks.acceptance import answer_api_ok, hold, render_all_views
from release_tasks.environments import Environment
from release_tasks.errors import NotYet, Problem, Refused
from release_tasks.links import point_link
from release_tasks.steps import DONE, LATER, REFUSED, Outcome

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Web, Work

TROUBLE = [Problem("It is still warming up.")]


@pytest.fixture
def deployed(work: Work, web: Web, tmp_path: Path) -> Callable[..., Release]:
    """Return what makes a release that was deployed to staging `age` seconds ago and runs there."""

    def deployed(age: float, wait: float = 60) -> Release:
        staging = {"dsn": "dbname=none", "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
        acceptance = {"wait": wait, "views": ["/"]}
        release = work.release(environments={"staging": staging}, acceptance=acceptance)
        release.options = {"where": "staging"}
        marker = work.root / "srv" / "releases" / "v0.1.1.json"
        marker.parent.mkdir(parents=True, exist_ok=True)
        point_link(work.root / "srv" / "current", marker.with_suffix(""))
        marker.write_text(json.dumps({"commit": "x", "began_unix": time.time() - age, "log_offset": 0}))
        web.be(release.version)
        return release

    return deployed


@pytest.mark.parametrize("name", ["fresh", "gaps"])
def test_a_check_on_nothing_is_refused_before_anything_changes_unless_it_is_waived(work: Work, name: str) -> None:
    with pytest.raises(Refused, match=f"release.acceptance.{name} is empty"):
        hold(work.release(), name, lambda _: [])
    waived = work.release(acceptance={"waived": {name: "it has no series"}})
    assert hold(waived, name, lambda _: TROUBLE) == "waived: it has no series"


def seen(*answers: list[Problem]) -> tuple[Callable[[Environment], list[Problem]], Iterator[list[Problem]]]:
    """Return a check that gives these answers, one a call, and what is left of them."""
    left = iter(answers)
    return lambda _: next(left), left


def test_a_settled_deployment_is_judged_at_once(deployed: Callable[..., Release]) -> None:
    check, left = seen(TROUBLE, [])
    with pytest.raises(Refused, match="still warming up"):
        hold(deployed(age=61), "views", check)
    assert list(left) == [[]]


def test_a_fresh_deployment_gets_its_time_to_settle(deployed: Callable[..., Release]) -> None:
    check, left = seen(TROUBLE, [], TROUBLE)
    hold(deployed(age=0), "views", check)
    assert list(left) == [TROUBLE]


def test_what_does_not_settle_in_time_is_refused(deployed: Callable[..., Release]) -> None:
    began = time.monotonic()
    with pytest.raises(Refused, match="still warming up"):
        hold(deployed(age=0, wait=0.5), "views", lambda _: TROUBLE)
    assert 0.4 < time.monotonic() - began < 10


def test_what_runs_is_another_version_is_not_judged(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(age=0)
    web.be("0.1.0")
    with pytest.raises(NotYet, match="after the release runs here"):
        hold(release, "views", lambda _: [])


def test_the_gates_answer_as_steps(deployed: Callable[..., Release], web: Web, take: Callable[..., Outcome]) -> None:
    release = deployed(age=61)
    assert (take(answer_api_ok, release).state, take(render_all_views, release).state) == (DONE, REFUSED)
    web.answers["/"] = (200, "<main></main>")
    web.answers["/api/health"] = (503, "")
    assert (take(answer_api_ok, release).state, take(render_all_views, release).state) == (REFUSED, DONE)
    web.be("0.1.0")
    assert take(answer_api_ok, release, change=False).state == LATER
