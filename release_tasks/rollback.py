"""`inv deploy.rollback`: an earlier release is live again. Only its code: the DDL pack stays as it is."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

from release_tasks import ddl, embedded, lines, screen, versions
from release_tasks.command_line import again
from release_tasks.database import proof
from release_tasks.database.pack import pack_at
from release_tasks.deploy import code
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.git import Git

UNFINISHED = "~"  # sorts after every time: a switch that has not ended was the last one


def roll_back(config: Any, where: str, to: str | None, yes: bool) -> None:
    """Make the version `to` live in `where`, by default what was live before the newest, and stamp it.

    Raises `Refused` where it does not answer: then what was live is live again.
    """
    with embedded.environment_of(config, where) as env, closing(Git.open(env.root, env.settings.remote)) as git:
        choose = partial(_target, env, to, lambda tag: _withdrawn(env, git, tag))
        tag, in_place = choose()
        if not config.run.dry:
            env.lock.hold(env.settings.version_of(tag))
            tag, in_place = choose()  # who held it may have changed what is live
        version = env.settings.version_of(tag)
        with suppress(Refused):  # an embedded one that does not start is what a rollback is for
            embedded.serve(env)
        runs = env.runs(version)
        is_stamped = not env.settings.stamp.command or (env.last_stamp() or ("",))[0] == version
        if runs and is_stamped:
            screen.say(f"{where.capitalize()} runs {version} already; nothing was changed. {in_place}")
            return
        commit = env.hosts.facts(tag)["commit"]
        if not is_stamped:
            code.need_commit(git, tag, commit)
        now = ", ".join(each or "nothing" for each in env.hosts.tags())
        what = f"{tag} stays live; only its session is stamped again" if runs else f"{now} → {tag}; no DDL is undone"
        ahead = [f"{where.capitalize()}, {env.origin}: {what}", *_warnings(env, git, tag)]
        if config.run.dry or yes:
            screen.say("\n".join(ahead))
        else:
            screen.need_a_terminal("A rollback", f"{again(yes=True)}   # when a machine may decide")
            screen.confirm_by_typing(where, version, ahead, again())
        if config.run.dry:
            return
        if not env.lock.hold(version):  # as a laptop that slept at the question has lost it
            raise Refused(f"The lock of {where} was lost meanwhile: it may be another release's turn.", again())
        with screen.busy(f"Going back to {version}"):
            if not runs:
                env.hosts.switch(tag)
            try:
                if not is_stamped:
                    env.stamp(version, code.make_ready(git, tag, commit, env.install))
            except Refused as no:
                what = f"{where.capitalize()} runs {version} again, but its session is not stamped yet: {no}"
                raise Refused(what, f"{again()}   # once that is solved; it only stamps then") from None
        screen.say(f"{where.capitalize()} runs {version}.", "bold green")


def _target(env: Environment, to: str | None, withdrawn: Callable[[str], str]) -> tuple[str, str]:
    """Return the tag of the version `to`, and which are in place. By default it is what was live before the newest.

    Raises `Refused` where none is there, or the default one was `withdrawn`, which says why.
    """
    found, current = env.hosts.releases(), env.hosts.tag()
    stamp = env.last_stamp()
    stamped = env.settings.tag_of(stamp[0]) if stamp else ""
    befores = [facts["before"] for facts in found.values() if env.settings.version_of(facts.get("before") or "")]
    live = [tag for tag, facts in found.items() if tag in (current, *befores) or facts.get("since")]
    live = [tag for tag in live if env.settings.version_of(tag)]  # what a rehearsal begins with is no release
    in_place = f"In place are: {', '.join(map(env.settings.version_of, live)) or 'none'}."
    # The newest was stamped, and then refused before its switch.
    was_never_live = stamped in found and stamped != current and "before" not in found[stamped]
    before = current if was_never_live else _replaced_last(env, found)
    tag = env.settings.tag_of(env.settings.version_of(to) or to) if to else before
    if tag in live and not to and (why := withdrawn(tag)):
        other = next((each for each in live if each not in (tag, current) and not withdrawn(each)), tag)
        raise Refused(f"{tag} was live before, but: {why} {in_place}", again(to=env.settings.version_of(other)))
    if tag not in live:
        others, hint = set(live) - {current}, f"inv deploy.history --env {env.name}   # what happened there"
        nothing = f"{env.name.capitalize()} has nothing to go back to."
        what = "Name the release to go back to." if others else nothing
        what = f"{to} was never live in {env.name}, or is not in place." if to else what
        raise Refused(f"{what} {in_place}", again(to="VERSION") if others else hint)
    return tag, in_place


def _replaced_last(env: Environment, found: dict[str, dict[str, Any]]) -> str:
    """Return the tag in whose place a later release of `found` came last, "" for none: no rollback counts."""
    replaced = [("", "")]
    for tag, facts in found.items():
        was = env.settings.version_of(facts.get("before") or "")
        if was and versions.is_later_release(env.settings.version_of(tag), was):
            at = facts.get("since") or (UNFINISHED if tag == next(iter(found)) else "")
            replaced.append((at, facts["before"]))
    return max(replaced)[1]


def _withdrawn(env: Environment, git: Git, tag: str) -> str:
    """Return what is said of the withdrawal of `tag` on the main branch, as fetched: it waits for no remote."""
    main = git.commit_named(f"refs/remotes/{git.remote}/{env.settings.main}")
    return lines.withdrawn(git, env.settings, env.settings.version_of(tag), main) if main else ""


def _warnings(env: Environment, git: Git, tag: str) -> Iterator[str]:
    """Yield that the release `tag` was withdrawn, and what its code may need of what newer DDL took away."""
    if why := _withdrawn(env, git, tag):
        yield f"{tag}: {why}"
    with screen.busy("Comparing the DDL packs"):
        if not git.commit_named(ref := f"refs/tags/{tag}"):
            yield f"What the DDL took away is not known: {ref} is not here (git fetch --tags)."
            return
        try:
            old, (whose, new) = pack_at(git, ref, env.settings), ddl.pack_there(env, git)
            for each in proof.shifts(old, new, env.root, env.settings) if old != new else []:
                if each.how == "dropped" or each.detail.startswith("- "):
                    did = "took away" if each.how == "dropped" else "changed"
                    yield f"The DDL of {whose} {did} what {tag} may need: {each}"
        except (Refused, OSError) as no:  # also a full disk here
            yield f"What the DDL took away is not known: {no}"
