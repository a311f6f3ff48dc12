"""Release lines: the releases that a version comes after. A line that is cut from v0.1.1 never sees 0.2.0."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from semver import Version

from release_tasks import versions
from release_tasks.command_line import again
from release_tasks.commits import history
from release_tasks.errors import Manual, Problem, Refused
from release_tasks.files import RECORDS
from release_tasks.git import Git
from release_tasks.settings import Settings

NOT_HERE = "The tag {} is on the remote, but not here."
WITHDRAWN = re.compile(r"^> (Withdrawn on .*)", re.MULTILINE)


def released(refs: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return version → commit of the tags that name a release of ours, rising; tags in the wild vary."""
    found = {}
    for ref, commit in refs.items():  # "…^{}", the commit that an annotated tag names, is listed after the tag itself
        version = settings.version_of(ref.removeprefix("refs/tags/").removesuffix("^{}"))
        if not versions.version_problems(version):
            found[version] = commit
    return dict(sorted(found.items(), key=lambda each: Version.parse(each[0])))


def has_merged(git: Git, commit: str, tip: str) -> bool:
    """Tell whether `commit` has `tip` by a merge, or a squash that leaves a merge nothing to do (git ≥ 2.38)."""
    fork = git.look("merge-base", commit, tip).stdout.strip()
    if not fork:
        return False
    if git.contains(commit, tip):
        return True
    changed = git.look("diff", "--name-only", "-z", "--no-renames", fork, tip).stdout.split("\0")[:-1]
    names = ["--first-parent", "--reverse", "--name-only", "-z", "--no-renames", "--format=%x1e%H", f"{fork}..{commit}"]
    commits = (each.split("\0") for each in git.look("log", *names).stdout.split("\x1e")[1:])
    touched = {each: {path.removeprefix("\n") for path in paths} & {*changed} for each, *paths in commits}
    if not {*changed} <= set[str]().union(*touched.values()):
        return False  # what was never touched here was not merged: many commits need not be tried
    since = [each for each, paths in touched.items() if paths]
    for each in since:
        tried = git.look("merge-tree", "--write-tree", each, tip)
        if tried.code > 1:  # a conflict is 1
            raise Refused(f"Git cannot try a merge: {tried.tail(1)}", "git --version   # expected 2.38 or newer")
        if tried.stdout.partition("\n")[0] == git.object_named(f"{each}^{{tree}}"):
            return True
    return False


def has_release(git: Git, there: str, commit: str, lock: str) -> bool:
    """Tell whether the branch at `there` got a release's `commit`: merged, or squashed with its very file `lock`."""
    # Unlike `has_merged` it works where main moved on while squashing, so that a merge still has something to do.
    if git.contains(there, commit):
        return True
    since = git.look("rev-list", "--first-parent", f"{commit}..{there}", "--", lock).stdout.split()
    return any(git.bytes_at(each, lock) == git.bytes_at(commit, lock) for each in since)


def retag_hint(tag: str, git: str = "git", then: str = "") -> str:
    """Return how to look at a `tag` that is not right here, and how to take it back, with the command `then` after."""
    return f"{git} show {tag}\n{git} tag --delete {tag}{then}   # only if it is a mistake that was never pushed"


def tagged(git: Git, tag: str) -> str | None:
    """Return the commit that `tag` names on the remote, None where it has none; `Refused` unless we have it too."""
    ref, fetch = f"refs/tags/{tag}", f"git fetch {git.remote} tag {tag}"
    there, here = git.remote_refs.get(ref), git.object_named(ref)
    if there and not here:
        raise Refused(NOT_HERE.format(tag), fetch)
    if there and here != there:
        what = f"The tag {tag} is {there:.9} on the remote, but {here:.9} here."
        raise Refused(what, retag_hint(tag, then=f" && {fetch}"))
    return git.commit_named(ref) if there else None


def withdrawn(git: Git, settings: Settings, version: str, main: str | None = None) -> str:
    """Return what the notes of `version` on `main` say of a withdrawal; "" for nothing.

    By default they are the remote's, and may wait for their pull request, which is `Manual`.
    """
    there = main or git.remote_commit(f"refs/heads/{settings.main}")
    if found := WITHDRAWN.search((there and git.text_at(there, settings.notes_of(version))) or ""):
        return found[1]
    back = withdrawal_branch(settings, version)
    waits = not main and f"refs/heads/{back}" in git.remote_refs
    return Manual(f"its withdrawal waits for the pull request of {back}") if waits else ""


def withdrawal_branch(settings: Settings, version: str) -> str:
    """Return the branch of the pull request of its withdrawal, where the host declines a push of main."""
    return f"release/{settings.tag_of(version)}-withdrawn-back"


@dataclass
class Line:
    """The releases in the history of `base`: those merged or squashed into it, and those whose notes it has."""

    git: Git
    settings: Settings
    base: str

    @cached_property
    def tags(self) -> dict[str, str]:
        refs = self.git.remote_refs.items()  # of which a host may have 40,000, of pull requests
        return released({ref: commit for ref, commit in refs if ref.startswith("refs/tags/")}, self.settings)

    def has(self, version: str) -> bool:
        return self.has_notes(version) or has_merged(self.git, self.base, self.tags[version])

    def has_notes(self, version: str) -> bool:
        return self.git.bytes_at(self.base, self.settings.notes_of(version)) is not None

    def last(self, target: str, finals: bool = False, with_withdrawn: bool = True) -> str | None:
        """Return the highest release in the line below `target` (of all where that is no version).

        With `finals` candidates do not count, without `with_withdrawn` none that was withdrawn.
        """
        below = [each for each in self.tags if not versions.is_version(target) or versions.is_past(target, each)]
        counting = (each for each in reversed(below) if not (finals and "-" in each) and self.has(each))
        return next((each for each in counting if with_withdrawn or not withdrawn(self.git, self.settings, each)), None)

    def problems(self, target: str, to: str = "") -> list[Problem]:
        """Return why `target` cannot come next: the line has a later release, lacks one before it, or lost a tag.

        `to` begins the hints where the branch is not checked out.
        """
        last, settings, problems = self.last(target), self.settings, self.lost(target)
        if later := [each for each in self.tags if versions.is_past(each, target) and self.has(each)]:
            hint, support = again(version=versions.next_release(later[-1])), settings.support_of(target)
            if last:
                fix = f"git switch --create {support} {settings.tag_of(last)} && git push {settings.remote} {support}"
                hint += f"\n{fix}   # or this, to fix an older version; then commit the fix, and run again"
            problems.append(Problem(f"{target} comes before {later[-1]}, which this branch has.", hint))
        for version in self._since_last(self.tags, target):
            tag, commit = settings.tag_of(version), self.tags[version]
            if withdrawn(self.git, settings, version):  # its notes come with the main branch, and it is not merged
                continue
            if not self.git.commit_named(commit):
                problems.append(Problem(NOT_HERE.format(tag), f"git fetch {settings.remote} tag {tag}"))
            elif version != target and self.git.look("merge-base", self.base, commit).stdout:  # else it is foreign
                fetch, notes = f"git fetch {settings.remote} {settings.main}", settings.notes_of(version)
                alone = f"{fetch} && git checkout FETCH_HEAD -- {notes} && git commit --message 'docs: notes of {tag}'"
                hint = f"If a pull request of it waits, merge that and pull; else:\n{to}git merge --no-ff {tag}"
                if self.git.bytes_at(self.git.remote_commit(f"refs/heads/{settings.main}") or tag, notes) is not None:
                    hint += f"   # or its notes alone:\n{to}{alone}"
                which = "the release branch" if to else "this branch"
                problems.append(Problem(f"{tag} comes before {target}, but {which} lacks it.", hint))
        return problems

    def lost(self, target: str) -> list[Problem]:
        """Return a problem if the last release up to `target` has lost its tag: main has its notes."""
        git, settings = self.git, self.settings
        main = git.remote_commit(f"refs/heads/{settings.main}") or self.base
        now = (git.text_at(main, "VERSION") or "").strip()
        paths = git.files_in(main, settings.notes_of("").rpartition("/")[0])
        noted = self._since_last(released({PurePosixPath(path).stem: "" for path in paths}, settings), target)
        gone = [each for each in noted if each not in self.tags and versions.opens_a_cycle_after(now, each)]
        where = settings.main
        ours = f"{settings.tag_of(target)} notes"
        if target not in (*self.tags, *gone) and self.has_notes(target) and history(git, None, self.base, ours):
            gone, where = [target], "its branch"  # before section 10, main has not got them yet
        if not gone:
            return []
        tag, notes = settings.tag_of(gone[-1]), settings.notes_of(gone[-1])
        bundle = f"{RECORDS}/{tag}/evidence/data/git/{tag}.bundle"  # which has the very tag
        hint = f"git push {settings.remote} refs/tags/{tag}"
        if not git.commit_named(f"refs/tags/{tag}"):
            is_here = (git.root / bundle).exists()
            hint = f"git fetch {bundle} tag {tag} && {hint}" if is_here else f"{hint}   # in a clone that has the tag"
        return [Problem(f"{tag} was released, for {where} has {notes}, but the remote has no such tag.", hint)]

    def _since_last(self, found: Iterable[str], target: str) -> list[str]:
        """Return which of the versions `found` come after the last release, up to `target`."""
        last = self.last(target)
        return [v for v in found if not versions.is_past(v, target) and (not last or versions.is_past(v, last))]
