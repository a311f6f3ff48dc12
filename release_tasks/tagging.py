"""Section 5: the annotated tag, and branch and tag pushed together."""

from __future__ import annotations

from release_tasks import docs_pack
from release_tasks.errors import NotYet, Refused
from release_tasks.git import differing, listed
from release_tasks.release import Release, Step

LAYER = ("invoke.yaml", "tasks.py", "tasks_local.py", "noxfile.py", "release_tasks/")  # drives, is not deployed


def tag_the_release(release: Release) -> Step:
    """Tag the release commit."""
    git, tag = release.git, release.tag
    if release.published:
        _keep_the_branch_at_the_tag(release)
        return f"{release.published:.9}"
    commit, there = release.tip, git.commit_named(release.tag_ref)
    if there and there != commit:
        raise Refused(
            f"{tag} names {there:.9}, not the release commit {commit:.9} of {release.branch}; it is not pushed.",
            f"git tag --delete {tag}   # if it is a mistake; then run again",
        )
    if there:
        return f"{there:.9}"
    if not _is_packed(release, commit):
        raise NotYet("after the docs pack is built")
    sign = ["--sign"] if release.options.get("sign") else []
    yield f"git tag --annotate {' '.join([*sign, tag])} {commit:.9}"
    git.run("tag", "--annotate", *sign, "--message", release.title, tag, commit)


def push_branch_and_tag(release: Release) -> Step:
    """Push branch and tag together."""
    git = release.git
    if release.published:
        return "both are there"
    commit = git.commit_named(release.tag_ref)
    if commit is None:
        raise NotYet("after the tag")
    there = git.remote_refs.get(release.branch_ref)
    if there and not git.contains(commit, there):
        raise Refused(
            f"{release.branch} on the remote is {there:.9}, which is not in the release commit {commit:.9}.",
            f"git tag --delete {release.tag} && git pull --ff-only {release.settings.remote} {release.branch}",
        )
    yield f"git push --atomic {release.settings.remote} {release.branch_ref} {release.tag_ref}"
    git.push(f"{commit}:{release.branch_ref}", f"{release.tag_ref}:{release.tag_ref}")


def _is_packed(release: Release, commit: str) -> bool:
    """Tell whether `commit` has the docs pack of this version."""
    lock = release.git.bytes_at(commit, release.settings.ddl.lock)
    version = release.git.text_at(commit, "VERSION")
    if lock is None or version != f"{release.version}\n":
        return False
    return not differing(docs_pack.expected_pack(release, commit), release.git, commit)


def _keep_the_branch_at_the_tag(release: Release) -> None:
    """Refuse when the release branch got more than notes and layer after the tag: production would not have it."""
    git = release.git
    if not release.settings.branch or release.is_over or release.tip == release.published:
        return
    folder = release.settings.docs_pack.folder
    allowed = (release.notes_path, *LAYER, *([folder] if git.is_submodule(folder) else []))
    changed = git.changed_between(release.published or "", release.tip)
    later = [path for path in changed if not path.startswith(allowed)]
    if later:
        raise Refused(
            f"{release.branch} was changed after {release.tag} was published: {listed(later)}.",
            f"A fix after the tag is a new version: inv release --version {_next(release)}",
        )


def _next(release: Release) -> str:
    from release_tasks import versions

    return versions.next_release(release.version)
