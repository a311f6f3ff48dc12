"""Sections 7 and 8: the tag's code put in place, the DDL pack applied, the session stamped, the release run."""

import time
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from release_tasks import ddl, suites
from release_tasks.checks import document
from release_tasks.checks.logs import matching, positions
from release_tasks.database import apply, programs
from release_tasks.database.environment_lock import pooler_problems
from release_tasks.deploy import code
from release_tasks.environments import Environment
from release_tasks.errors import Refused, counted, refuse, require
from release_tasks.outcome import Result, all_pass
from release_tasks.release import Release, Step, until_live

OLDEST = 15  # major version of PostgreSQL; checks ask for has_parameter_privilege


@until_live
def check_environment(release: Release, env: Environment) -> str:
    """The environment can be reached and written to, and has no later release."""
    with env.connect() as connection:
        if (server := connection.info.server_version // 10000) < OLDEST:
            what = f"{env.name.capitalize()} has PostgreSQL {server}; expected {OLDEST} or newer."
            raise Refused(what, f"inv backup.take --env {env.name}   # then upgrade its server")
        refuse([*apply.server_problems(connection, env.name), *pooler_problems(connection, env.name)])
    if env.log and document.reads_the_server_log(release.root) and not matching(str(env.log), env.root):
        what = f"There is no log {env.log}, which section 7.2 reads on {env.name}."
        raise Refused(what, f"release.environments.{env.name}.log   # in invoke.yaml")
    programs.client("pg_dump", server)  # which refuses one that is older: sections 7 and 8 would, after the tag
    refuse(env.later_problems(release.version))
    warnings = "".join(f"; {warning}" for warning in env.hosts.warnings())
    return f"{'embedded ' if env.is_embedded else ''}PostgreSQL {server}, {env.origin}{warnings}"


@until_live
def put_the_code_in_place(release: Release, env: Environment) -> Step:
    """Put the code in place on every host."""
    commit = require(release.published, "after the tag is pushed")
    is_ready = code.is_ready(release.root, release.tag, commit)
    if is_ready and env.hosts.facts(release.tag).get("commit") == commit:
        return f"{commit:.9}"
    yield f"the tree of {release.tag} → {', '.join(env.hosts.names)}"
    folder = code.make_ready(release.git, release.tag, commit, env.install)
    with env.connect() as connection:  # its clock is the one that stamps and rows have
        (now,) = connection.execute("select now()").fetchall()[0]
    logs = positions([str(env.log or ""), *env.settings.acceptance.logs], env.root)
    about = {"version": release.version, "commit": commit, "began": now.isoformat(), "began_unix": time.time()}
    with TemporaryDirectory() as temporary:
        tree = Path(temporary, "tree.tar")
        code.write_tar(release.git, commit, folder, tree)
        env.hosts.place(release.tag, {**about, "positions": logs}, tree)


@until_live
def apply_the_ddl_pack(release: Release, env: Environment) -> Step:
    """Apply the DDL pack."""
    command, pack = " ".join(release.settings.ddl.command) or "psql", release.pack
    missing = apply.unapplied(env, pack)
    if not missing:
        if not release.only_checks:
            release.only_in_a_run()  # a scratch server says what the files make
            refuse(ddl.missing_problems(env, pack))
        return f"the ledger has all: {counted(len(pack), 'file')}"
    folder = release.root if env.name == "dev" else release.code
    yield f"{command}: {counted(len(pack), 'file')}, {len(missing)} new or changed"
    if env.is_embedded:
        env.install(folder)  # on dev nothing has done it yet, and a runner may need packages
    warnings = apply.apply(env, pack, folder, release.version)
    release.journal.record("ddl", where=env.name, files=[file.path for file in pack], warnings=warnings)


@until_live
def run_the_release(release: Release, env: Environment) -> Step:
    """Run it: the release goes live on every host."""
    if env.runs(release.version):
        return env.origin
    require(env.hosts.facts(release.tag), "after the code is in place")
    yield f"{env.hosts.tag() or 'nothing'} → {release.tag} on {', '.join(env.hosts.names)}"
    env.hosts.switch(release.tag)
    env.wait_until_ready()


@until_live
def run_smokes(release: Release, env: Environment) -> str:
    """The smokes pass."""
    require(env.runs(release.version), "after the release runs here")
    return suites.pass_smokes(release, env)


@until_live
def stamp_the_session(release: Release, env: Environment) -> Step:
    """Stamp the ops session."""
    if stamped := stamp_of(release, env):
        return stamped
    yield f"APP_NAME={release.settings.app} APP_VERSION={release.version} {' '.join(release.settings.stamp.command)}"
    env.stamp(release.version, release.code)


def stamp_of(release: Release, env: Environment) -> str:
    """Return when this deployment was stamped, or that nothing is; "" before, and where another version was since."""
    if not release.settings.stamp.command:
        return "no stamp.command is set"
    deployment, stamp = require(env.hosts.facts(release.tag), "after the code is in place"), env.last_stamp()
    is_ours = stamp and stamp[0] == release.version and stamp[1] >= datetime.fromisoformat(deployment["began"])
    return f"stamped at {stamp[1].isoformat(timespec='seconds')}" if stamp and is_ours else ""


@until_live
def run_acceptance_tests(release: Release, env: Environment) -> str:
    """All conditions of section 7.2 hold."""
    again = f"inv accept --env {env.name}   # then the same command goes on, and nothing is deployed again"
    return all_pass(conditions_on(release, env), "Condition", f"on {env.name}", again)


def conditions_on(release: Release, env: Environment) -> list[Result]:
    """Return what section 7.2 says of the release that runs on `env`; checked once until something changes."""
    if env.name not in release.acceptance:
        require(env.runs(release.version), f"after the release runs on {env.name}")
        require(stamp_of(release, env), f"after the session is stamped on {env.name}")  # which section 7.2 compares
        release.only_in_a_run()
        conditions = partial(suites.check_conditions, release, env)
        release.acceptance[env.name] = suites.run_checks(release, f"acceptance-{env.name}", env.name, conditions)
    return release.acceptance[env.name]
