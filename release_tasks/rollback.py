"""`inv deploy.rollback`: an earlier release gets the traffic again. Only its code: the DDL pack stays as it is."""

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

from release_tasks import embedded, screen
from release_tasks.database import apply, drift
from release_tasks.database.pack import pack_at
from release_tasks.deploy import local
from release_tasks.environments import Environment
from release_tasks.errors import Refused, again
from release_tasks.files import read_link
from release_tasks.git import Git


def roll_back(config: Any, where: str, to: str | None, yes: bool) -> None:
    """Let the version `to` have the traffic of `where`, by default what had it before the newest, and stamp it.

    Raises `Refused` where it does not answer: then what had the traffic has it again.
    """
    if where == "dev":
        raise Refused("On dev the working tree runs; no release is in place there.", "git switch --detach v…")
    with embedded.environment_of(config, where) as env:
        with suppress(Refused):  # an embedded one that does not start is what a rollback is for
            embedded.serve(env)
        tag, current = _tag_of(env, to), read_link(env.current)
        version, code = env.settings.version_of(tag), local.folder_of(env, tag)
        if local.has_traffic(env, code) and _is_stamped(env, version):
            screen.say(f"{where.capitalize()} runs {version} already; nothing was changed. {_choice(env)}")
            return
        ahead = [
            f"{where.capitalize()}, {env.origin}: {current and current.name} → {tag}; no DDL is undone",
            *_lost(env, tag),
        ]
        if config.run.dry:
            screen.say("\n".join(["Would go back:", *ahead]))
            return
        env.lock.hold(version)
        if read_link(env.current) != current:
            raise Refused(f"{where.capitalize()} was changed in this very moment; nothing was changed.", again())
        if not yes:
            _confirm(version, ahead)
        else:
            screen.say("\n".join(ahead))
        with screen.busy(f"Going back to {version}"):
            if not local.has_traffic(env, code):
                local.flip(env, tag)
            if not _is_stamped(env, version):
                local.stamp(env, code, version)
        screen.say(f"{where.capitalize()} runs {version}.", "bold green")


def _tag_of(env: Environment, to: str | None) -> str:
    """Return the tag of the version `to`, by default of what had the traffic before the newest that had it."""
    befores = [folder.name for facts in local.releases(env).values() if (folder := local.before(facts))]
    tag = env.settings.tag_of(to) if to else next(iter(befores), "")
    if tag not in _live(env):
        what = f"{to} never had the traffic of {env.name}, or is not in place any more." if to else "Go back to which?"
        raise Refused(f"{what} {_choice(env)}", f"inv deploy.rollback --env {env.name} --to VERSION")
    return tag


def _live(env: Environment) -> dict[str, dict[str, Any]]:
    """Return tag → facts of the releases that have or had the traffic and are in place, the newest first."""
    found, current = local.releases(env), read_link(env.current)
    live = {path.name for path in (current, *map(local.before, found.values())) if path}
    return {tag: facts for tag, facts in found.items() if tag in live or facts.get("since")}


def _choice(env: Environment) -> str:
    versions = [env.settings.version_of(tag) for tag in _live(env)]
    return f"In place are: {', '.join(versions) or 'none'}."


def _is_stamped(env: Environment, version: str) -> bool:
    return not env.settings.stamp.command or (env.last_stamp() or [""])[0] == version


def _lost(env: Environment, tag: str) -> Iterator[str]:
    """Yield what the DDL applied since the release `tag` took away, which its code may need."""
    settings, current = env.settings, read_link(env.current)
    with env.connect() as connection:
        applied = settings.tag_of(apply.last_version(connection, settings.ddl))
    with closing(Git.open(env.root, settings.remote)) as git, screen.busy("Comparing the DDL packs"):
        newest = applied if git.commit_named(f"refs/tags/{applied}") else getattr(current, "name", tag)
        try:
            for name in (tag, newest):
                if not git.commit_named(f"refs/tags/{name}"):
                    raise Refused(f"the tag {name} is not here (git fetch --tags)")
            old, new = (pack_at(git, f"refs/tags/{name}", settings) for name in (tag, newest))
            shifts = drift.shifts(old, new, env.root, settings) if old != new else []
        except Refused as no:
            yield f"Unknown is what the DDL has taken away since {tag}: {no}"
            return
    for each in shifts:
        if each.how == "dropped" or "- " in each.detail:
            yield f"The DDL of {newest} took away what {tag} may need: {each}"


def _confirm(version: str, ahead: list[str]) -> None:
    """Let a person at the terminal type `version`. Raises `Refused` where they do not."""
    if not (sys.stdin and sys.stdin.isatty()):
        what = "A rollback needs a typed confirmation, and there is no terminal to ask at."
        raise Refused(what, f"{again(yes=True)}   # when a machine may decide")
    found = screen.typed(version, ahead)
    if found != repr(version):
        raise Refused(f"Not confirmed: found {found}, expected {version}; nothing was changed.", again())
