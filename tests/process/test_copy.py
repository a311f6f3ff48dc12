"""The layer as it is copied into a sibling repo: plain files, nothing installed, nothing assumed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside import LAYER, PATIENCE, Ran, git, introduce

APP = {"app.py": "print('Hello')\n", "README.md": "# An app\n", "LICENSE": "None.\n"}
MINIMAL = "tasks: {executor_class: release_tasks.engine.ReleaseExecutor}\nrelease: {app: tiny}\n"
BROUGHT = {
    "VERSION": "0.1.1-dev\n",
    "SOURCE_TAG": "v0.1.0\n",
    "docs/RELEASE_NOTES_TEMPLATE.md": (LAYER / "docs" / "RELEASE_NOTES_TEMPLATE.md").read_text(encoding="utf-8"),
}
FILE = re.compile(r"\b[\w./-]+\.(?:md|py|toml|yaml|yml|json|txt|cfg)\b|\b(?:docs|sample|tests|bench)/")
# What a repo may add, and what a release writes.
OPTIONAL = {"noxfile_local.py", "tasks_local.py", "manifest-sha256.txt"}
LISTS = ("nox -l", "nox", "invoke --list")
# What each command says in a copy without settings: before the first commit, after it, and at either time.
UNCOMMITTED = {
    "invoke status --version 0.1.1": "The repository has no commit yet. git add -A && git commit",
    "invoke --dry release --version 0.1.1": "The repository has no commit yet. git add -A && git commit",
    "invoke ddl.validate": "The repository has no commit yet. git add -A && git commit",
    "invoke accept": "The repository has no commit yet. git add -A && git commit",
}
COMMITTED = {
    "invoke status --version 0.1.1": "There is no remote 'origin'. git remote add origin",
    "invoke --dry release --version 0.1.1": "There is no remote 'origin'. git remote add origin",
    "invoke ddl.validate": "No *.sql file is committed in ddl; expected the DDL pack. Set release.ddl.folder.",
    "invoke accept": "Nothing has been deployed to staging yet. inv deploy.staging",
}
ALWAYS = {
    "nox -s smokes": "There is no test: a release that nothing checks is none. Write smokes/test_<name>.py",
    "invoke smokes": "There is no test: a release that nothing checks is none. Write smokes/test_<name>.py",
    "invoke rehearse": "A rehearsal runs the application itself, and release.services.web does not say how.",
    "invoke release --yes": "Which version? None was given, and ",
}
SERVER = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"ok": True, "version": "0.1.1-dev"}).encode())

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""
SMOKE = """
import pathlib, sys
sys.path.append(str(pathlib.Path(__file__).parent))
import helper

def test_it(record_property):
    record_property("one", helper.ONE)
    assert helper.ONE == 1
"""


def copied_files() -> list[str]:
    """Return the names of the files that the README says to copy."""
    sentence = re.search(r"^Copy (.+?);", (LAYER / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert sentence
    return re.findall(r"`([^`]+)`", sentence[1])


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    """A git repo with a small app, into which the layer's files were copied; its path needs quotes."""
    repo = tmp_path / "an adopter's app"
    write(repo, APP)
    copy_into(repo)
    git(repo, "init", "--quiet", "--initial-branch=main")
    introduce(repo)
    yield repo


def copy_into(repo: Path) -> None:
    subprocess.run(["cp", "-r", *copied_files(), str(repo)], cwd=LAYER, check=True)


def write(repo: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(text, encoding="utf-8")


def commit(repo: Path) -> list[str]:
    """Commit all there is, after which the tree is clean; return the committed files."""
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message", "feat: an app")
    assert is_clean(repo)
    return git(repo, "ls-files", "-z").rstrip("\0").split("\0")


def is_clean(repo: Path) -> bool:
    return not git(repo, "status", "--porcelain", "--untracked-files=all")


def run(repo: Path, command: str) -> Ran:
    """Run `python -m command` as a person would; whatever it says, it is no traceback."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=repo,
        env={**env, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    output = ran.stdout + ran.stderr
    assert "Traceback" not in output and len(output.split()) > 5, f"{command}:\n{output}"
    return Ran(ran.returncode, output)


def answers(repo: Path, command: str, code: int) -> str:
    """Run `command`, which ends with `code` and names no file that is not there; return what it says."""
    ran = run(repo, command)
    assert ran.code == code, f"{command}:\n{ran.output}"
    named = set(FILE.findall(ran.output.replace(f"{repo}/", "")))
    absent = {word for word in named - OPTIONAL if not (repo / word).exists()}
    assert not absent, f"{command}:\n{ran.output}"
    return ran.flat


@pytest.mark.parametrize("brought", [{}, BROUGHT], ids=["nothing else", "with what a release needs"])
def test_a_copy_answers_in_sentences_and_leaves_the_tree_clean(repo: Path, brought: dict[str, str]) -> None:
    write(repo, {"invoke.yaml": MINIMAL, **brought})
    for command in LISTS:
        answers(repo, command, 0)
    for command, sentence in {**UNCOMMITTED, **({} if brought else ALWAYS)}.items():
        assert sentence in answers(repo, command, 1)
    committed = commit(repo)
    ours = {name.strip("/") for name in copied_files()}
    assert {name.partition("/")[0] for name in committed} == {*APP, *ours, *(name.split("/")[0] for name in brought)}
    assert not [name for name in committed if "__pycache__" in name]
    for command, sentence in {**COMMITTED, **(ALWAYS if brought else {})}.items():
        assert sentence in answers(repo, command, 1)
    assert is_clean(repo)


def test_a_copy_with_the_settings_of_this_repo_says_which_do_not_fit(repo: Path) -> None:
    write(repo, BROUGHT)
    for command in ("nox -s smokes", "invoke smokes"):
        assert run(repo, command).refuses("release.folder in invoke.yaml is 'sample'")
    commit(repo)
    git(repo.parent, "init", "--quiet", "--bare", "origin.git")
    git(repo, "remote", "add", "origin", str(repo.parent / "origin.git"))
    git(repo, "push", "--quiet", "origin", "main")
    ran = run(repo, "invoke status --version 0.1.1")
    assert ran.refuses("release.folder", "sample/package.json", "release.ddl.folder", "release.docs_pack.include")
    for command in ("invoke rehearse", "invoke ddl.validate", "invoke accept"):
        assert run(repo, command).code == 1
    assert is_clean(repo)


def test_a_copy_below_the_root_of_a_repo_says_where_it_belongs(repo: Path) -> None:
    """R22: the hint was `git init`, below the root."""
    part = repo / "a part"
    write(part, {**APP, "invoke.yaml": ""})
    copy_into(part)
    (part / "invoke.yaml").write_text(MINIMAL)
    for command in ("status --version 0.1.1", "ddl.validate", "accept"):
        ran = run(part, f"invoke {command}")
        assert ran.refuses(f"a part/ is a folder of the git repository {repo}; expected tasks.py at its root")
        assert "git init" not in ran.output


def test_a_copy_without_git_says_so(repo: Path) -> None:
    (repo / "invoke.yaml").write_text(MINIMAL)
    (repo / ".git").rename(repo.parent / "no.git")
    assert run(repo, "invoke status --version 0.1.1").refuses("is not a git repository.", "git init && git add --all")


def test_smokes_of_a_repo_s_own_leave_the_tree_clean(repo: Path) -> None:
    settings = MINIMAL.replace("app: tiny", f"app: tiny, services: {{web: [{sys.executable}, app.py]}}")
    smokes = {"smokes/test_one.py": SMOKE, "smokes/helper.py": "ONE = 1\n"}
    write(repo, {"invoke.yaml": settings, "app.py": SERVER, **smokes})
    commit(repo)
    ran = run(repo, "invoke smokes")
    assert ran.code == 0, ran.output
    assert is_clean(repo)
