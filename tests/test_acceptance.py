"""Section 7.2: a gate waits while a deployment settles, no longer, and only judges what was deployed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks import acceptance
from release_tasks.acceptance import BULLETS, answer_api_ok, hold, render_all_views
from release_tasks.checks.verdict import FAIL, PASS
from release_tasks.errors import NotYet, Refused
from release_tasks.processes.links import point_link
from release_tasks.production import confirm_production
from release_tasks.steps import DONE, LATER, REFUSED, TO_DO, Outcome

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Web, Work

ROOT = Path(__file__).resolve().parents[1]
WAIVED = {"page": "no script", "fresh": "no rows", "gaps": "no rows", "log": "no log here"}


@pytest.fixture
def deployed(work: Work, web: Web, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Release]:
    """Return what makes a release that was deployed to staging `age` seconds ago, and runs there."""

    def deployed(age: float = 61, wait: float = 60, **checks: Any) -> Release:
        place = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
        settings = {"log": [], "waived": WAIVED, "wait": wait, **checks}
        release = work.release(environments={"staging": place, "production": place}, acceptance=settings)
        release.options = {"where": "staging"}
        release.only_looks = True
        marker = work.root / "srv" / "releases" / "v0.1.1.json"
        marker.parent.mkdir(parents=True, exist_ok=True)
        (marker.parent / "v0.1.1").mkdir(exist_ok=True)
        point_link(work.root / "srv" / "current", marker.with_suffix(""))
        marker.write_text(json.dumps({"commit": None, "began_unix": time.time() - age}))
        web.be(release.version)
        return release

    return deployed


@pytest.mark.parametrize("kind", acceptance.KINDS)
def test_a_check_on_nothing_is_refused_before_anything_changes_unless_it_is_waived(work: Work, kind: str) -> None:
    release = work.release(acceptance={kind: []})
    release.options = {"where": "staging"}
    with pytest.raises(Refused, match=f"release.acceptance.{kind} is empty; a check on nothing passes nothing"):
        hold(release, kind)


def test_what_was_waived_is_told_with_its_reason(deployed: Callable[..., Release]) -> None:
    assert hold(deployed(), "gaps") == "waived: no rows"


def test_every_bullet_of_the_process_is_a_gate_by_its_name() -> None:
    text = (ROOT / "docs" / "RELEASE_PROCESS.md").read_text(encoding="utf-8")
    text = text.partition("### 7.2 ")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^- (.+?)\.? \*checked\*", text) == list(dict.fromkeys(BULLETS.values()))


def test_a_settled_deployment_is_judged_at_once(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(age=61)
    web.answers["/api/health"] = (200, '{"ok": false}')
    with pytest.raises(Refused, match=r"The check /api/health fails on staging: .*ok"):
        hold(release, "http")


def test_a_fresh_deployment_gets_its_time_to_settle(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(age=0)
    web.answers["/api/health"] = (503, "")
    web.later["/api/health"] = (200, '{"ok": true}')
    assert "200" in hold(release, "http")


def test_what_does_not_settle_in_time_is_refused(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(age=0, wait=3)
    web.answers["/api/health"] = (503, "")
    with pytest.raises(Refused, match=r"asked \d times"):
        hold(release, "http")


def test_what_runs_is_another_version_is_not_judged(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed()
    web.be("0.1.0")
    with pytest.raises(NotYet, match="after the release runs on staging"):
        hold(release, "http")


def test_the_gates_answer_as_steps(deployed: Callable[..., Release], web: Web, take: Callable[..., Outcome]) -> None:
    release = deployed()
    assert take(answer_api_ok, release).state == DONE
    web.answers["/api/health"] = (503, "")
    assert (take(answer_api_ok, release).state, take(render_all_views, release).state) == (REFUSED, DONE)
    web.be("0.1.0")
    assert take(answer_api_ok, release, change=False).state == LATER


def test_all_are_asked_once_until_something_changes(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed()
    hold(release, "http")
    verdict = release.verdict
    assert verdict.passed and [each.name for each in verdict.results] == ["version", "/api/health", "version, again"]
    web.answers["/api/health"] = (503, "")
    hold(release, "http")
    assert release.verdict is verdict
    release.look_afresh()
    with pytest.raises(Refused):
        hold(release, "http")


def test_names_differ_and_an_entry_with_several_views_is_several_checks(deployed: Callable[..., Release]) -> None:
    page = [{"path": ["/", "/a"]}, {"path": "/a", "dark": True}, {"path": "/b", "why": "The view b"}]
    release = deployed(page=page, waived={**WAIVED, "page": "unused"})
    names = [each.name for each in acceptance.place_of(release, release.here).asked]
    assert names == ["version", "version, again", "/api/health", "/", "/a", "/a (2)", "The view b"]


def test_a_watch_asks_again_until_all_hold_and_tells_what_does_not_yet(
    deployed: Callable[..., Release], web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    release = deployed()
    web.answers["/api/health"] = (503, "")
    web.later["/api/health"] = (200, '{"ok": true}')
    results = acceptance._asked_again(release, "section 7.2", 30)
    assert [each.verdict for each in results] == [PASS] * 3
    assert "2 of 3 pass, not yet /api/health" in capsys.readouterr().err


def test_a_watch_ends_when_its_time_is_over(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed()
    web.answers["/api/health"] = (503, "")
    assert [each.verdict for each in acceptance._asked_again(release, "section 7.2", 0.1)] == [PASS, FAIL, PASS]


@pytest.mark.parametrize("told", ["nonsense", "-1", "0", "nan", "inf"])
def test_a_watch_that_names_no_seconds_is_refused(told: str) -> None:
    with pytest.raises(Refused, match=f"--watch says '{told}'; expected seconds"):
        acceptance._seconds(told)


# Production's confirmation


def test_the_confirmation_shows_the_verdict_and_its_commit(
    deployed: Callable[..., Release],
    take: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    web: Web,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release = deployed()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "0.1.1")
    release.options = {"where": "production"}
    assert take(confirm_production, release, change=False).state == TO_DO
    seen = take(confirm_production, release)
    assert seen.state == "changed", seen
    assert "Staging: 3 of 3 checks of section 7.2 pass" in capsys.readouterr().out
    assert take(confirm_production, release).text == "confirmed"

    web.answers["/api/health"] = (503, "")
    refused = take(confirm_production, release)
    assert refused.state == REFUSED and "Staging is not accepted: 2 of 3 checks" in refused.problems[0].what
    assert release.verdict.results[1].verdict != PASS


def test_a_word_given_for_another_verdict_is_asked_for_again(
    deployed: Callable[..., Release], take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = deployed()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    release.options = {"where": "production"}
    release.confirmed = ("", release.here.dsn, ("another commit", ()))
    assert take(confirm_production, release, change=False).state == TO_DO
