"""The setup of git around us: a hook that calls us, hooks of its own."""

import os
from functools import cache
from pathlib import Path

from release_tasks import process
from release_tasks.errors import Problem, Refused, listed
from release_tasks.process import CommandFailed, Finished

MAY_WAIT = ("commit", "commit-tree", "merge", "switch", "tag")  # for a passphrase, or for files of git-lfs
HOOKED, HOOK = ("commit", "merge", "push"), 900.0  # seconds that one with hooks may take: they may run all tests
MARKS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply", "BISECT_LOG", "index.lock")


def stay_here() -> None:
    """Let git, GitPython and all that we start work on the repository of their folder, not on a calling hook's."""
    if not any(name.startswith("GIT_") for name in os.environ):
        return
    for name in process.run(["git", "rev-parse", "--local-env-vars"]).stdout.split():
        if not name.startswith("GIT_CONFIG"):  # by which containers and CI set safe.directory and the like
            os.environ.pop(name, None)


def check_root(root: Path, found: Finished, head: str | None) -> None:
    """Raise `Refused` unless `root` is that of a repository, as rev-parse has `found` it, with a commit, `head`."""
    if os.path.expandvars(root) != str(root):
        raise Refused(f"{root} has a $ in it that GitPython reads as a variable.", "Move it to a path without a $.")
    if "not a git repository (" in found.stderr and not (root / ".git").exists():
        raise Refused(f"{root.name}/ is not a git repository.", "git init && git add --all && git commit")
    if found.code:
        raise Refused(f"Git cannot use {root.name}/: {found.tail()}", "git status")
    if not (root / ".git").exists():
        what = f"{root.name}/ is a folder of the git repository {found.stdout.strip()}; expected tasks.py at its root."
        raise Refused(what, "Move tasks.py, noxfile.py, invoke.yaml and release_tasks/ there, and set release.folder.")
    if not head:
        raise Refused("The repository has no commit yet.", "git add -A && git commit")


def under_way(git_dir: str | os.PathLike[str]) -> str | None:
    """Return an operation that git has left unfinished there: a merge, a rebase, a lock; None when nothing."""
    return next((mark for mark in MARKS if (Path(git_dir) / mark).exists()), None)


def variables() -> dict[str, str]:
    """Return variables for git: no editor, English words, our commits in UTF-8; LF and signatures are no matter."""
    ours = "'core.safecrlf=false' 'i18n.commitEncoding=UTF-8' 'log.showSignature=false'"
    config = f"{os.environ.get('GIT_CONFIG_PARAMETERS', '')} {ours}"
    return {"GIT_EDITOR": "true", "LC_ALL": "C", "GIT_CONFIG_PARAMETERS": config.strip()}


@cache
def remote_of(root: Path, ours: str) -> str:
    """Return the only remote of the submodule at `root`, `ours` where it has several or none: names may differ."""
    remotes = process.run(["git", "remote"], cwd=root, check=False, record=False).stdout.split()
    return remotes[0] if len(remotes) == 1 else ours


def hooks(root: Path, command: str) -> str:
    """Return the hooks that run with `git command`, "" where there is none."""
    if command not in HOOKED:
        return ""
    found = process.run(["git", "rev-parse", "--git-path", "hooks"], cwd=root, check=False, record=False)
    folder = root / found.stdout.strip()
    return listed(sorted(str(hook) for hook in folder.glob(f"*{command}*") if hook.suffix != ".sample"))


def explain(failed: CommandFailed, hooks: str, changes: bool) -> None:
    """Add to `failed` which `hooks` ran with the command.

    One that `changes` something is not shown to be typed: it may have had an index of its own.
    """
    (problem,) = failed.problems
    what = f"{problem.what}\nWith it ran {hooks}." if hooks else problem.what
    failed.problems = (Problem(what, "git status   # then run the same command again" if changes else problem.hint),)
