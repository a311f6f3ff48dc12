"""Section 5: the annotated tag, and branch and tag pushed together."""

import re
from collections.abc import Iterator
from itertools import product

from release_tasks import versions
from release_tasks.errors import Problem, Refused, listed, refuse, require
from release_tasks.lines import retag_hint
from release_tasks.process import CommandFailed
from release_tasks.release import Release, Step, until_over, until_published
from release_tasks.sections import docs_pack, landing

SIGNATURE = re.compile(r"^-----BEGIN .*(SIGNATURE|SIGNED MESSAGE)-----$", re.MULTILINE)


@until_over
def try_signing(release: Release, sign: bool = False) -> str:
    """Where commits or the tag are signed, a trial signature succeeds."""
    git = release.git
    signed = [key for key in ("commit.gpgSign", "tag.gpgSign") if git.is_set(key)] + ["--sign"] * sign
    if signed:
        release.only_in_a_run()  # the key may ask for its passphrase
        trial = git.run("commit-tree", "-S", "-m", "A trial signature", "HEAD^{tree}", check=False, changes=False)
        if "\ngpgsig" not in git.look("cat-file", "commit", trial.stdout.strip()).stdout:  # git may leave it out
            what = f"Git cannot sign: {trial.tail(3) or 'there is no signature'}"
            raise Refused(what, "git config --get-regexp 'gpg|sign'")
    return ", ".join(signed) or "nothing is signed"


def tag_the_release(release: Release, sign: bool = False) -> Step:
    """Tag the release commit."""
    git, tag, commit = release.git, release.tag, release.tip
    if release.published:
        _refuse_changes_after_the_tag(release)
        return f"{release.published:.9}"
    refuse([*landing.behind_problems(release, release.branch), *tag_problems(release, sign)])
    if git.commit_named(release.tag_ref):
        return f"{commit:.9}"
    wrong = docs_pack.hash_mismatches(git, commit, release.settings.docs_pack.hashes)
    require(release.version_at(commit) == release.version and not wrong, "after the docs pack is built")
    flags = ["--sign"] if sign else []
    yield f"git tag --annotate {' '.join([*flags, tag])} {commit:.9}"
    git.run("tag", "--annotate", *flags, "--message", release.title, tag, commit)


def tag_problems(release: Release, sign: bool = False) -> list[Problem]:
    """Return why the tag of this version's name, if there is one, is not this release's."""
    git, tag, published = release.git, release.tag, release.published
    tagged = git.commit_named(release.tag_ref)
    text = git.look("cat-file", "tag", release.tag_ref).stdout  # with its signature; "" for a lightweight tag
    if not published and (lost := release.line.lost(release.version)):
        return lost
    if tagged is None:
        what = f"{tag} names no commit; expected an annotated tag of one."
        return [Problem(what, retag_hint(tag))] if git.object_named(release.tag_ref) else []
    problems = [] if text else [f"{tag} is a lightweight tag; expected an annotated one."]
    if not published and tagged != release.tip:
        names = f"{tag} names {tagged:.9}, not the release commit {release.tip:.9} of {release.branch}"
        problems = [f"{names}; it is not pushed."]
    elif (found := release.version_at(tagged)) != release.version:
        problems.append(f"{tag} names {tagged:.9}, where VERSION says {found!r}: it is not this release.")
    else:
        problems += docs_pack.hash_mismatches(git, tagged, release.settings.docs_pack.hashes)
    if sign and not problems and not SIGNATURE.search(text):
        problems = [f"{tag} is not signed; expected a signed one."]
    hint = f"git show {tag}\n{_as_a_new_version(release)}" if published else retag_hint(tag)
    return [Problem(what, hint) for what in problems]


def push_problems(release: Release) -> Iterator[Problem]:
    """Yield why the branch and its tag cannot be pushed: a branch is in the way, or the remote says no to a trial."""
    git, remote, ref = release.git, release.settings.remote, release.branch_ref
    here = git.look("for-each-ref", "--format=%(refname)", "refs/heads").stdout.split()
    for other, own in product({*git.remote_refs, *here, release.lock.ref}, (ref, release.lock.ref)):
        if own.startswith(f"{other}/") or other.startswith(f"{own}/"):
            what = f"Git cannot have {other} beside {own}: the name of one would be a folder of the other."
            or_else = ", or set release.branch, as release-v{version}" if own == ref else ""
            yield Problem(what, f"git branch --all   # rename the one{or_else}")
    try:
        trial = ["--dry-run", "--no-verify", "--quiet", "--atomic", remote, f"{release.tip}:{ref}"]
        git.reach("push", *trial, changes=False)
    except CommandFailed as no:
        yield Problem(f"{remote} would not take an atomic push of the branch: {no}", no.problems[0].hint)


@until_published
def push_branch_and_tag(release: Release) -> Step:
    """Push branch and tag together."""
    git = release.git
    commit = require(git.commit_named(release.tag_ref), "after the tag")
    refuse(landing.behind_problems(release, release.branch))
    yield f"git push --atomic {release.settings.remote} {release.branch_ref} {release.tag_ref}"
    release.lock.push(f"{commit}:{release.branch_ref}", f"{release.tag_ref}:{release.tag_ref}", what="is tagged")


def _refuse_changes_after_the_tag(release: Release) -> None:
    """Refuse a branch that others moved on, or that got more than notes and layer: production would not have it."""
    if not release.settings.branch or release.is_over:
        return
    refuse(landing.behind_problems(release, release.branch))
    allowed = (release.notes_path, *landing.LAYER)
    changed = release.git.look("diff", "--name-only", "-z", "--no-renames", release.published or "", release.tip).stdout
    docs = release.settings.docs_pack.folder  # as a path a submodule, which gets the notes
    if later := [path for path in changed.split("\0") if path not in ("", docs) and not path.startswith(allowed)]:
        what = f"{release.branch} was changed after {release.tag} was published: {listed(later)}."
        raise Refused(what, _as_a_new_version(release))


def _as_a_new_version(release: Release) -> str:
    again = release.again(version=versions.fixed_in(release.version))
    withdraw = f'inv withdraw --version {release.version} --reason "…"'
    return f"{withdraw}   # a published tag stays: a fix is a new version\ngit switch {release.base} && {again}"
