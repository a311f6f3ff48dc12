"""Code put in place, and what that leaves beside it for later checks."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from release_tasks.deploy import code
from release_tasks.deploy.code import unpack
from release_tasks.environments import Environment
from release_tasks.files import file_hashes
from release_tasks.git import Git
from release_tasks.machine import point_link
from release_tasks.outcome import CHANGED, DONE, REFUSED, Outcome
from release_tasks.release import Release
from release_tasks.sections.deployment import (
    apply_the_ddl_pack,
    check_environment,
    put_the_code_in_place,
    run_the_release,
    stamp_the_session,
)

if TYPE_CHECKING:
    from tests.conftest import Web, Work


@pytest.fixture
def release(work: Work, web: Web, dsn: str) -> Release:
    """Return a release whose tag is pushed, and a staging that it can go to."""
    place = {"dsn": dsn, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    release = work.release(environments={"staging": place}, branch="", acceptance={"wait": 1}, keep_releases=2)
    release.options = {"env": "staging"}  # type: ignore[attr-defined]
    work.release_before(release.tag)
    return release


def put(release: Release, take: Callable[..., Outcome]) -> None:
    """Put the release in place on staging."""
    assert take(put_the_code_in_place, release).state == CHANGED


def mark_as_placed(env: Environment, tag: str, **facts: object) -> None:
    """Let `tag` look like a release that was put in place."""
    host = env.hosts.host
    host.code_of(tag).mkdir(parents=True, exist_ok=True)
    if not host.facts(tag):
        host.code_of(f"{tag}.json").write_text(json.dumps({"commit": "c0ffee", **facts}))


@pytest.mark.parametrize("left", ["", "{", "[]", "null", "{}", '"commit"', b"\xff", None])
def test_a_mark_of_a_deployment_that_cannot_be_one_is_named_and_the_command_shown_helps(
    release: Release, take: Callable[..., Outcome], left: str | bytes | None
) -> None:
    """F8: it was a traceback that named no file."""
    marker = release.root / "srv" / "releases" / "v0.1.1.json"
    assert take(put_the_code_in_place, release).state == CHANGED
    assert take(put_the_code_in_place, release).state == DONE
    marker.unlink()
    if left is None:
        marker.mkdir()
    else:
        marker.write_bytes(left if isinstance(left, bytes) else left.encode())
    assert take(run_the_release, release).state == REFUSED
    refused = take(put_the_code_in_place, release)
    assert refused.state == REFUSED and "v0.1.1.json is not what a deployment leaves there" in refused.problems[0].what
    words = shlex.split(refused.problems[0].hint.partition("   #")[0])
    assert words[:2] == ["mv", str(marker)]
    marker.rename(words[2])
    assert take(put_the_code_in_place, release).state == CHANGED


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems keep no such name")
def test_a_file_whose_name_is_no_utf_8_is_brought_too(work: Work, tmp_path: Path) -> None:
    """It stopped every release in section 7, after the tag."""
    name = os.fsdecode(b"caf\xe9.txt")
    (work.root / name).write_text("coffee\n")
    work.git("add", "--all")
    work.git("commit", "--quiet", "-m", "feat: coffee")
    with closing(Git.open(work.root, "origin")) as git:
        commit = git.commit_named("HEAD") or ""
        folder = code.make_ready(git, "v0.1.1", commit, lambda _: None)
        code.write_tar(git, commit, folder, tmp_path / "tree.tar")
    with tarfile.open(tmp_path / "tree.tar") as tar:
        assert name in tar.getnames()


def test_the_tar_for_the_hosts_is_not_kept(release: Release, take: Callable[..., Outcome]) -> None:
    put(release, take)
    assert list((release.root / ".release").rglob("*.tar")) == []


def test_a_pack_that_fails_once_the_tag_is_published_names_the_file_and_its_line(
    release: Release, take: Callable[..., Outcome], dsn: str
) -> None:
    """A published pack cannot be fixed, only followed by a new version."""
    put(release, take)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema app; create domain app.things as text")
    (problem,) = take(apply_the_ddl_pack, release).problems
    assert problem.what.startswith('ddl/01_tables.sql, line 1: type "things" already exists')
    assert problem.hint.startswith("Fix ddl/01_tables.sql")


def test_a_server_that_is_too_old_or_too_new_for_the_programs_here_is_named_before_anything_changes(
    release: Release, take: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL 14 each check was inconclusive, and older programs could not dump, after the tag."""
    assert take(check_environment, release).state == DONE
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 140011)
    (problem,) = take(check_environment, release).problems
    assert problem.what == "Staging has PostgreSQL 14; expected 15 or newer."
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 990001)
    (problem,) = take(check_environment, release).problems
    assert problem.what.startswith("pg_dump 99 or newer is needed, found: ")


def test_a_log_that_is_not_there_is_named_before_anything_changes(
    release: Release, take: Callable[..., Outcome], work: Work
) -> None:
    """Production was stamped by then, and the release could not go on, also once the path was right."""
    work.write({"acceptance/test_log.py": "def test_no_warnings(log):\n    log.has_no_trouble()\n"})
    (problem,) = take(check_environment, release).problems
    assert problem.what == f"There is no log {work.root / 'none'}, which section 7.2 reads on staging."
    work.write({"acceptance/test_log.py": "def test_no_warnings(log):\n    log.has_no_trouble('web.log')\n"})
    assert take(check_environment, release).state == DONE


def test_a_first_deployment_that_does_not_answer_stays_as_it_is(
    release: Release, take: Callable[..., Outcome], web: Web
) -> None:
    web.be("0.1.0")
    put(release, take)
    refused = take(run_the_release, release)
    assert "Staging: v0.1.1 does not answer within 1 s" in refused.problems[0].what
    assert "0.1.0" in refused.problems[0].what and "went back" not in refused.problems[0].what
    assert (release.root / "srv" / "current").resolve().name == "v0.1.1"
    web.be("0.1.1")
    assert take(run_the_release, release).state == CHANGED
    assert take(run_the_release, release).state == DONE


@pytest.mark.parametrize("restart", ["true", "false"])
def test_what_no_release_has_put_there_is_gone_back_to_also_where_restart_fails(
    release: Release, take: Callable[..., Outcome], web: Web, restart: str
) -> None:
    web.be("an old one")
    env, by_hand = release.environment("staging"), release.root / "srv" / "by-hand"
    by_hand.mkdir(parents=True)
    point_link(release.root / "srv" / "current", by_hand)
    env.hosts.host.restart = [restart]
    put(release, take)
    said = take(run_the_release, release).problems[0].what
    assert env.hosts.tag() == str(by_hand) and env.hosts.facts(release.tag)["since"] is None
    if restart == "true":
        assert f"It went back: {by_hand} is live again." in said
    else:
        assert f"{by_hand} does not answer either. false: exit code 1" in said


def test_after_a_rollback_the_older_line_goes_on(release: Release, web: Web) -> None:
    env = release.environment("staging")
    for version in ("0.1.1", "0.2.0", "0.1.1"):
        web.be(version)
        mark_as_placed(env, f"v{version}", version=version)
        env.hosts.switch(f"v{version}")
        later = [problem.what for problem in env.later_problems("0.1.2")]
        assert later == (["Staging runs 0.2.0, later than 0.1.2."] if version == "0.2.0" else [])
    assert env.hosts.facts("v0.2.0")["before"] == "v0.1.1", "to which a rollback goes by default, also once more"


def test_older_releases_are_removed_and_nothing_else(release: Release, take: Callable[..., Outcome], web: Web) -> None:
    web.be("0.1.1")
    put(release, take)
    env = release.environment("staging")
    for number, tag in enumerate(["v0.0.1", "v0.0.2", "v0.0.3", "v0.1.0"]):
        mark_as_placed(env, tag, began_unix=number)
    folder = release.root / "srv" / "releases"
    point_link(folder.parent / "current", folder / "v0.0.2")
    for mine in ("v0.0.0", "mine"):
        (folder / mine).mkdir()
    (folder / "other.json").write_text("[]")
    assert take(run_the_release, release).state == CHANGED
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "mine",
        "v0.0.0",
        "v0.0.2",
        "v0.1.0",
        "v0.1.1",
    ], "the newest two, what was live before, and what has no facts"
    assert list(env.hosts.releases()) == ["v0.1.1", "v0.1.0", "v0.0.2"]


def test_without_a_command_nothing_is_stamped(release: Release, take: Callable[..., Outcome]) -> None:
    assert take(stamp_the_session, release).text == "no stamp.command is set"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_the_tag_s_code_is_put_in_place_as_it_was_committed(work: Work, tmp_path: Path) -> None:
    """R18: under umask 077 no other user could read it. R19: `export-…` left files out, and rewrote them."""
    work.write({"a/run (1).sh": "#!/bin/sh\n", "docs/$(x)": "$Format:%H$\n"})
    work.write({".gitattributes": "a export-ignore\ndocs/* export-subst\n", "CRLF": "\r\n", "LF": "\n"})
    (work.root / "a" / "run (1).sh").chmod(0o775)
    (work.root / "link").symlink_to("a/run (1).sh")
    commit, code = work.commit({}), tmp_path / "code"
    (code / "old").mkdir(parents=True)
    work.git("config", "core.autocrlf", "true")
    before = os.umask(0o077)
    unpack(work.layer(), commit, code)
    assert os.umask(before) == 0o077 and work.git("status", "--porcelain") == ""
    committed = {path: digest for path, digest in file_hashes(work.root).items() if not path.startswith(".git/")}
    assert file_hashes(code) == committed and not (code / "old").exists()
    assert (code / "link").readlink() == Path("a/run (1).sh")
    assert stat.S_IMODE((code / "a" / "run (1).sh").stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in (code, *code.rglob("*"))} == {0o755, 0o644}
