"""Section 10: the release branch merged back, the next version in work, the cycle open."""

from __future__ import annotations

import re

from release_tasks import versions
from release_tasks.errors import Refused, refuse, require
from release_tasks.release import Release, Step, version_here
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
    if git.contains("HEAD", commit):
        return
    merged = git.run("merge", "--quiet", *options, commit, check=False)
    if merged.code:
        conflicts = git.run("diff", "--name-only", "--diff-filter=U", check=False).stdout.split()
        git.run("merge", "--abort", check=False)
        raise Refused(
            f"{name} does not merge into {main}: {', '.join(conflicts) or merged.tail(3)}. Nothing was changed.",
            f"git switch {main} && git merge --no-ff {commit:.9}   # resolve the conflicts, git add, git commit; then\n"
            f"inv release --version {release.version}",
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
    if git.branch != main:
        git.run("switch", "--quiet", main)
    git.commit_files(files_of_cycle(release, upcoming), f"release: open the cycle of {upcoming}")


def files_of_cycle(release: Release, upcoming: str) -> dict[str, bytes]:
    """Return path → bytes of what opens the cycle of the version `upcoming` on the main branch."""
    files = docs_pack.version_files(release, upcoming, release.main_ref)
    changelog = release.git.text_at(release.main_ref, release.settings.changelog)
    if changelog is not None:
        files[release.settings.changelog] = with_heading(changelog, upcoming).encode()
    return files


def half_opened(release: Release, dirty: list[str]) -> list[str]:
    """Return those of the `dirty` files on the main branch that are, byte for byte, what opens the next cycle."""
    git, main = release.git, release.main_ref
    if git.branch != release.settings.main or "VERSION" not in dirty:  # which is written first
        return []
    upcoming = version_here(release.root)
    follows = versions.is_version(upcoming) and versions.opens_a_cycle_after(upcoming, release.version)
    is_merged = release.published and git.contains(main, release.tip) and not release.goes_on_at(main)
    return git.same_here(files_of_cycle(release, upcoming), dirty) if follows and is_merged else []


def push_the_main_branch(release: Release) -> Step:
    """Push: the cycle is open."""
    git, remote, ref = release.git, release.settings.remote, release.main_ref
    if release.is_over:
        return f"{remote} has it"
    is_open = git.contains(ref, release.tip) and release.goes_on_at(ref)
    require(is_open, "after the next cycle is opened")
    yield f"git push {remote} {ref}"
    git.push(f"{ref}:{ref}")


def next_version(release: Release, given: str | None) -> str:
    """Return the version to work on next: `given`, else the next patch; raises `Refused` when it is not past this."""
    proposed = versions.next_in_work(release.version)
    upcoming = given or proposed
    if not versions.is_version(upcoming):
        refuse(versions.version_problems(upcoming))
    if not versions.opens_a_cycle_after(upcoming, release.version):
        raise Refused(f"--next {upcoming} does not come after {release.version}.", f"--next {proposed}")
    return upcoming


def with_heading(changelog: str, version: str) -> str:
    """Return `changelog` with an empty section for `version` above the newest one, unless it has one."""
    upcoming = versions.release_after(version)
    if re.search(rf"^## +{notes.title_of(upcoming)}", changelog, re.MULTILINE):
        return changelog
    first = re.search(r"^## ", changelog, re.MULTILINE)
    before, after = (changelog[: first.start()], changelog[first.start() :]) if first else (changelog, "")
    return f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}## {upcoming}\n\n{after}"
