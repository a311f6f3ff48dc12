"""What `inv deploy.running` and `inv deploy.history` show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks import running
from release_tasks.deploy.hosts import Hosts, HostStatus
from release_tasks.errors import Refused
from release_tasks.machine import point_link
from release_tasks.release_lock import ReleaseLock
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Web, Work


@pytest.mark.parametrize("stamps", [[], [("0.1.1", datetime(2026, 11, 26, tzinfo=UTC))]])
@pytest.mark.parametrize("where", ["dev", "staging"])
def test_a_history_of_nothing_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str, stamps: list[Any]
) -> None:
    """It was an empty table."""

    @contextmanager
    def environment_of(_: Any, where: str) -> Iterator[Any]:
        hosts = SimpleNamespace(try_status=dict)
        yield SimpleNamespace(name=where, stamps=lambda most: stamps, hosts=hosts)

    monkeypatch.setattr(running.embedded, "environment_of", environment_of)
    running.history(None, where, as_json=False)
    shown = capsys.readouterr().out
    assert (f"Nothing was deployed to {where} yet, or stamped there." in shown) == (not stamps)
    assert ("stamped 0.1.1" in shown) == bool(stamps) == ("History" in shown)


def test_stamps_stand_among_the_switches_by_one_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server in another zone had its stamps an hour late, with the Z of UTC."""
    there = datetime(2026, 11, 26, 13, tzinfo=timezone(timedelta(hours=1)))
    here = SimpleNamespace(stamps=lambda most: [("0.1.1", there)])
    monkeypatch.setattr(running.embedded, "environment_of", lambda *_: nullcontext(here))
    running.history(None, "dev", as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["at"] == "2026-11-26 12:00:00Z"


@pytest.mark.parametrize(
    ("lock", "holder"), [("lock", "0.2.0"), ("lock-0.2", "0.2.0"), ("lock-web", None), ("lockx", None)]
)
def test_the_release_under_way_is_ours_and_not_another_product_s(work: Work, lock: str, holder: str | None) -> None:
    git = work.layer()
    ReleaseLock(git, "0.2.0", branch=f"release/{lock}").push(what="is begun")
    assert running._lock_holder(git, Settings()) == holder


@pytest.mark.parametrize("as_json", [True, False])
def test_a_history_that_lacks_a_host_s_part_is_shown_and_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """With the only host away it was exit code 0."""
    looks = {"p1": HostStatus(problem="p1: cannot be reached"), "p2": HostStatus(switches=({"at": "1", "what": "x"},))}
    here = SimpleNamespace(stamps=lambda most: [], hosts=SimpleNamespace(try_status=lambda: looks))
    monkeypatch.setattr(running.embedded, "environment_of", lambda *_: nullcontext(here))
    with pytest.raises(SystemExit, match="1"):
        running.history(None, "production", as_json)
    shown = capsys.readouterr().out
    assert "p1: cannot be reached" in shown and "p2" in shown


def test_code_that_no_release_has_put_there_is_shown_as_it_is(
    work: Work, web: Web, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a traceback: the path of a folder was compared with the version in the ledger."""
    work.release_before("v0.1.0")
    place = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    release = work.release(environments={"production": place}, ddl={"folder": "none"})
    by_hand = work.root / "srv" / "by-hand"
    by_hand.mkdir(parents=True)
    point_link(by_hand.parent / "current", by_hand)
    monkeypatch.setattr(running.apply, "last_applied", lambda *_: ("0.1.0", set()))
    row: dict[str, Any] = {}
    running._look(row, "production", release.git, release.settings)
    assert (row["tag"], row["ddl"]) == (str(by_hand), "0.1.0") and row["drift"] is True
    found = {"h1": HostStatus("v0.1.0", ""), "h2": HostStatus("", "")}
    monkeypatch.setattr(Hosts, "try_status", lambda _: found)
    running._look(row, "production", release.git, release.settings)
    assert row["tag"] == "v0.1.0" and row["problem"].endswith("h2: nothing is live.")


@pytest.mark.parametrize("since", [None, "now"])
def test_an_embedded_switch_that_was_not_finished_is_none(work: Work, since: str | None) -> None:
    """A status said that production was done, though the run was ended in its flip."""
    releases = work.root / ".release" / "environments" / "production" / "releases"
    (releases / "v0.1.1").mkdir(parents=True)
    (releases / "v0.1.1.json").write_text(json.dumps({"commit": "c0ffee", "since": since}))
    point_link(releases.parent / "current", releases / "v0.1.1")
    assert running.embedded.recorded("production", work.root, Settings()) == ("v0.1.1", bool(since))


def test_what_runs_is_shown_also_where_nobody_knows_the_next_step(
    work: Work, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the remote away, or a tag that is not here, it showed nothing at all."""

    def next_step(version: str | None) -> str:
        raise Refused("The remote does not answer.")

    monkeypatch.setattr(running, "project_root", lambda config: work.root)
    running.report({}, True, next_step)
    shown = json.loads(capsys.readouterr().out)
    assert shown["next"] == "unknown: The remote does not answer."
    assert [row["environment"] for row in shown["environments"]] == ["dev", "staging", "production"]


@pytest.mark.parametrize("base", ["main", "support/0.1"])
def test_the_release_under_way_is_the_one_that_holds_the_lock(
    work: Work, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    """It was the one that VERSION leads to: with 0.2.0 on staging, "No release is under way"."""
    monkeypatch.setattr(running, "project_root", lambda config: work.root)
    running.report({}, True, str)
    assert json.loads(capsys.readouterr().out)["next"] == "None"
    lock = ReleaseLock(work.layer(), "0.2.0", branch=Settings().lock_of(base))
    lock.push(what="is begun")
    running.report({}, True, str)
    assert json.loads(capsys.readouterr().out)["next"] == "0.2.0"
    lock.push(what="is over", last=True)
    running.report({}, True, str)
    assert json.loads(capsys.readouterr().out)["next"] == "None"
