"""One good pack a session: of a real release in git, signed, stamped and encrypted by real tools."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from release_tasks.database.server import Running
from release_tasks.evidence import authority, pack, seal, verify
from release_tasks.files import emptied
from release_tasks.outcome import Result
from release_tasks.release import Release
from tests.conftest import APP, Work
from tests.evidence.attacks import Good

LEDGER = """create schema if not exists ops;
create table ops.ddl_ledger (file text, sha256 text, version text, applied_at timestamptz, applied_by text);
insert into ops.ddl_ledger values ('ddl/00_schemas.sql', '00', '0.1.1', '2026-11-26 15:00+01', 'rita');"""
FILES = {
    "VERSION": "0.1.1\n",
    "SOURCE_TAG": "v0.1.1\n",
    "docs/HASHES.sha256.txt": "# none\n",
    "ddl/ORDER.lock": "# x\n",
    ".gitattributes": "docs export-ignore\nSOURCE_TAG export-subst\n*.txt text eol=crlf\n*.dat text\n",
    "bin/run me (1).sh": "#!/bin/sh\n$Id$\n",
    "text.txt": "one\ntwo\n",
    ".gitignore": "kept.log\n",
}


def key_in(folder: Path, name: str) -> Path:
    """Make an ssh key without a passphrase."""
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
    return key


@pytest.fixture(scope="session")
def tagged(own_git: None, server: Running, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Return a release that is tagged, has its notes, and ledgers that tell of it."""
    folder = tmp_path_factory.mktemp("evidence")
    work, dsn = Work.make(folder, {**APP, **FILES}), server.dsn("evidence")  # others empty the one of `dsn`
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute("create database evidence")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(LEDGER)
    (work.root / "bin" / "run me (1).sh").chmod(0o755)
    (work.root / "a link").symlink_to("docs/HASHES.sha256.txt")
    (work.root / "kept.log").write_text("ignored by git, but committed\n")
    (work.root / "crlf.dat").write_bytes(b"one\r\ntwo\r\n")
    work.git("add", "--all", "--force")
    crlf = work.git("hash-object", "-w", "--no-filters", "crlf.dat")  # as git would not commit it by its attributes
    work.git("update-index", "--add", "--cacheinfo", f"100644,{crlf},crlf.dat")
    work.git("commit", "--quiet", "--message", "release")
    work.git("tag", "--annotate", "--message", "App v0.1.1", "v0.1.1")
    work.commit({"docs/releases/v0.1.1.md": "# App v0.1.1\n"}, "notes")
    work.git("push", "--quiet", "origin", "main", "v0.1.1")
    for name in ("key", "other"):
        key_in(folder, name)
    env = {"dsn": dsn, "origin": "http://127.0.0.1:9", "folder": "srv", "restart": ["true"], "log": "none"}
    evidence = {"signing_key": str(folder / "key")}
    release = work.release(environments={"staging": env, "production": env}, evidence=evidence, branch="")
    release.journal.record("step", step="Tag")
    release.keep_check("smokes", passed=4)
    return release


@pytest.fixture(scope="session")
def good(tagged: Release, tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Return the pack of `tagged`, stamped."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "tsa").mkdir()
    (folder / "app-0.1.1").mkdir()
    allowed, ca = folder / "allowed_signers", authority.make(folder / "tsa")
    allowed.write_bytes(seal.allowed_signers("app", tagged.root, tagged.settings.evidence.signing_key))
    found = Good(folder / "app-0.1.1", folder.parent / tagged.root.parent.name / "key", allowed, ca)
    pack.build(tagged, found.folder)
    found.stamp(found.folder)
    return found


@pytest.fixture
def copied(good: Good, tmp_path: Path) -> Good:
    """Return a copy of the good pack that a test may damage."""
    return good.copy(tmp_path)


Verify = Callable[..., dict[str, Result]]


@pytest.fixture
def verified(tmp_path: Path) -> Verify:
    """Return what verifies a pack by all checks and returns their results, by the names of the checks."""

    def run(good: Good, path: Path | None = None, **how: Any) -> dict[str, Result]:
        work = emptied(tmp_path / "verifying")
        how = {"allowed": good.allowed, "ca": good.ca, **how}
        found = verify.results(verify.Pack(path or good.folder, work, **how))
        return {check.__name__: result for check, result in zip(verify.CHECKS, found, strict=False)}

    return run
