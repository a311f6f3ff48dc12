"""Releases on this machine: a folder each in `releases/`, the link `current`, and a command that restarts from there.

`releases/<tag>.json` has the facts of each: its commit, when it began; once it was switched to, what had the traffic
`before`, and `since` when it has it and `by` whom. `releases/journal.jsonl` has each switch, also one that failed.
Another kind of host offers the same functions.
"""

import getpass
import json
import platform
import shlex
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from release_tasks import embedded, process, temporary
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.files import atomic_write, point_link, read_link
from release_tasks.journal import Journal
from release_tasks.masks import short

RESTART = 120.0  # seconds for the command `restart`


def folder_of(env: Environment, tag: str) -> Path:
    return env.folder / "releases" / tag


def facts_of(env: Environment, tag: str) -> dict[str, Any]:
    """Return the facts of the release `tag`; its `commit` is None when it is not in place."""
    marker = folder_of(env, f"{tag}.json")
    if not marker.exists():
        return {"commit": None}
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(marker.read_bytes())
        return {"commit": found["commit"], **found}
    again = f"{shlex.join(['mv', str(marker), f'{marker}.broken'])}   # then the code is put in place once more"
    raise Refused(f"{marker} is not what a deployment leaves there: it may have been cut short.", again)


def write_facts(env: Environment, tag: str, **facts: Any) -> None:
    """Add `facts` to those of the release `tag`, which appear whole or not at all."""
    atomic_write(folder_of(env, f"{tag}.json"), json.dumps({**facts_of(env, tag), **facts}).encode())


def releases(env: Environment) -> dict[str, dict[str, Any]]:
    """Return tag → facts of the releases in place, the newest first; what is not ours is left out."""
    found = dict[str, dict[str, Any]]()
    for marker in folder_of(env, "").glob("*.json"):
        with suppress(Refused):
            found |= {marker.stem: facts_of(env, marker.stem)} if marker.with_suffix("").is_dir() else {}
    return dict(sorted(found.items(), key=lambda each: float(each[1].get("began_unix") or 0), reverse=True))


def has_traffic(env: Environment, tag: str) -> bool:
    """Tell whether `current` names the release `tag`, and its version answers, where a route tells that."""
    if getattr(read_link(env.current), "name", "") != tag:
        return False
    return not env.settings.acceptance.version or env.running_version() == env.settings.version_of(tag)


def flip(env: Environment, tag: str) -> None:
    """Let the release `tag` have the traffic. Raises `Refused` where it does not answer.

    What had the traffic before gets it again then, also where an earlier run was killed before it could see to that.
    """
    facts, old, journal = facts_of(env, tag), read_link(env.current), Journal(folder_of(env, "journal.jsonl"))
    if old and old.name == tag:
        old = folder_of(env, facts["before"]) if facts.get("before") else None
    now, who = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()), f"{getpass.getuser()} on {platform.node()}"
    write_facts(env, tag, before=old and old.name, since=now, by=who)
    journal.record("switch", to=tag, before=old and old.name)
    try:
        _switch(env, folder_of(env, tag))
    except Refused as failed:
        if not (old and old.is_dir()):
            raise
        what, state = str(failed), f"{env.name.capitalize()} went back: {old.name} has the traffic again."
        try:
            _switch(env, old)
        except Refused as no:
            state = f"{env.name.capitalize()} went back to {old.name}, which does not answer either. {no}"
        with suppress(OSError):  # what went wrong matters more than that it cannot be recorded
            journal.record("back", to=old.name, before=tag, failed=what, state=state)
            write_facts(env, tag, since=facts.get("since"), by=facts.get("by"))
        raise Refused(f"{what}\n{state}", failed.problems[0].hint) from None


def _switch(env: Environment, code: Path) -> None:
    """Let `current` name `code`, restart, and wait until it answers. Raises `Refused` where it does not in time."""
    version, wait = env.settings.version_of(code.name), max(env.settings.acceptance.wait, 1)
    point_link(env.current, code)
    embedded.serve(env, again=True)
    if env.restart:
        variables = {**env.variables(version), **temporary.original_variables()}
        process.run(env.restart, cwd=env.folder, env=variables, timeout=RESTART, supervised=True, daemons=True)
    if version and not process.wait_until(lambda: has_traffic(env, code.name), wait):
        what = f"{env.name.capitalize()} does not answer as {version} within {wait:g} s: {short(env.probe()[1])}"
        raise Refused(what, f"Look at the logs in {env.folder}, or of what `restart` starts; fix it, and run again.")
    env.wait_until_ready()


def stamp(env: Environment, tag: str) -> None:
    """Stamp the session for the release `tag`, by the command as it is in its code."""
    own, folder = env.settings.stamp, folder_of(env, tag) / env.settings.folder
    variables = env.variables(env.settings.version_of(tag))
    process.run(own.command, cwd=folder, env=variables, timeout=own.timeout, supervised=True)


def prune(env: Environment) -> None:
    """Remove all but the newest `keep_releases`; what has the traffic, and what had it before, stay in any case."""
    found, current = releases(env), getattr(read_link(env.current), "name", "")
    kept = [current, found.get(current, {}).get("before"), *list(found)[: env.settings.keep_releases]]
    for tag in found.keys() - set(kept):
        shutil.rmtree(folder_of(env, tag), ignore_errors=True)
        if not folder_of(env, tag).exists():
            folder_of(env, f"{tag}.json").unlink()
