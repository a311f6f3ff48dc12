"""Section 8, what only production has: a person's confirmation, a backup, and smokes before the flip."""

import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import dropwhile

from release_tasks import screen, suites
from release_tasks.checks import document
from release_tasks.database import apply, backup, programs, proof, restore
from release_tasks.environments import Environment
from release_tasks.errors import Manual, Refused, listed, refuse, require
from release_tasks.machine import wait_until
from release_tasks.masks import mask_file
from release_tasks.outcome import DONE, all_pass
from release_tasks.process import Supervised, free_port
from release_tasks.release import Release, Step, until_live
from release_tasks.sections.deployment import conditions_on, stamp_of

RECENT = timedelta(hours=1)  # how long a backup is fresh enough to go on with


@until_live
def confirm_production(release: Release, env: Environment, yes: bool = False) -> Step:
    """A person confirms production."""
    if yes:
        return "--yes"
    if not release.only_checks:
        screen.need_a_terminal("Production", f"{release.again(yes=True)}   # when a machine may decide")
    accepted = conditions_on(release, release.environment("staging"))
    about = (release.published or "", env.dsn, tuple((each.name, each.outcome) for each in accepted))
    staging = ", ".join(map(str, accepted))
    if release.confirmed == about:
        return "confirmed"
    if not all(each.is_pass for each in accepted):
        raise Refused(f"Staging is not accepted: {staging}.", "inv accept --env staging")
    yield f"confirm by typing {release.version}"
    lines = (f"Staging: {staging}.", *what_is_confirmed(release, env))
    screen.confirm_by_typing(env.name, release.version, lines, release.again())
    release.confirmed = about


def what_is_confirmed(release: Release, env: Environment) -> Iterator[str]:
    """Yield what runs in production now, what comes in its place, and each step that is still to be done, in order."""
    database, files = programs.variables(env.dsn), apply.unapplied(env, release.pack)
    runs = (release.settings.acceptance.version and env.probe()[0]) or env.hosts.tag() or "nothing"
    yield f"Production, {env.origin}: {runs} → {release.title}"
    yield f"Commit {release.commit}; database {database['PGDATABASE']} on {database['PGHOST'] or 'this machine'}"
    yield f"DDL files to apply: {len(files)}{': ' if files else ''}{listed(file.name for file in files)}"
    since_the_tag = release.line.problems(release.version)  # a hotfix of an older line, which this one lacks
    yield from (f"Beware: {each.what}" for each in since_the_tag)
    yield from (f"Waived: {condition}: {reason}" for condition, reason in document.waivers(release.root).items())
    ahead = list(dropwhile(lambda step: step.function is not confirm_production, release.steps))[1:]
    for step in (each for each in ahead if each.options.get("env") == env.name):
        if step.is_gate:  # which may take its time
            yield f"- {step.title}"
        elif (outcome := step.run(release, change=False)).state != DONE:
            yield f"- {step.title}: {outcome.text or listed(each.what for each in outcome.problems)}"


@until_live
def back_up_the_database(release: Release, env: Environment) -> Step:
    """Back up the database."""
    there = backup.made_for(env, release.published)
    if there and (datetime.now(UTC) - there.at < RECENT or not apply.unapplied(env, release.pack)):
        return there.name
    commit = require(release.published, "after the tag is pushed")
    yield f"pg_dump > {release.shown(backup.folder_of(env))}/"
    backup.take(env, release.version, commit)


@until_live
def verify_the_backup(release: Release, env: Environment) -> Step:
    """Restore the backup on a scratch server, and try the smokes and the DDL pack on the copy."""
    there = require(backup.made_for(env, release.published), "after the database is backed up")
    if restore.is_done(there, release.settings.backup):
        if not release.only_checks:
            release.only_in_a_run()  # it is read whole
            backup.read(there.folder)
        return str(there.verified["summary"])
    yield f"pg_restore {there.name}"
    restore.verify(there, env, partial(_try_copy, release, env))


def _try_copy(release: Release, env: Environment, dsn: str) -> str:
    """Run the smokes that only read on the restored copy `dsn`, then apply this release's DDL pack to it."""
    ran = suites.pass_smokes_on_copy(env, release.version, dsn)
    ddl, found = release.settings.ddl, proof.Proof()
    with found.one_pass("On a copy of production", ddl):
        refuse(proof.watched(dsn, release.pack, ddl).problems())
    refuse(found.problems)
    return f"{ran}; the DDL pack keeps all rows there{found.exceptions}"


@until_live
def run_checks_before_the_flip(release: Release, env: Environment) -> str:
    """The smokes, and section 7.2, pass on the new code, beside the one that is still live."""
    require(env.hosts.facts(release.tag), "after the code is in place")
    require(not apply.unapplied(env, release.pack), "after the DDL pack is applied")
    require(stamp_of(release, env), f"after the session is stamped on {env.name}")
    has_colours = env.hosts.host.colours
    if not (has_colours or "web" in release.settings.services):
        later = f"inv smokes --env {env.name}; inv accept --env {env.name}   # after the flip"
        return Manual(f"{later}: no services.web is set, so nothing runs beside the old code; staging passed them")
    release.only_in_a_run()
    with env.hosts.idle(release.tag) if has_colours else _candidate(release, env) as origin:
        smoked = suites.pass_smokes(release, env, release.code, origin)
        conditions = partial(suites.check_conditions, release, env, origin=origin)
        results = suites.run_checks(release, f"acceptance-{env.name}-before", env.name, conditions)
        return f"{smoked}; {all_pass(results, 'Condition', f'at {origin}, before the flip', release.again())}"


@contextmanager
def _candidate(release: Release, env: Environment) -> Iterator[str]:
    """Run the new code on a port of this machine for the block; yield its origin."""
    services, folder = release.settings.services, release.code / release.settings.folder
    origin = f"http://127.0.0.1:{free_port()}"
    variables = {**os.environ, **env.variables(release.version, origin)}
    names = ["web"] if env.hosts.tag() else list(services)  # who else would feed what the checks look at?
    release.folder.mkdir(parents=True, exist_ok=True)
    logs = {name: release.folder / f"candidate-{env.name}-{name}.log" for name in names}
    with ExitStack() as stack:
        for name, log in logs.items():
            candidate = Supervised(services[name], folder, variables, log)
            stack.callback(mask_file, log)  # when it has been stopped
            stack.callback(candidate.stop)
        timeout = max(release.settings.acceptance.wait, 1)
        if not wait_until(lambda: env.probe(origin)[0] in (release.version, "any"), timeout):
            what = f"The new code does not answer as {release.version} beside the old."
            raise Refused(what, shlex.join(["cat", str(logs["web"])]))
        yield origin
