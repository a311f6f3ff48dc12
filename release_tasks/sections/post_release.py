"""Section 10: the release branch merged back, the next version in work, the cycle open."""

import re

from release_tasks import versions
from release_tasks.commits import commit_step
from release_tasks.errors import Refused, require
from release_tasks.release import Release, Step
from release_tasks.sections import archive, docs_pack, notes


def merge_the_release_branch_back(release: Release) -> Step:
    """Merge the release branch back."""
    git, settings, main = release.git, release.settings, release.settings.main
    here, tip = git.commit_named(release.main_ref) or "", release.tip
    there = git.remote_refs.get(release.main_ref, here)
    is_archived = archive.pack_folder(release).exists()
    if release.is_over or (is_archived and git.contains(here, tip) and git.contains(here, there)):
        return f"{main} has it"
    require(is_archived, "after the evidence pack is archived")
    yield f"git switch {main}; git merge {settings.remote}/{main}; git merge --no-ff {release.branch}"
    git.fetch()
    git.run("switch", "--quiet", main)
    _merge(release, there, f"{settings.remote}/{main}", "--no-edit")
    _merge(release, tip, release.branch, "--no-ff", "--message", f"Merge {release.branch}: {release.title}")


def _merge(release: Release, commit: str, name: str, *options: str) -> None:
    """Merge `commit`; on a conflict put everything back and say how a person finishes it."""
    git, main = release.git, release.settings.main
    merged = git.run("merge", "--quiet", *options, commit, check=False)
    if merged.code:
        conflicts = git.run("diff", "--name-only", "-z", "--diff-filter=U", check=False).stdout.split("\0")[:-1]
        git.run("merge", "--abort", check=False)
        raise Refused(
            f"{name} does not merge into {main}: {', '.join(conflicts) or merged.tail(3)}. The merge was taken back.",
            f"git switch {main} && git merge --no-ff {commit:.9}   # resolve the conflicts, git add, git commit; then\n"
            f"{release.again()}",
        )


def open_the_next_cycle(release: Release, next: str | None = None) -> Step:
    """Bump VERSION to the next dev number."""
    git, upcoming, main = release.git, next_version(release, next), release.settings.main
    if release.is_over:
        return release.version_at(release.tip)
    is_merged = git.contains(release.main_ref, release.tip) and archive.pack_folder(release).exists()
    require(is_merged, "after the release branch is merged back")
    if release.goes_on_at(release.main_ref):
        return release.version_at(release.main_ref)
    yield f"VERSION {release.version} → {upcoming}"
    git.run("switch", "--quiet", main)
    files, path = docs_pack.version_files(release, upcoming, release.main_ref), release.settings.changelog
    if (changelog := git.text_at(release.main_ref, path)) is not None:
        files[path] = with_heading(changelog, upcoming).encode()
    commit_step(git, files, f"release: open the cycle of {upcoming}", f"{release.tag} post-release")


def next_version(release: Release, given: str | None) -> str:
    """Return the version to work on next: `given`, else the next patch; raises `Refused` when it is not past this."""
    proposed = f"{versions.next_release(release.version)}-dev"
    upcoming = given or proposed
    if not versions.opens_a_cycle_after(upcoming, release.version):
        what = f"--next {upcoming} is no version that comes after {release.version}."
        raise Refused(what, release.again(next=proposed))
    return upcoming


def with_heading(changelog: str, version: str) -> str:
    """Return `changelog` with an empty section for `version` above the newest one, unless it has one or Unreleased."""
    upcoming = versions.release_after(version)
    if re.search(rf"^## +({notes.title_of(upcoming)}|{notes.UNRELEASED})", changelog, re.MULTILINE):
        return changelog
    found = re.search(r"^## |\Z", changelog, re.MULTILINE)
    at = found.start() if found else 0
    line_end = "\n" if at and changelog[at - 1] != "\n" else ""
    return f"{changelog[:at]}{line_end}## {upcoming}\n\n{changelog[at:]}"


def push_the_main_branch(release: Release) -> Step:
    """Push: the cycle is open."""
    git, remote, ref = release.git, release.settings.remote, release.main_ref
    if release.is_over:
        return f"{remote} has it"
    is_open = git.contains(ref, release.tip) and release.goes_on_at(ref)
    require(is_open, "after the next cycle is opened")
    yield f"git push {remote} {ref}"
    release.lock.push(f"{ref}:{ref}", what="is over", last=True)
