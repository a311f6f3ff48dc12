"""Section 8, what only production has: ready notes, a person's word, a backup, and smokes before the flip."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from release_tasks import acceptance, notes, screen, smokes
from release_tasks.backups import backup, shelf, verification
from release_tasks.deployment import placed, shown, unapplied_files
from release_tasks.errors import NotYet, Refused, refuse
from release_tasks.processes.leash import Command, Kept, Spec
from release_tasks.processes.links import read_link
from release_tasks.processes.ports import free_port
from release_tasks.processes.shell import wait_until
from release_tasks.release import Release, Step, until_live


@until_live
def have_the_notes_ready(release: Release) -> str:
    """The notes are committed, and their Highlights are written."""
    text = release.git.text_at(release.tip, release.notes_path)
    if text is None:
        raise NotYet("after the notes are written")
    refuse(notes.notes_problems(text, release))
    return release.notes_path


@until_live
def confirm_production(release: Release) -> Step:
    """A person confirms production."""
    if release.options.get("yes"):
        return "--yes"
    if release.will_ask and not sys.stdin.isatty():
        raise Refused(
            "Production needs a typed confirmation, and there is no terminal to ask at.",
            f"inv release --version {release.version} --yes   # when a machine may decide",
        )
    accepted = acceptance.acceptance_on(release, release.environment("staging"))
    about = (release.published or "", release.here.dsn, accepted.confirmed_by)
    if release.confirmed == about:
        return "confirmed"
    if not accepted.passed:
        raise Refused(f"Staging is not accepted: {accepted}.", "inv accept --env staging")
    yield f"ask to type {release.version}"
    with screen.handed_over():
        screen.say(f"\n  Production is about to get {release.title}, commit {about[0]:.9}:")
        screen.say(f"  Staging: {accepted}.")
        screen.say("  a backup, the DDL pack, the code, the session stamp, the smokes, then the flip.")
        screen.say(f"  Database: {release.here.dsn}; web app: {release.here.origin}")
        typed = input(f"  Type {release.version} to go on: ").strip()
    if typed != release.version:
        raise Refused(f"Not confirmed: found {typed!r}, expected {release.version}.", "Nothing was changed here.")
    release.confirmed = about


@until_live
def back_up_the_database(release: Release) -> Step:
    """Back up the database."""
    here = release.here
    there = shelf.made_for(here, release.published)
    if there and (there.is_recent or not unapplied_files(release, here)):
        return there.name
    if not release.published:
        raise NotYet("after the tag is pushed")
    yield f"pg_dump --format=directory > {shown(shelf.folder_of(here), release)}/"
    backup.take(here, release.version, release.published)


_under_way: dict[str | None, Future[str]] = {}  # commit → the verification of its backup


@until_live
def verify_the_backup(release: Release) -> Step:
    """Restore the backup on a scratch server, and compare."""
    if release.published in _under_way:
        return "it goes on beside the next steps; the flip waits for it"
    there, settings = _backup_of(release), release.settings.backup
    if there.verified and (there.is_sealed or not settings.recipients):
        return verification.in_words(there)
    yield f"pg_restore {there.name}"
    if settings.verify == "background":
        _under_way[release.published] = verification.begin(there, release.here)
    else:
        verification.verify(there, release.here)


@until_live
def have_a_backup_that_restores(release: Release) -> str:
    """The backup has been restored, and is one."""
    if release.published in _under_way:
        return _under_way[release.published].result()
    there = _backup_of(release)
    if not there.verified:
        raise NotYet("after the backup is verified")
    return verification.in_words(there)


def _backup_of(release: Release) -> shelf.Backup:
    """Return the backup that this release made; raises `NotYet` before."""
    there = shelf.made_for(release.here, release.published)
    if there is None:
        raise NotYet("after the database is backed up")
    return there


@until_live
def pass_the_smokes_before_the_flip(release: Release) -> str:
    """The smokes pass on the new code, beside the one that still has the traffic."""
    here, code = release.here, placed(release)
    if unapplied_files(release, here):
        raise NotYet("after the DDL pack is applied")
    with _candidate(release, code) as origin:
        seen = smokes.pass_all(release, here, code, origin)
    return seen if origin != here.origin else f"{seen}; no services.web is set, so the running app was asked"


@contextmanager
def _candidate(release: Release, code: Path) -> Iterator[str]:
    """Run the web app of `code` on a port of its own for as long as it is looked at; yield its origin.

    Where nothing ran before, the jobs run with it: nobody else would feed what the smokes look at.
    """
    here, settings = release.here, release.settings
    if "web" not in settings.services:
        yield here.origin
        return
    origin = f"http://127.0.0.1:{free_port()}"
    environment = {**os.environ, **here.variables(release.version, origin)}
    services = ["web"] if read_link(here.current) else list(settings.services)
    release.folder.mkdir(parents=True, exist_ok=True)
    logs = {name: release.folder / f"candidate-{here.name}-{name}.log" for name in services}
    commands = [
        Command(settings.services[name], str(code / settings.folder), environment, str(logs[name])) for name in services
    ]
    kept = Kept.start(Spec(commands))
    try:
        deadline = time.monotonic() + max(settings.acceptance.wait, 1)
        if not wait_until(lambda: here.running_version(origin) == release.version, deadline):
            raise Refused(f"The new code does not answer as {release.version} beside the old.", f"cat {logs['web']}")
        yield origin
    finally:
        kept.stop()
