"""Section 7.2: conditions get their time while a deployment settles, and are the document's, in its order."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks import suites
from release_tasks.deploy import code
from release_tasks.errors import NotYet, Refused
from release_tasks.machine import point_link
from release_tasks.outcome import DONE, FAILED, INCONCLUSIVE, PASSED, PENDING, PLANNED, REFUSED, WAIVED, Outcome
from release_tasks.sections import deployment
from release_tasks.sections.preconditions import check_conditions_have_tests
from release_tasks.sections.production import confirm_production

if TYPE_CHECKING:
    from release_tasks.release import Release
    from tests.conftest import Web, Work

API_OK = "def test_api_ok(api):\n    api.expect('/api/health', {'ok': True}, within=60)\n"
DOCUMENT = "### 7.2 Acceptance\n\n- No gaps in ingest. *checked*\n- API OK. *checked*\n"
GAPS = "import pytest\n@pytest.mark.waived('nothing is ingested; #3')\ndef test_no_gaps_in_ingest(series): pass\n"


@pytest.fixture
def deployed(work: Work, web: Web, dsn: str) -> Callable[..., Release]:
    """Return what makes a release that was deployed to staging `age` seconds ago, and runs there."""

    def deployed(age: float = 61, wait: float = 60, tests: str = API_OK, document: str = "") -> Release:
        place = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
        release = work.release(
            environments={"staging": place, "production": place}, acceptance={"wait": wait}, ddl={"folder": "none"}
        )
        release.options = {"env": "staging"}
        written = {"docs/RELEASE_PROCESS.md": document} if document else {}
        commit = work.commit({"acceptance/test_app.py": tests, **written})
        placed = work.root / "srv" / "releases" / "v0.1.1"
        code.unpack(release.git, commit, placed)
        point_link(work.root / "srv" / "current", placed)
        facts = {
            "commit": commit,
            "version": "0.1.1",
            "since": "now",
            "began": "2026-01-01",
            "began_unix": time.time() - age,
        }
        placed.with_name("v0.1.1.json").write_text(json.dumps(facts))
        web.be(release.version)
        return release

    return deployed


def meet_them(release: Release) -> str:
    return deployment.run_acceptance_tests(release, release.environment("staging"))


def outcomes(release: Release) -> dict[str, str]:
    found = deployment.conditions_on(release, release.environment("staging"))
    return {each.name: each.outcome for each in found}


def test_conditions_whose_tests_did_not_run_stand_in_the_order_of_the_document(
    deployed: Callable[..., Release],
) -> None:
    names = [*"hgfedcba"]
    document = "### 7.2 Acceptance\n\n" + "".join(f"- {name}\n" for name in names)
    left = "if False:\n" + "".join(f"    def test_{name}(api): pass\n" for name in names)
    found = outcomes(deployed(tests=f"{API_OK}{left}", document=document))
    assert [name for name, outcome in found.items() if outcome == INCONCLUSIVE] == names


def test_a_settled_deployment_is_judged_at_once(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(age=61)
    web.answers["/api/health"] = (200, '{"ok": false}')
    with pytest.raises(Refused, match=r"Condition api ok: failed on staging\. .*says .*false") as refused:
        meet_them(release)
    assert refused.value.problems[0].hint.startswith("inv accept --env staging ")


def test_a_fresh_deployment_gets_its_time_to_settle(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(age=0)
    web.answers["/api/health"] = (503, "")
    web.later["/api/health"] = (200, '{"ok": true}')
    assert "api ok" in meet_them(release)


def test_conditions_have_their_names_from_the_document(deployed: Callable[..., Release]) -> None:
    release = deployed(tests=GAPS + API_OK, document=DOCUMENT)
    expected = {"this release runs": PASSED, "No gaps in ingest": WAIVED, "API OK": PASSED}
    assert outcomes(release) == {**expected, "this release still runs": PASSED}
    assert meet_them(release).count("No gaps in ingest waived: nothing is ingested; #3") == 1


def test_a_condition_without_a_test_blocks_with_a_sentence(deployed: Callable[..., Release]) -> None:
    with pytest.raises(Refused, match=r"docs/RELEASE_PROCESS\.md names 'No gaps in ingest', which has no test"):
        meet_them(deployed(document=DOCUMENT))


def test_a_condition_whose_test_does_not_run_is_inconclusive(deployed: Callable[..., Release]) -> None:
    release = deployed(tests=f"{GAPS}{API_OK}del test_api_ok\n", document=DOCUMENT)
    assert outcomes(release)["API OK"] == INCONCLUSIVE


def test_the_release_itself_is_checked_before_and_after(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed(wait=0)
    assert list(outcomes(release)) == ["this release runs", "api ok", "this release still runs"]


def test_another_version_that_runs_is_not_judged(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed()
    web.be("0.1.0")
    with pytest.raises(NotYet, match="after the release runs on staging"):
        meet_them(release)


def test_the_conditions_are_a_step(deployed: Callable[..., Release], web: Web, take: Callable[..., Outcome]) -> None:
    release = deployed()
    assert take(deployment.run_acceptance_tests, release).state == DONE
    web.answers["/api/health"] = (503, "")
    assert take(deployment.run_acceptance_tests, release).state == REFUSED
    web.be("0.1.0")
    assert take(deployment.run_acceptance_tests, release, change=False).state == PENDING


def test_all_are_checked_once_until_something_changes(deployed: Callable[..., Release], web: Web) -> None:
    release = deployed()
    meet_them(release)
    before = release.acceptance["staging"]
    assert all(each.is_pass for each in before)
    web.answers["/api/health"] = (503, "")
    meet_them(release)
    assert release.acceptance["staging"] is before
    release.refresh()
    with pytest.raises(Refused):
        meet_them(release)


def test_a_watch_gives_each_condition_its_seconds(deployed: Callable[..., Release], web: Web, tmp_path: Any) -> None:
    release = deployed()
    web.answers["/api/health"] = (503, "")
    assert FAILED in watched(release, tmp_path / "kept", 0.1)
    web.later["/api/health"] = (200, '{"ok": true}')
    assert set(watched(release, tmp_path / "kept", 60)) == {PASSED}


def watched(release: Release, evidence: Path, seconds: float, *options: str) -> list[str]:
    found = suites.check_conditions(release, release.environment("staging"), evidence, *options, watch=seconds)
    return [each.outcome for each in found]


def test_a_watch_begins_anew_for_each_condition(deployed: Callable[..., Release], web: Web, tmp_path: Path) -> None:
    """It was one time for all: what the first one used up, the second one lacked."""
    tests = "calls = []\ndef test_a(record_property):\n    calls.append(1)\n    record_property('calls', len(calls))\n"
    tests += "    assert len(calls) > 2\n\n"
    tests = "import time\n\ndef test_first(): time.sleep(3.5); assert False\n\n" + tests
    release = deployed(tests=tests)
    assert watched(release, tmp_path / "kept", 3) == [PASSED, FAILED, PASSED, PASSED]


def test_conditions_that_pytest_s_options_leave_out_did_not_run(
    deployed: Callable[..., Release], web: Web, tmp_path: Path
) -> None:
    release = deployed(tests=GAPS + API_OK, document=DOCUMENT)
    assert watched(release, tmp_path / "kept", 0, "-k", "api_ok") == [PASSED, INCONCLUSIVE]


@pytest.mark.parametrize("given", ["nonsense", "-1", "1.5", "nan", "inf"])
def test_a_watch_that_names_no_seconds_is_refused(given: str) -> None:
    with pytest.raises(Refused, match=f"--watch says '{given}'; expected seconds"):
        suites.report_conditions({}, "dev", None, given, False)


def test_section_2_finds_what_7_2_would_stop_at(work: Work, web: Web, dsn: str, take: Callable[..., Outcome]) -> None:
    """A query that cannot run, and a condition without a test; what the queries answer on dev is no matter."""
    release = work.release(environments={"dev": {"dsn": dsn, "origin": web.origin}}, ddl={"folder": "none"})
    missing = take(check_conditions_have_tests, release)
    assert "There is no test" in missing.problems[0].what
    queries = "def test_a(db):\n    assert not db.execute('select 1').fetchall()\n"
    work.commit({"acceptance/test_app.py": queries + API_OK.replace("/api/health", "/nowhere")})
    assert take(check_conditions_have_tests, release).state == DONE
    work.commit({"acceptance/test_app.py": queries.replace("select 1", "select from nowhere")})
    refused = take(check_conditions_have_tests, release)
    assert refused.state == REFUSED and 'relation "nowhere" does not exist' in refused.problems[0].what


def test_smokes_run_by_hand_know_which_version_runs(
    deployed: Callable[..., Release], work: Work, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They had that of the working tree, which is work on the next one."""
    smoke = "def test_a(target, record_property):\n    record_property('runs', target.version)\n"
    work.commit({"smokes/test_a.py": smoke, "VERSION": "0.1.2-dev\n"})
    release = deployed()
    monkeypatch.setattr(suites, "environment_of", lambda *_, **__: nullcontext(release.environment("staging")))
    suites.report_smokes({}, "staging", None, False)
    assert re.search(r"a: a +passed .* 0\.1\.1 *\n", capsys.readouterr().out)


# Production's confirmation


def test_the_confirmation_shows_what_staging_came_to_and_its_commit(
    deployed: Callable[..., Release],
    take: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    web: Web,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release = deployed()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: "0.1.1")
    release.options = {"env": "production"}
    assert take(confirm_production, release, change=False).state == PLANNED
    seen = take(confirm_production, release)
    assert seen.state == "changed", seen
    assert "Staging: this release runs " in capsys.readouterr().err  # where people are, not in a file
    assert take(confirm_production, release).text == "confirmed"

    web.answers["/api/health"] = (503, "")
    refused = take(confirm_production, release)
    assert refused.state == REFUSED and "api ok failed" in refused.problems[0].what
    assert not release.acceptance["staging"][1].is_pass


def test_a_confirmation_of_another_outcome_is_asked_for_again(
    deployed: Callable[..., Release], take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = deployed()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    release.options = {"env": "production"}
    release.confirmed = ("", release.environment("production").dsn, ("another commit", ()))
    assert take(confirm_production, release, change=False).state == PLANNED
