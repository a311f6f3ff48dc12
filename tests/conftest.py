"""What many tests stand on: real git with a bare remote, a real PostgreSQL, a web app, and steps taken one by one."""

from __future__ import annotations

import compileall
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from release_tasks import command_line, masks, screen, temporary
from release_tasks.checks import Target
from release_tasks.database import programs
from release_tasks.database.server import Running, scratch, start
from release_tasks.files import records_folder
from release_tasks.git import Git
from release_tasks.outcome import Outcome
from release_tasks.plan import PlannedStep
from release_tasks.release import Release
from release_tasks.settings import Settings

LAYER = Path(__file__).parents[1] / "release_tasks"

os.environ.pop("FORCE_COLOR", None)  # Rich reads it when the layer is imported
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of a thousand programs would compile the layer anew
hypothesis.settings.register_profile("layer", deadline=None, max_examples=50)
hypothesis.settings.load_profile("layer")

# Called as `initdb -D folder --pwfile file …`; the copy gets its name when it is whole.
INITDB = """#!/bin/sh
set -e
if [ -d {made}/data ]; then
  cp -Rp {made}/data "$2"
  cat {made}/password > "$4"
else
  {real} "$@"
  cp "$4" {made}/password
  cp -Rp "$2" {made}/part.$$
  [ -d {made}/data ] || mv {made}/part.$$ {made}/data
fi
"""
SWEEPER = pytest.StashKey[subprocess.Popen[bytes]]()
GIT_CONFIG = """\
[user]
    name = Rita Releaser
    email = rita@example.invalid
[init]
    defaultBranch = main
[protocol "file"]
    allow = always
[advice]
    detachedHead = false
"""

APP = {
    "VERSION": "0.1.1-dev\n",
    "SOURCE_TAG": "v0.1.0\n",
    "CHANGELOG.md": "# Changes\n\n## 0.1.1\n\nIt counts faster.\n",
    "package.json": '{\n  "name": "app",\n  "version": "0.1.1-dev"\n}\n',
    "ddl/00_schemas.sql": "create schema if not exists app;\n",
    "ddl/01_tables.sql": "create table if not exists app.things (name text);\n",
    "docs/RELEASE_NOTES_TEMPLATE.md": (Path(__file__).parents[1] / "docs" / "RELEASE_NOTES_TEMPLATE.md").read_text(),
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let tests and servers live in memory where there is plenty: a third of their time is the making of files."""
    # In a shell's background SIGINT is ignored, and so by children; on SIGTERM the tests tidy up as on Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    compileall.compile_dir(LAYER, quiet=1)
    memory = Path("/dev/shm")
    roomy = config.option.basetemp is None and _is_roomy(memory)
    folder = Path(tempfile.mkdtemp(prefix="release-tests-", dir=memory if roomy else None))
    argv = [sys.executable, str(Path(__file__).with_name("sweeper.py")), str(folder)]
    quiet = subprocess.DEVNULL
    sweeper = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    os.environ["RELEASE_TESTS"] = str(folder)  # by which the sweeper knows what the tests started
    config.stash[SWEEPER] = sweeper  # it goes to work when we have ended, and with us our end of its pipe
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    os.environ.update(dict.fromkeys(temporary.VARIABLES, str(folder / "tmp")))  # programs leave files there
    tempfile.tempdir = None
    if roomy:
        config.option.basetemp = str(folder / "tests")
        store = Path.home() / ".local" / "share" / "pnpm" / "store"  # else pnpm would make one in memory
        os.environ.setdefault("pnpm_config_store_dir", str(store))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Collect no garbage while pytest parses the file of a failure.

    On Python 3.11 a finalizer that parses something as well is a SystemError there, which ends the whole run without
    a name of what failed: https://github.com/python/cpython/issues/106905.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def _is_roomy(memory: Path) -> bool:
    """Whether `memory` is there, may hold programs, and has 6 GB free."""
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return False
    found = os.statvfs(memory)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > 6e9


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests, so that none of them is left to one process while the others have ended."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture(autouse=True)
def forget_what_others_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide in no test what another one has hidden, show all where the output goes, hint at no command typed before."""
    monkeypatch.setattr(masks, "_hidden", set())
    monkeypatch.setattr(command_line, "typed", [("release", {})])
    monkeypatch.setattr(screen._console, "stderr", False)


@pytest.fixture(scope="session", autouse=True)
def own_git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Git knows who commits and nothing of the machine's settings, nor of a hook that we may run in."""
    config = tmp_path_factory.mktemp("git") / "config"
    config.write_text(GIT_CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_initdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs of PostgreSQL whose initdb copies what the real one has made first: it is called a few hundred times."""
    if os.name == "nt":
        yield
        return
    folder, made, real = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("made"), programs.find_bin()
    for program in real.iterdir():
        (folder / program.name).symlink_to(program)
    initdb = folder / "initdb"
    initdb.unlink()
    initdb.write_text(INITDB.format(real=real / "initdb", made=made))
    initdb.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_BIN", str(folder))
        yield


def add_hook(repo: Path, name: str, script: str) -> Path:
    """Make the shell `script` the hook `name` of a repository, bare or not; return its file."""
    git_dir = subprocess.run(
        ["git", "rev-parse", "--absolute-git-dir"], cwd=repo, check=True, capture_output=True, text=True
    ).stdout.strip()
    hook = Path(git_dir) / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    return hook


@dataclass
class Work:
    """A repository of a small application at `root`, pushed to the bare repository `remote`."""

    root: Path
    remote: Path
    opened: list[Callable[[], None]] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, files: dict[str, str]) -> Work:
        work = cls(folder / "work", folder / "remote.git")
        for argv in (["--bare", str(work.remote)], [str(work.root)]):
            subprocess.run(["git", "init", "--quiet", *argv], check=True)
        work.git("remote", "add", "origin", str(work.remote))
        work.commit(files, "Begin")
        work.git("push", "--quiet", "origin", "main")
        return work

    def git(self, *args: str) -> str:
        """Run git here, not through the layer, and return what it says."""
        ran = subprocess.run(["git", *args], cwd=self.root, check=True, capture_output=True, text=True)
        return ran.stdout.strip()

    def write(self, files: dict[str, str]) -> None:
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(text.encode())

    def commit(self, files: dict[str, str], message: str = "Change") -> str:
        """Write and commit `files`; return the commit."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def refuse_commits(self) -> Path:
        """Let git refuse each commit, as if the run was stopped there, until the file that is returned is gone."""
        return add_hook(self.root, "pre-commit", "exit 1")

    def release_before(self, tag: str) -> None:
        """Tag HEAD as an earlier release, and push the tag."""
        self.git("tag", "--annotate", "--message", tag, tag)
        self.git("push", "--quiet", "origin", f"refs/tags/{tag}")

    def add_submodule(self, name: str, files: dict[str, str]) -> Work:
        """Put `files` into a repository of their own, make it the submodule `name`, and return its checkout."""
        origin = Work.make(self.root.parent / f"{name}-origin", files)
        self.git("submodule", "--quiet", "add", str(origin.remote), name)
        self.commit({}, f"{name} is a submodule")
        return Work(self.root / name, origin.remote)

    def layer(self) -> Git:
        """Return the layer's view of this repository."""
        git = Git.open(self.root, "origin")
        self.opened.append(git.close)
        return git

    def release(self, version: str = "0.1.1", **settings: Any) -> Release:
        release = Release(version, self.root, Settings.model_validate(settings))
        records_folder(self.root)  # as a run does
        self.opened.append(release.close)
        return release


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    work = Work.make(tmp_path, APP)
    yield work
    for close in work.opened:
        close()


@pytest.fixture
def take() -> Callable[..., Outcome]:
    """Return what runs one step as the engine does: `take(step, release)`; with `change=False` it only checks.

    A test sets the options of its section as `release.options`.
    """

    def take(step: Any, release: Release, change: bool = True) -> Outcome:
        release.refresh()
        return PlannedStep("a section", step, getattr(release, "options", {})).run(release, change)

    return take


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server") / "postgresql"
    running = start(folder, ["app"], durable=False)
    yield running
    running.services.stop()


def majors() -> list[int]:
    """Return the versions of PostgreSQL that this machine has: in CI 15 from Debian, 18 from the wheel."""
    return sorted({programs.major_of(programs.find_bin(major)) for major in (None, *range(15, 20))})


@pytest.fixture(scope="session", params=majors(), ids=lambda major: f"PostgreSQL {major}")
def every_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a server of each version that this machine has."""
    with scratch(tmp_path_factory.mktemp("servers"), request.param) as running:
        yield running


@pytest.fixture
def dsn(server: Running) -> str:
    """Return the URL of a database with nothing in it."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(server.dsn("app"), autocommit=True) as connection:
        theirs = "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema)'"
        for (name,) in connection.execute(theirs).fetchall():
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))
        connection.execute("create schema public")
    return server.dsn("app")


@dataclass
class Web:
    """A web app: `answers` is path → (status, body), `later` what follows it; what it does not know is 404."""

    origin: str
    answers: dict[str, tuple[int, str]]
    headers: dict[str, str] = field(default_factory=dict)
    later: dict[str, tuple[int, str]] = field(default_factory=dict)

    def be(self, version: str) -> None:
        """Answer as a healthy app of `version`."""
        self.answers["/api/version"] = (200, json.dumps({"version": version}))
        self.answers["/api/health"] = (200, '{"ok": true}')


@pytest.fixture
def target(tmp_path: Path) -> Callable[..., Target]:
    """Return what makes a target; `facts` are those of `Target` that matter to a test."""

    def target(**facts: Any) -> Target:
        here = str(tmp_path)
        plain = {"name": "staging", "app": "app", "version": "0.1.1", "dsn": "", "origin": "http://127.0.0.1:9"}
        return Target(**{**plain, "root": here, "code": here, "folder": here, **facts})

    return target


@pytest.fixture
def web() -> Iterator[Web]:
    with web_app() as app:
        yield app


@contextmanager
def web_app() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = app.answers.get(self.path, (404, ""))
            if self.path in app.later:
                app.answers[self.path] = app.later.pop(self.path)
            self.send_response(status)
            for name, value in {**app.headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        app = Web(f"http://127.0.0.1:{listening.server_port}", {})
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield app
        listening.shutdown()
