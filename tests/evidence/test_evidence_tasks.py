"""What is added after a pack is closed: the sessions of its environments, and an index over the packs of siblings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from release_tasks.errors import Refused
from release_tasks.evidence import bag, copies, verify
from release_tasks.files import records_folder
from tests.conftest import Work
from tests.evidence.attacks import Good

LAYER = Path(__file__).resolve().parents[2]
SESSIONS = """create schema ops;
create table ops.session_log (session_id int, app_name text, app_version text, opened_at timestamptz);
create table ops.session_flags (schema_name text, is_open boolean);
insert into ops.session_flags values ('market', true);
insert into ops.session_log values (1, 'app', '0.1.1', '2026-11-26 15:00+01')"""


@pytest.fixture
def repo(work: Work, good: Good, dsn: str) -> Path:
    """Return a repo whose release 0.1.1 has the good pack, with what `inv` needs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SESSIONS)
    own = {"origin": "http://127.0.0.1:9", "folder": "srv", "restart": ["true"], "log": "none"}
    environments = {name: {"dsn": "${DSN}", **own} for name in ("staging", "production")}
    settings = {"app": "app", "evidence": {"signing_key": str(good.key)}, "environments": environments}
    executor = {"executor_class": "release_tasks.engine.ReleaseExecutor"}
    (work.root / "invoke.yaml").write_text(json.dumps({"tasks": executor, "release": settings}))
    for name in ("tasks.py", "release_tasks"):
        (work.root / name).symlink_to(LAYER / name)
    good.copy(records_folder(work.root) / "v0.1.1").folder.rename(work.root / ".release/v0.1.1/evidence")
    return work.root


def run(repo: Path, dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "invoke", *words]
    variables = {**os.environ, "DSN": dsn, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(argv, cwd=repo, env=variables, capture_output=True, text=True)


def inv(repo: Path, dsn: str, *words: str) -> str:
    ran = run(repo, dsn, *words)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def refused(repo: Path, dsn: str, *words: str) -> str:
    ran = run(repo, dsn, *words)
    assert ran.returncode == 1 and "Traceback" not in ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def unset(repo: Path) -> None:
    """Let the repo have no settings of evidence."""
    settings = json.loads((repo / "invoke.yaml").read_text())
    settings["release"]["evidence"] = {}
    (repo / "invoke.yaml").write_text(json.dumps(settings))


def test_sessions_are_added_chained_and_signed_and_only_new_ones_later(
    repo: Path,
    good: Good,
    dsn: str,
    tmp_path: Path,
) -> None:
    pack = repo / ".release/v0.1.1/evidence"
    before = copies.sums_of(pack, "app-0.1.1", [])
    assert inv(repo, dsn, "evidence.stamps", "--version", "0.1.1").startswith("4 new lines. ")
    assert copies.sums_of(pack, "app-0.1.1", []) != before, "so that inv archive copies it"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("insert into ops.session_log values (2, 'app', '0.1.1', '2026-11-26 16:00+01')")
    assert inv(repo, dsn, "evidence.stamps", "--version", "0.1.1").startswith("2 new lines. ")
    assert inv(repo, dsn, "evidence.stamps", "--version", "0.1.1").startswith("0 new lines. ")
    rows = [json.loads(line) for line in (pack / "addenda" / "stamps.jsonl").read_text().splitlines()]
    assert [(row["environment"], row["table"], row.get("session_id")) for row in rows[:2]] == [
        ("staging", "ops.session_log", 1),
        ("staging", "ops.session_flags", None),
    ]
    assert rows[0]["opened_at"] == "2026-11-26 14:00:00+00:00"
    results = list(verify.results(verify.Pack(pack, tmp_path, good.allowed, good.ca)))
    assert [each.message for each in results if not each.is_pass] == []
    assert results[-1].observed == ("stamps.jsonl: 6 lines",)
    assert results[1].observed[0].count("app with ED25519 key SHA256:") == 2, "the pack's own signature, and theirs"


def test_packs_of_siblings_are_added_to_the_index_which_is_verified(repo: Path, dsn: str) -> None:
    commit = "git add index.jsonl* && git commit   # before the next release\n"
    assert inv(repo, dsn, "evidence.index", "--", ".", str(repo)) == f"index.jsonl: 2 new packs.\n{commit}"
    row = json.loads((repo / "index.jsonl").read_text().splitlines()[0])
    root = bag.digest(repo / ".release/v0.1.1/evidence" / bag.ROOT)
    assert (row["project"], row["version"], row["root"], row["previous"]) == ("app", "0.1.1", root, "")
    assert row["swhid"].startswith("swh:1:rel:")
    assert inv(repo, dsn, "evidence.index") == "index.jsonl: 0 new packs.\n"
    assert "1 of 1 pass" in inv(repo, dsn, "evidence.verify", "index.jsonl")


@pytest.mark.parametrize(
    "words", [("evidence.stamps", "--version", "0.1.1"), ("report", "--version", "0.1.1"), ("evidence.index",)]
)
def test_a_pack_that_was_changed_gets_nothing_signed_that_vouches_for_it(
    repo: Path, dsn: str, words: tuple[str, ...]
) -> None:
    """Only `inv archive` and `inv evidence.verify` looked."""
    (repo / ".release/v0.1.1/evidence/data/journal.jsonl").write_text("{}\n")
    said = refused(repo, dsn, *words)
    assert "data/journal.jsonl is not as listed" in said and "inv archive --version VERSION" in said
    assert not [
        *repo.glob("index.jsonl"),
        *repo.glob(".release/v0.1.1/evidence/addenda"),
        *repo.glob(".release/**/v0.1.1/report.html"),
    ]


def test_the_index_takes_paths_as_they_are_typed(repo: Path, dsn: str, tmp_path: Path) -> None:
    (sibling := tmp_path / "a sibling").symlink_to(repo)
    assert inv(repo, dsn, "evidence.index", ".", str(sibling)).startswith("index.jsonl: 2 new packs.\n")
    found = refused(repo, dsn, "evidence.index", ".", str(tmp_path / "typo"))
    assert f"There is no pack in {tmp_path / 'typo'}; nothing was added." in found
    assert inv(repo, dsn, "evidence.index", ".") == "index.jsonl: 0 new packs.\n"


def test_an_index_without_a_signature_says_so_and_one_with_it_stays_signed(repo: Path, dsn: str) -> None:
    inv(repo, dsn, "evidence.index")
    unset(repo)
    assert "index.jsonl is signed, and no key is set" in refused(repo, dsn, "evidence.index")
    for name in ("index.jsonl", "index.jsonl.sig"):
        (repo / name).unlink()
    said = "index.jsonl: 1 new pack. It is unsigned: release.evidence.signing_key is not set.\n"
    assert inv(repo, dsn, "evidence.index").startswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no.tar",), "There is nothing at no.tar."),
        (("VERSION", "--allowed-signers", "nobody", "--tsa-ca", "none"), "There is nothing at nobody, none."),
    ],
)
def test_what_cannot_be_verified_is_named_before_anything_is(
    repo: Path, dsn: str, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(repo, dsn, "evidence.verify", *words)


def test_a_secret_key_among_the_recipients_is_refused_and_not_shown() -> None:
    with pytest.raises(Refused, match="no public key of age") as refused:
        copies.recipients_of(["AGE-SECRET-KEY-1QQQ"])
    assert "AGE-SECRET" not in str(refused.value.problems)


def test_a_program_of_a_place_is_found_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in a subfolder, the command did not find it."""
    (program := tmp_path / "vault").write_text('#!/bin/sh\ncp "$1" "$2"\n')
    program.chmod(0o755)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    (sums := tmp_path / "app.sha512").touch()
    place = (["./vault", "{file}", "kept"], ["./vault", "kept", "{file}"])
    copies.copy(place, tmp_path, sums)
    assert (tmp_path / "kept").exists() and copies.lacking(place, tmp_path, sums) == {}


def test_a_database_without_flags_has_its_sessions_added(repo: Path, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("drop table ops.session_flags")
    assert inv(repo, dsn, "evidence.stamps", "--version", "0.1.1").startswith("2 new lines. ")


def test_where_there_is_no_pack_the_command_asks_for_a_version_that_has_one(repo: Path, dsn: str) -> None:
    hint = "inv evidence.stamps --version VERSION   # a version that has a pack"
    assert hint in refused(repo, dsn, "evidence.stamps", "--version", "0.1.2")


def test_a_signed_pack_gets_nothing_that_is_not_signed(repo: Path, dsn: str) -> None:
    unset(repo)
    assert "no key is set that signs what is added" in refused(repo, dsn, "evidence.stamps", "--version", "0.1.1")


def test_who_is_trusted_by_an_option_needs_no_file_of_the_settings(repo: Path, good: Good, dsn: str) -> None:
    settings = json.loads((repo / "invoke.yaml").read_text())
    settings["release"]["evidence"] = {"signing_key": "gone", "authorities": {"http://tsa.invalid": "gone.pem"}}
    (repo / "invoke.yaml").write_text(json.dumps(settings))
    trust = ("--allowed-signers", str(good.allowed), "--tsa-ca", str(good.ca))
    assert "FAIL" not in inv(repo, dsn, "evidence.verify", ".release/v0.1.1/evidence", *trust)
    assert "gone.pub" in refused(repo, dsn, "evidence.verify", ".release/v0.1.1/evidence", *trust[2:])
