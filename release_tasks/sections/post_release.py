"""Section 10: the release branch merged back, the next version in work, the cycle open."""

from release_tasks import changelog, versions
from release_tasks.commits import commit_step
from release_tasks.errors import Manual, Refused, listed, require
from release_tasks.release import Release, Step
from release_tasks.sections import docs_pack, landing


def merge_the_release_branch_back(release: Release) -> Step:
    """Merge the release branch back."""
    git, base, remote = release.git, release.base, release.settings.remote
    here, there = git.commit_named(release.base_ref) or "", git.remote_commit(release.base_ref) or ""
    is_archived, tip = release.pack_folder.exists(), release.tip
    is_merged = is_archived and git.contains(here, tip) and git.contains(here, there or here)
    if is_merged or base not in landing.lacking(release):
        return f"merged into {base}"
    require(is_archived, "after the evidence pack is archived")
    ours = git.look("log", "--format=%s", here, f"^{there}", f"^{tip}").stdout.splitlines() if here and there else []
    unpushed = f", pushed too: {listed(ours)}" if ours else ""
    yield f"git switch {base}; git merge {remote}/{base}; git merge --no-ff {release.branch}{unpushed}"
    git.fetch(release.base_ref)  # a full disk ends it here, before files are half switched
    git.run("switch", "--quiet", *([base] if here else ["--create", base, there]))
    _merge(release, there or here, f"{remote}/{base}", "--ff", "--no-edit")
    _merge(release, tip, release.branch, "--no-ff", "--message", f"Merge {release.branch}: {release.title}")


def _merge(release: Release, commit: str, name: str, *options: str) -> None:
    """Merge `commit`; on a conflict put everything back and say how a person finishes it."""
    git, base = release.git, release.base
    merged = git.run("merge", "--quiet", *options, commit, check=False)
    if merged.code:
        git.run("merge", "--abort", check=False)
        what = f"{name} does not merge into {base}, and the merge was taken back: {merged.tail(40)}"
        fix = f"git switch {base} && git merge --no-ff {commit:.9}   # resolve the conflicts, git add, git commit; then"
        raise Refused(what, f"{fix}\n{release.again()}")


def open_the_next_cycle(release: Release, next: str | None = None) -> Step:
    """Bump VERSION to the next dev number."""
    git, upcoming, base_ref = release.git, next_version(release, next), release.base_ref
    if release.base not in landing.lacking(release):
        return release.version_at(git.remote_commit(release.base_ref) or "")
    is_merged = git.contains(base_ref, release.tip) and release.pack_folder.exists()
    require(is_merged, "after the release branch is merged back")
    if release.has_next_version(base_ref):
        return release.version_at(base_ref)
    yield f"VERSION {release.version} → {upcoming}"
    git.run("switch", "--quiet", release.base)
    files, path = docs_pack.with_version_everywhere(release, upcoming, base_ref), release.settings.changelog
    if (text := git.text_at(base_ref, path)) is not None:
        files[path] = changelog.with_heading(text, upcoming).encode()
    commit_step(git, files, f"release: open the cycle of {upcoming}", f"{release.tag} post-release")


def next_version(release: Release, given: str | None) -> str:
    """Return the version to work on next: `given`, else the next patch; raises `Refused` when it is not past this."""
    proposed = f"{versions.next_release(release.version)}-dev"
    upcoming = given or proposed
    if not versions.opens_a_cycle_after(upcoming, release.version):
        what = f"--next {upcoming} is no version that comes after {release.version}."
        raise Refused(what, release.again(next=proposed))
    return upcoming


def push_the_main_branch(release: Release) -> Step:
    """Push: the main branch has it, and the cycle is open."""
    git, left, lock = release.git, landing.lacking(release), release.lock
    if not left and lock.state().holder != lock.holder:
        waiting = landing.lacking(release, waiting=True)
        waits = [f"{branch} waits for the pull request of {back}" for branch, back in waiting.items()]
        return Manual("; ".join(waits)) if waits else "pushed"
    is_open = git.contains(release.base_ref, release.tip) and release.has_next_version(release.base_ref)
    require(is_open or release.base not in left, "after the next cycle is opened")
    yield f"git push {release.settings.remote} {' '.join(left) or lock.ref}"
    if not left:  # a pull request was merged meanwhile
        lock.push(what="is over", last=True)
    for branch, back in left.items():
        commit = git.commit_named(release.base_ref) or ""
        if branch != release.base:
            text, title = git.text_at(release.tip, release.notes_path) or "", f"release: notes for {release.tag}"
            commit = landing.notes_on_main(release, text, f"{title}, from {release.base}")
        landing.push(release, branch, back, commit, last=branch == list(left)[-1])
