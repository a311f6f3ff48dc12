"""Bring a release to its branch and to main: by a push, or by a pull request where the host declines that."""

import re
from tempfile import TemporaryDirectory

from release_tasks import lines, screen
from release_tasks.commits import TRAILER
from release_tasks.errors import Problem, Refused
from release_tasks.files import atomic_write
from release_tasks.git import Git
from release_tasks.process import CommandFailed
from release_tasks.release import Release

# What drives a release and is not deployed.
LAYER = ("invoke.yaml", "tasks.py", "tasks_local.py", "noxfile.py", "noxfile_local.py", "release_tasks/")
# What hosts answer to the push of a protected branch: GitHub (GH006, GH013), GitLab, Bitbucket, Gitea, Azure, Gerrit
DECLINED = re.compile(r"(?m)^!\t\S+\t\[remote rejected\] \((.*(?:declined|TF40\d+|prohibited by|protected).*)\)$")


def behind_problems(release: Release, branch: str) -> list[Problem]:
    """Return a problem if `branch` lacks what the remote's has; what is not published can be rebased."""
    git, remote, ref = release.git, release.settings.remote, f"refs/heads/{branch}"
    there = git.remote_refs.get(ref)
    if there is None or git.commit_named(ref) is None or git.contains(ref, there):
        return []
    pull = "git pull --no-rebase --ff --no-edit" if release.published else "git pull --rebase"
    fix = f"{'' if git.branch == branch else f'git switch {branch} && '}{pull} {remote} {branch}"
    is_to_be_tagged_anew = git.commit_named(release.tag_ref) and not release.published
    hint = lines.retag_hint(release.tag, then=f" && {fix}") if is_to_be_tagged_anew else fix
    return [Problem(f"{branch} lacks commits that {remote} has ({there:.9}).", hint)]


def to_its_branch(release: Release) -> str:
    """Return how the hint of a change begins that the release branch has to get, where that is not checked out."""
    return "" if release.git.commit_named("HEAD") == release.tip else f"git switch {release.branch} && "


def lacking(release: Release, waiting: bool = False) -> dict[str, str]:
    """Return branch → branch of its pull request, for each still to be pushed, or `waiting` for that pull request."""
    backs, refs = {release.base: f"release/{release.tag}-back"}, release.git.remote_refs
    backs.setdefault(release.settings.main, f"release/{release.tag}-notes-back")
    left = {branch: back for branch, back in backs.items() if not release.is_in(branch)}
    return {branch: back for branch, back in left.items() if (f"refs/heads/{back}" in refs) == waiting}


def push(release: Release, branch: str, back: str, commit: str, last: bool, what: str = "is over") -> None:
    """Push `commit` to `branch`, or where a rule of the host declines that, as `back` for a pull request.

    The `last` push gives up the release lock: a review may take days.
    """
    git, ref = release.git, f"refs/heads/{branch}"
    try:
        release.lock.push(f"{commit}:{ref}", what=what, last=last)
    except CommandFailed as error:
        if not (reason := DECLINED.search(error.finished.stdout)):
            raise
        pushed = release.lock.push(f"{commit}:refs/heads/{back}", what="waits for review", last=last)
        if git.commit_named(ref) == commit:  # the branch gets all of this by the pull request, perhaps squashed
            git.run("switch", "--quiet", release.branch)
            git.run("branch", "--quiet", "--force", branch, git.remote_refs[ref])
        screen.say(f"{release.settings.remote} declines a push of {branch}: {reason[1]}. {back} was pushed instead.")
        for line in (error.finished.stderr + pushed.stderr).splitlines():
            if line.startswith("remote:"):
                screen.say(f"  {line.rstrip()}")


def notes_on_main(release: Release, text: str, title: str) -> str:
    """Make and return a commit of the notes alone, as `text`, on top of the remote's main; nothing is checked out.

    Where they are in a submodule, one is pushed to that first, on top of its branch, and main gets that.
    """
    git, message = release.git, (title, f"{TRAILER}: {release.tag} notes-on-main")
    git.refresh()
    if not (main := git.remote_commit(release.main_ref)):
        what = f"{git.remote} has no branch {release.settings.main}, which gets the notes."
        raise Refused(what, f"git push {git.remote} {release.settings.main}   # or set release.main")
    top, _, inside = release.notes_path.partition("/")
    submodule = git.submodule(top)
    atomic_write(file := release.folder / "notes.md", text.encode())
    blob = (submodule or git).run("hash-object", "-w", "--no-filters", str(file)).stdout.strip()
    entry = f"100644,{blob},{release.notes_path}"
    if submodule:
        branch = f"refs/heads/{release.settings.docs_pack.submodule_branch}"
        there = submodule.remote_commit(branch) or "HEAD"
        commit = _with_entry(submodule, there, f"100644,{blob},{inside}", *message)
        submodule.push(f"{commit}:{branch}")
        entry = f"160000,{commit},{top}"
    return _with_entry(git, main, entry, *message)


def _with_entry(git: Git, parent: str, entry: str, *message: str) -> str:
    """Make and return a commit on `parent` that has the `entry` of an index, as mode,object,path."""
    with TemporaryDirectory() as folder:
        for args in (["read-tree", parent], ["update-index", "--add", "--cacheinfo", entry], ["write-tree"]):
            tree = git.run(*args, GIT_INDEX_FILE=f"{folder}/index").stdout.strip()
    return git.commit_tree(tree, parent, *message)
