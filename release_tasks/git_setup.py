"""How git is set up around us: a hook that calls us, an owner it does not trust, the ssh it is told to use."""

import os
import re
from pathlib import Path

from release_tasks.errors import Refused
from release_tasks.process import Finished

# What makes git work on another repository, as in a hook (git rev-parse --local-env-vars). Its GIT_CONFIG_*, by which
# containers and CI set safe.directory and the like, stay.
ELSEWHERE = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_GRAFT_FILE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_INTERNAL_SUPER_PREFIX"),
    *("GIT_IMPLICIT_WORK_TREE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE"),
)
TRUST = re.compile(r"git config --global --add safe\.directory .*")


def stay_here() -> None:
    """Let git, GitPython and all that we start work on the repository of their folder, not on a calling hook's."""
    for name in ELSEWHERE:
        os.environ.pop(name, None)


def check_root(root: Path, found: Finished) -> None:
    """Raise `Refused` unless `root` is where git, as `found` by rev-parse, has the root of a repository."""
    trusted(found)
    if (root / ".git").exists():
        return
    if not (top := found.stdout.strip()):
        raise Refused(f"{root.name}/ is not a git repository.", "git init && git add --all && git commit")
    what = f"{root.name}/ is a folder of the git repository {top}; expected tasks.py at its root."
    raise Refused(what, "Move tasks.py, noxfile.py, invoke.yaml and release_tasks/ there, and set release.folder.")


def trusted(finished: Finished) -> None:
    """Raise `Refused` with git's own words and command where it does not trust a folder of another owner."""
    if fix := TRUST.search(finished.stderr):
        raise Refused(finished.stderr.strip().partition("\n")[0], fix[0])


def ssh_variables(configured: str) -> dict[str, str]:
    """Return variables for an ssh that never prompts, none where the user or `configured` chose one."""
    chosen = configured or os.environ.keys() & {"GIT_SSH_COMMAND", "GIT_SSH"}
    return {} if chosen else {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
