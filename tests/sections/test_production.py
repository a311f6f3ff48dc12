"""Section 8 on the new code before the flip, with and without what lets it run beside the old one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from release_tasks.outcome import DONE, MANUAL, PENDING, Outcome
from release_tasks.sections.deployment import put_the_code_in_place
from release_tasks.sections.production import run_checks_before_the_flip
from release_tasks.sections.withdrawal import _left_in

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Web, Work

OWN = "('127.0.0.1', int(os.environ['PORT']))"
SERVER = f"import http.server as s, os; s.HTTPServer({OWN}, s.SimpleHTTPRequestHandler).serve_forever()"
TEST = "def test_this_code_answers(api):\n    assert api.get('/VERSION').text.strip() == '0.1.1-dev'\n"


@pytest.fixture
def placed(work: Work, web: Web, dsn: str, take: Callable[..., Outcome]) -> Callable[..., Release]:
    """Return what makes a release whose code is in place in production, where 0.1.0 is live."""

    def placed(**settings: object) -> Release:
        web.be("0.1.0")
        place = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
        release = work.release(environments={"production": place}, branch="", ddl={"folder": "none"}, **settings)
        release.options = {"env": "production"}  # type: ignore[attr-defined]
        work.commit({"smokes/test_app.py": TEST, "acceptance/test_app.py": TEST})
        work.release_before(release.tag)
        assert not take(put_the_code_in_place, release).problems
        return release

    return placed


def test_an_app_without_a_route_for_its_version_is_tried_before_the_flip(
    placed: Callable[..., Release], take: Callable[..., Outcome]
) -> None:
    """Whatever answers there is the new code; production always stopped here, its DDL applied."""
    release = placed(acceptance={"version": "", "wait": 10}, services={"web": [sys.executable, "-c", SERVER]})
    passed = take(run_checks_before_the_flip, release)
    assert passed.state == DONE, passed
    assert passed.text.count("this code answers") == 2


def test_a_release_that_stopped_before_its_stamp_goes_on(
    placed: Callable[..., Release], take: Callable[..., Outcome]
) -> None:
    """Its checks were refused for the stamp that is still to be made, so the stamp was never made."""
    release = placed(services={"web": [sys.executable, "-c", SERVER]}, stamp={"command": ["false"]})
    waits = take(run_checks_before_the_flip, release, change=False)
    assert (waits.state, waits.text) == (PENDING, "after the session is stamped on production")


def test_where_nothing_can_run_beside_the_old_code_a_person_checks_after_the_flip(
    placed: Callable[..., Release], take: Callable[..., Outcome]
) -> None:
    """The old code had to answer as the new version: from the second release on it never could."""
    told = take(run_checks_before_the_flip, placed())
    assert told.state == MANUAL, told
    assert "inv accept --env production" in told.text and "no services.web" in told.text


def test_a_withdrawal_tells_what_is_on_record_where_no_route_tells_the_version(
    placed: Callable[..., Release],
) -> None:
    """The notes said that production runs any."""
    release = placed(acceptance={"version": ""})
    assert list(_left_in(release, "production")) == ["production runs something"]
    srv = release.root / "srv"
    (srv / "current").symlink_to(srv / "releases" / release.tag)
    assert list(_left_in(release, "production")) == ["production runs v0.1.1"]


def test_the_log_of_new_code_that_does_not_answer_is_shown_by_a_command_that_works(
    placed: Callable[..., Release], take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path may have a space."""
    release = placed(acceptance={"wait": 0}, services={"web": [sys.executable, "-c", SERVER]})
    monkeypatch.setattr(release, "folder", release.root / "a folder")
    (problem,) = take(run_checks_before_the_flip, release).problems
    assert shlex.split(problem.hint) == ["cat", str(release.folder / "candidate-production-web.log")]
