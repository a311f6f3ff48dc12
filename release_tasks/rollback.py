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
from release_tasks.errors import Refused, listed
from release_tasks.git import Git


def roll_back(config: Any, where: str, to: str | None, yes: bool) -> None:
    """Make the version `to` live in `where`, by default what was live before the last switch, and stamp it.

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
        now = ", ".join(each or "nothing" for each in env.hosts.live())
        what = f"{tag} stays live; only its session is stamped again" if runs else f"{now} → {tag}; no DDL is undone"
        ahead = [f"{where.capitalize()}, {env.origin}: {what}", *_warnings(env, git, tag, commit)]
        if config.run.dry or yes:
            screen.say("\n".join(ahead))
        else:
            screen.need_a_terminal("A rollback", f"{again(yes=True)}   # when a machine may decide")
            screen.confirm_by_typing(where, version, ahead, again())
        if config.run.dry:
            return
        if not env.lock.hold(version):  # as a laptop that slept at the question has lost it
            raise Refused(f"The lock of {where} was lost meanwhile: it may be another release's turn.", again())
        if not runs:
            with screen.busy(f"Going back to {version}"):
                env.hosts.switch(tag)
        screen.say(f"{where.capitalize()} runs {version}.", "bold green")
        if not is_stamped:  # where that fails, the same command does it alone
            with screen.busy(f"Stamping {version}"):
                env.stamp(version, code.make_ready(git, tag, commit, env.install))


def _target(env: Environment, to: str | None, withdrawn: Callable[[str], str]) -> tuple[str, str]:
    """Return the tag of the version `to`, and which are in place. By default it is that of `_live_before`.

    Raises `Refused` where none is there, or the default one was `withdrawn`, which says why.
    """
    found, current = env.hosts.releases(), env.hosts.tag()
    befores = [facts.get("before") for facts in found.values()]
    live = [tag for tag, facts in found.items() if tag in (current, *befores) or facts.get("since")]
    live = [tag for tag in live if env.settings.version_of(tag)]  # what a rehearsal begins with is no release
    in_place = f"In place are: {', '.join(map(env.settings.version_of, live)) or 'none'}."
    tag = env.settings.tag_of(env.settings.version_of(to) or to) if to else _live_before(env, found, current)
    if tag not in live:
        nothing = f"What was live before in {env.name} is no release in place."
        what = f"{to} was never live in {env.name}, or is not in place." if to else nothing
        looks = env.hosts.status()
        for host, look in looks.items():
            lacks = {each for other in looks.values() for each in other.releases} - {*look.releases}
            in_place += f" {host} lacks {listed(sorted(lacks))}." if lacks else ""
        history = f"inv deploy.history --env {env.name}   # what happened there"
        raise Refused(f"{what} {in_place}", again(to="VERSION") if {*live} - {current} else history)
    if not to and (why := withdrawn(tag)):
        raise Refused(f"{tag} was live before, but: {why} {in_place}", again(to="VERSION"))
    return tag, in_place


def _live_before(env: Environment, found: dict[str, dict[str, Any]], current: str) -> str:
    """Return the tag that was live before the last switch; where that was a rollback, or is still ahead, what is live.

    It may be "", and what is no release, or not one of `found`.
    """
    stamp, newest = env.last_stamp(), next(iter(found), "")
    stamped = env.settings.tag_of(stamp[0]) if stamp else ""
    if stamped in found and stamped != current and "before" not in found[stamped]:
        return current  # the stamped one was refused before its switch
    about = found.get(newest, {})
    is_unfinished = "before" in about and not about.get("since") and current in (newest, about["before"])
    last = newest if is_unfinished else max(found, key=lambda tag: found[tag].get("since") or "", default="")
    before = found.get(last, {}).get("before") or ""
    now, then = env.settings.version_of(last), env.settings.version_of(before)
    was_a_rollback = bool(now) and versions.is_later_release(then, now)
    return last if was_a_rollback else before


def _withdrawn(env: Environment, git: Git, tag: str) -> str:
    """Return what is said of the withdrawal of `tag` on the main branch, as fetched: it waits for no remote."""
    main = git.commit_named(f"refs/remotes/{git.remote}/{env.settings.main}")
    return lines.withdrawn(git, env.settings, env.settings.version_of(tag), main) if main else ""


def _warnings(env: Environment, git: Git, tag: str, commit: str) -> Iterator[str]:
    """Yield that the release `tag` was withdrawn, and what its code may need of what newer DDL took away."""
    if why := _withdrawn(env, git, tag):
        yield f"{tag}: {why}"
    with screen.busy("Comparing the DDL packs"):
        try:
            code.need_commit(git, tag, commit)
            old, (whose, new) = pack_at(git, commit, env.settings), ddl.pack_there(env, git)
            for each in proof.shifts(old, new, env.root, env.settings) if old != new else []:
                if each.how == "dropped" or each.detail.startswith("- "):
                    did = "took away" if each.how == "dropped" else "changed"
                    yield f"The DDL of {whose} {did} what {tag} may need: {each}"
        except (Refused, OSError) as no:  # also a full disk here
            yield f"What the DDL took away is not known: {no}"
