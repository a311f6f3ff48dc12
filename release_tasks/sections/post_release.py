"""Section 10: the release branch merged back, the next version in work, the cycle open."""

from __future__ import annotations

import re

from release_tasks import process, versions
from release_tasks.errors import NotYet, Refused, refuse
from release_tasks.release import Release, Step
from release_tasks.sections import archive, docs_pack, notes


def merge_the_release_branch_back(release: Release) -> Step:
    """Merge the release branch back."""
    git, settings = release.git, release.settings
    main = git.commit_named(release.main_ref) or ""
    there = git.remote_refs.get(release.main_ref, main)
    if release.is_over or (git.contains(main, release.tip) and git.contains(main, there) and _is_archived(release)):
        return f"{settings.main} has it"
    if not _is_archived(release):
        raise NotYet("after the evidence pack is archived")
    tip = release.tip
    yield f"git switch {settings.main}; git merge {settings.remote}/{settings.main}; git merge --no-ff {release.branch}"
    git.fetch()
    git.run("switch", "--quiet", settings.main)
    _merge(release, there, f"{settings.remote}/{settings.main}", "--no-edit")
    _merge(release, tip, release.branch, "--no-ff", "--message", f"Merge {release.branch}: {release.title}")


def _is_archived(release: Release) -> bool:
    return archive.pack_folder(release).exists()


def _merge(release: Release, commit: str, name: str, *options: str) -> None:
    """Merge `commit`; on a conflict put everything back and say how a person finishes it."""
    git, main = release.git, release.settings.main
    if git.contains("HEAD", commit):
        return
    try:
        git.run("merge", "--quiet", *options, commit)
    except process.CommandFailed as no:
        conflicts = git.run("diff", "--name-only", "--diff-filter=U", check=False).stdout.split()
        git.run("merge", "--abort", check=False)
        raise Refused(
            f"{name} does not merge into {main}: {', '.join(conflicts) or no.finished.tail(3)}. Nothing was changed.",
            f"git switch {main} && git merge --no-ff {commit:.9}   # resolve the conflicts, git add, git commit; then\n"
            f"inv release --version {release.version}",
        ) from no


def open_the_next_cycle(release: Release, next: str | None = None) -> Step:
    """Bump VERSION to the next dev number."""
    git, upcoming = release.git, next_version(release, next)
    main = git.commit_named(release.main_ref)
    if release.is_over:
        return release.version_at(release.tip)
    if main is None or not git.contains(main, release.tip) or not _is_archived(release):
        raise NotYet("after the release branch is merged back")
    if release.goes_on_at(main):
        return release.version_at(main)
    yield f"VERSION {release.version} → {upcoming}"
    if git.branch != release.settings.main:
        git.run("switch", "--quiet", release.settings.main)
    files = docs_pack.version_files(release, upcoming, main)
    changelog = git.text_at(main, release.settings.changelog)
    if changelog is not None:
        files[release.settings.changelog] = with_heading(changelog, upcoming).encode()
    git.commit_files(files, f"release: open the cycle of {upcoming}")


def push_the_main_branch(release: Release) -> Step:
    """Push: the cycle is open."""
    git, settings = release.git, release.settings
    if release.is_over:
        return f"{settings.remote} has it"
    main = git.commit_named(release.main_ref) or ""
    if not (git.contains(main, release.tip) and release.goes_on_at(main)):
        raise NotYet("after the next cycle is opened")
    yield f"git push {settings.remote} {release.main_ref}"
    git.push(f"{release.main_ref}:{release.main_ref}")


def next_version(release: Release, given: str | None) -> str:
    """Return the version to work on next: `given`, else the next patch; raises `Refused` when it is not past this."""
    upcoming = given or versions.next_in_work(release.version)
    if not versions.is_version(upcoming):
        refuse(versions.version_problems(upcoming))
    if not versions.opens_a_cycle_after(upcoming, release.version):
        raise Refused(
            f"--next {upcoming} does not come after {release.version}.",
            f"--next {versions.next_in_work(release.version)}",
        )
    return upcoming


def with_heading(changelog: str, version: str) -> str:
    """Return `changelog` with an empty section for `version` above the newest one, unless it has one."""
    upcoming = versions.release_after(version)
    if re.search(rf"^## +{notes.title_of(upcoming)}", changelog, re.MULTILINE):
        return changelog
    first = re.search(r"^## ", changelog, re.MULTILINE)
    before, after = (changelog[: first.start()], changelog[first.start() :]) if first else (changelog, "")
    return f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}## {upcoming}\n\n{after}"
