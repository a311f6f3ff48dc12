"""A release's code: unpacked once on the releasing machine, submodules included, and the tar of it that hosts get."""

import os
import shlex
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_tasks import git_setup
from release_tasks.errors import Problem, Refused
from release_tasks.files import RECORDS, atomic_write, emptied, read_text, readable_by_all, without_owner
from release_tasks.git import Git

LINK, EXECUTABLE = 0o120000, 0o100755  # of git's modes of files
UNPACK = 120.0  # seconds for one tree
KEPT = 3  # trees here, with their packages; another one is made again when it is wanted
UNCOMPARED = ":(exclude,attr:rewritten)"  # what an install or a build writes is not as it was committed
AS_COMMITTED = ["-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.sparseCheckout=false"]


def folder_of(root: Path, tag: str) -> Path:
    return root / RECORDS / tag / "code"


def is_ready(root: Path, tag: str, commit: str) -> bool:
    """Tell whether the code of the release `tag` is unpacked and installed as `commit` has it."""
    code = folder_of(root, tag)
    return code.is_dir() and read_text(code.with_suffix(".ready")) == commit


def make_ready(git: Git, tag: str, commit: str, install: Callable[[Path], None]) -> Path:
    """Unpack `commit` as the code of the release `tag`, where it is not, and `install` it; return the folder."""
    code = folder_of(git.root, tag)
    if not is_ready(git.root, tag, commit):
        need_commit(git, tag, commit)
        code.with_suffix(".ready").unlink(missing_ok=True)  # else it could say that half of another commit is ready
        unpack(git, commit, code)
        with readable_by_all():
            install(code)
        atomic_write(code.with_suffix(".ready"), commit.encode())
        ready = sorted((git.root / RECORDS).glob("*/code.ready"), key=lambda mark: mark.stat().st_mtime)
        for mark in ready[:-KEPT]:
            mark.unlink()
            shutil.rmtree(mark.with_suffix(""), ignore_errors=True)
    code.with_suffix(".ready").touch()
    return code


def need_commit(git: Git, tag: str, commit: str) -> None:
    """Raise `Refused` where `commit`, that of the release `tag`, is not here."""
    if not git.commit_named(commit):
        raise Refused(f"The commit {commit:.9} of {tag} is not here.", f"git fetch {git.remote} tag {tag}")


def trees(git: Git, commit: str, prefix: str = "") -> Iterator[tuple[str, Git, str]]:
    """Yield the tree of `commit` and those of its submodules, as path in the whole, repository and commit."""
    yield prefix, git, commit
    for line in git.look("ls-tree", "-r", "-z", commit).stdout.split("\0"):
        about, _, path = line.partition("\t")
        if about.startswith("160000 "):
            inner, wanted = git.root / path, about.split(" ")[2]
            remote = git_setup.remote_of(inner, git.remote) if (inner / ".git").exists() else ""
            if not remote or not (there := Git.open(inner, remote)).commit_named(wanted):
                what = f"The submodule {prefix}{path} does not have its commit {wanted:.9} here."
                raise Refused(what, f"git submodule update --init --recursive -- {shlex.quote(prefix + path)}")
            yield from trees(there, wanted, f"{prefix}{path}/")


def unpushed_problems(git: Git, ours: str) -> Iterator[Problem]:
    """Yield each submodule of HEAD, but `ours`, whose commit is not on its remote: nobody else could build this."""
    with suppress(Refused):  # one that is not checked out is named elsewhere
        for prefix, repo, commit in trees(git, "HEAD"):
            path, where = prefix.rstrip("/"), ("refs/remotes", "refs/tags")
            if path in ("", ours) or repo.is_shallow or repo.look("for-each-ref", "--contains", commit, *where).stdout:
                continue
            what = f"The submodule {path} has the commit {commit:.9}, which its remote has not."
            yield Problem(what, f"git -C {shlex.quote(path)} push {repo.remote} HEAD:BRANCH   # the one it is for")


@readable_by_all()
def unpack(git: Git, commit: str, code: Path) -> None:
    """Write the whole tree of `commit` to the new folder `code`: `git archive` would obey `export-…` attributes."""
    emptied(code)
    with TemporaryDirectory() as folder:
        for number, (prefix, repo, wanted) in enumerate(trees(git, commit)):
            (code / prefix).mkdir(exist_ok=True)
            to, index = f"--work-tree={(code / prefix).resolve()}", f"{folder}/{number}"
            words = ("read-tree", "--reset", "-u", wanted)
            repo.run(*AS_COMMITTED, to, *words, timeout=UNPACK, GIT_INDEX_FILE=index)


def changed_files(git: Git, commit: str, tree: str) -> dict[str, str]:
    """Return the files of `commit`, but those with the attribute `rewritten`, that are not so in the folder `tree`.

    Each has the command that restores it, and all of its repository: those of submodules are compared too.
    """
    found = dict[str, str]()
    with TemporaryDirectory() as folder:
        for number, (prefix, repo, wanted) in enumerate(trees(git, commit)):
            how: dict[str, Any] = {"changes": False, "GIT_INDEX_FILE": f"{folder}/{number}"}
            there = f"--work-tree={Path(tree, prefix)}"
            repo.run(there, "read-tree", wanted, **how)
            diff = repo.run(there, "diff", "--name-only", "-z", "--ignore-submodules=all", "--", UNCOMPARED, **how)
            restore = shlex.join(["git", "-C", str(repo.root), there, "read-tree", "--reset", "-u", wanted])
            found |= {f"{prefix}{path}": restore for path in diff.stdout.split("\0")[:-1]}
    return found


def write_tar(git: Git, commit: str, code: Path, file: Path) -> None:
    """Write the tracked files of `code`, which is `commit`, as the tar `file`: the same commit, the same bytes."""
    time = git.repo.commit(commit).committed_date
    with tarfile.open(file, "w") as tar:
        for prefix, repo, wanted in trees(git, commit):
            tree: Any = repo.repo.commit(wanted).tree  # whose names need be no UTF-8
            for blob in tree.traverse(lambda each, _: each.type == "blob", branch_first=False):
                path = f"{prefix}{blob.path}"
                info = without_owner(tar.gettarinfo(code / path, path), blob.mode == EXECUTABLE, time)
                if blob.mode == LINK:  # which Windows has as a text file
                    info.type, info.size, info.linkname = tarfile.SYMTYPE, 0, os.fsdecode(blob.data_stream.read())
                with (code / path).open("rb") if info.isreg() else nullcontext() as content:
                    tar.addfile(info, content)
