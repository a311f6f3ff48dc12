"""A release that will not be finished: its tag stays, the notes on the main branch and the records tell it."""

from collections.abc import Iterator
from datetime import UTC, datetime

from release_tasks import ddl, lines, versions
from release_tasks.commits import history, releaser
from release_tasks.database import apply
from release_tasks.errors import NotYet, Problem, Refused, listed, refuse
from release_tasks.release import Release, Step
from release_tasks.release_lock import WITHDRAWN
from release_tasks.sections import landing


def record_the_withdrawal(release: Release, reason: str | None = None) -> Step:
    """Record that it was withdrawn in the notes on the main branch, and give up the release lock."""
    git, main, back = release.git, release.settings.main, lines.withdrawal_branch(release.settings, release.version)
    if found := lines.withdrawn(git, release.settings, release.version):
        return found
    if release.is_over:
        raise Refused(f"{release.version} is finished: fix it in a new version.", "inv status")
    if not release.published:
        if release.lock.withdrew() or release.lock_of(main).withdrew():
            return f"{release.tag} {WITHDRAWN}; it was never published"
        if not release.lock.state().is_of(release.version):  # it may be mistyped
            raise Refused(f"{release.tag} was never published, and it does not hold the lock.", "inv deploy.running")
        yield f"give up the lock; {release.tag} was never published"
        release.lock.push(what=WITHDRAWN, last=True)
        return None
    reason = " ".join((reason or "").split()).strip(" …")  # in one line of the notes
    if not reason:
        raise Refused(f"A withdrawal of {release.tag} needs a reason, which the notes give.", release.again(reason="…"))
    left = [f"{release.tag} stays", *_left_in(release, "staging"), *_left_in(release, "production")]
    there = git.remote_commit(release.base_ref)
    fixes = [each.subject for each in history(git, there, release.tip)] if there else []
    left += [f"not merged into {release.base}: {listed(fixes)}"] if fixes else []
    after = "where it runs or was stamped, then: inv deploy.rollback --env NAME"
    yield f"{'; '.join(left)}; git push {release.settings.remote} {main}: {release.notes_path} says why; {after}"
    who = releaser(git)
    release.keep_check("withdrawn", reason=reason, by=who, left=left)
    text = git.text_at(release.tip, release.notes_path) or f"# {release.title}\n"
    title, _, rest = text.partition("\n")
    says = f"Withdrawn on {datetime.now(UTC):%Y-%m-%d} by {who}: {reason}. {'; '.join(left)}."
    commit = landing.notes_on_main(release, f"{title}\n\n> {says}\n{rest}", f"release: withdraw {release.tag}")
    landing.push(release, main, back, commit, last=True, what=WITHDRAWN)


def _left_in(release: Release, name: str) -> Iterator[str]:
    """Yield what the release leaves in the environment `name`: what runs there, and whether it was stamped."""
    try:
        env = release.environment(name)
        stamp = env.last_stamp()
        runs = env.probe()[0] or "nothing"
        runs = env.hosts.tag() or "something" if runs == "any" else runs
        yield f"{name} runs {runs}{f', stamped for {stamp[0]}' if stamp else ''}"
    except NotYet as no:
        yield f"{name} is known only {no}"
    except Refused:
        yield f"{name} could not be reached"


def ddl_problems(release: Release) -> Iterator[Problem]:
    """Yield what is wrong with the DDL pack over that of a withdrawn release, where a ledger has it as the last one."""
    git, settings, last = release.git, release.settings, release.settings.version_of(release.last() or "")
    since = [version for version in release.line.tags if not last or versions.is_past(version, last)]
    is_any = any(lines.withdrawn(git, settings, version) for version in since)
    for name in ("staging", "production") if is_any else ():
        refuse(settings.environments.problems(name))
        version, entered = apply.last_applied(release.environment(name))
        if lines.withdrawn(git, settings, version) and lines.tagged(git, tag := settings.tag_of(version)):
            left = [file for file in release.pack_of(tag) if (file.path, file.sha256) in entered]
            for each in ddl.proof_of(release.pack, left, release.root, settings).problems:
                yield Problem(f"{name} has the DDL of {tag}, which was withdrawn: {each.what}", each.hint)
