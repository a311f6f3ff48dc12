"""The two suites, smokes (sections 2, 7.1 and 8) and conditions (section 7.2): in a release, and by hand."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from release_tasks import screen
from release_tasks.checks import document, runner
from release_tasks.command_line import words_after_dashes
from release_tasks.config import project_root
from release_tasks.database.pack import pack_at
from release_tasks.embedded import environment_of
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import emptied, read_text, records_folder
from release_tasks.outcome import INCONCLUSIVE, Result, all_pass, problems_of
from release_tasks.release import Release
from release_tasks.versions import version_here


def smokes_of(code: Path, only: str | None = None) -> list[Path]:
    """Return the files of the smokes in the tree `code`, or that of the one named `only`. Raises `Refused`."""
    refuse(() if only else document.smoke_problems(code))
    files = document.smokes_in(code)
    if only and only not in files:
        raise Refused(f"There is no smoke {only!r}; expected one of {', '.join(files) or 'none'}.", "nox -l")
    return [files[only]] if only else list(files.values())


def pass_smokes(release: Release, env: Environment, code: Path | None = None, origin: str = "") -> str:
    """Pass all smokes in `env`, with the tree `code` and against `origin` where they are other ones."""
    release.only_in_a_run()
    version = _version_of(env) if env.name == "dev" else release.version
    target = runner.target_of(env, version, code, origin, commit=release.published or "")
    smokes = partial(runner.run, target, smokes_of(Path(target.code)))
    results = run_checks(release, f"smokes-{env.name}", env.name, smokes)
    return all_pass(results, "Smoke", f"on {env.name}", f"inv smokes --env {env.name}")


def run_checks(release: Release, name: str, where: str, check: Callable[[Path], list[Result]]) -> list[Result]:
    """Return the results of `check`, which gets a folder for its evidence; keep them there, and in the journal."""
    results = check(emptied(release.folder / "checks" / name))
    release.keep_check(name, version=release.version, where=where, commit=release.published, results=results)
    for result in results:
        release.journal.record("check", where=where, **asdict(result))
    return results


def pass_smokes_on_copy(env: Environment, version: str, dsn: str) -> str:
    """Pass the tests marked `on_backup` on `dsn`, a restored copy; return what ran, or why nothing did."""
    if env.name != "dev" and not next(iter(env.hosts.live().values())):
        return "no smoke ran, for no release of ours is live there"
    code = env.code
    files = [file for file in document.smokes_in(code).values() if "on_backup" in read_text(file)]
    if not files:
        return "no smoke is marked on_backup"
    target = runner.target_of(replace(env, dsn=dsn), version, code, is_backup=True)
    results = runner.run(target, files, _evidence(env, "restored"), marked="on_backup")
    again = "It runs with the code deployed there; `target.is_backup` says that rows may be old."
    return f"smokes: {all_pass(results, 'Smoke', 'on the restored backup', again)}"


def check_conditions(
    release: Release, env: Environment, evidence: Path, *options: str, watch: float = 0, origin: str = ""
) -> list[Result]:
    """Check the conditions until the deployment has settled, or each for `watch` seconds; `options` are pytest's."""
    code, facts, settings = release.code if origin else env.code, dict[str, Any](watch=watch), release.settings
    refuse(document.condition_problems(code))
    deployment = {} if env.name == "dev" else env.hosts.facts(release.tag)
    if commit := deployment.get("commit"):
        facts |= {"commit": commit, "deployed_at": deployment["began"], "ledger": settings.ddl.ledger}
        facts["settled_by"] = deployment.get("began_unix", 0.0) + settings.acceptance.wait
        facts["pack"] = {file.path: file.sha256 for file in pack_at(release.git, commit, settings)}
        facts["log_positions"] = deployment.get("positions", {})
        facts["session_log"] = settings.stamp.log if settings.stamp.command else ""
        facts["placed"] = str(env.hosts.host.code_of(release.tag)) if env.hosts.is_here else ""
    target, files = runner.target_of(env, release.version, code, origin, **facts), document.acceptance_in(code)
    results = runner.run(target, [runner.HERE / "deployed.py", *files], evidence, *options)
    items = {f"test_{name}": item for name, item in document.conditions(code).items()}
    ran = {each.test.partition("[")[0] for each in results}
    results += [Result("", INCONCLUSIVE, "Its test did not run.", test=test) for test in items if test not in ran]
    return [replace(each, name=runner.name_of(each.test, items) if each.test else each.name) for each in results]


def problems_on_dev(release: Release, dev: Environment) -> list[Problem]:
    """Return a problem for each query of section 7.2 that cannot be run on dev; which rows it finds does not matter."""
    release.only_in_a_run()
    files, target = document.acceptance_in(release.root), runner.target_of(dev, release.version)
    results = runner.run(target, files, emptied(release.folder / "checks" / "acceptance-dev"), marked="queries")
    unclear = [each for each in results if each.outcome == INCONCLUSIVE and runner.NONE_CHOSEN not in each.message]
    return problems_of(unclear, "Condition", "on dev", "inv accept --env dev")


def report_smokes(config: Any, where: str, only: str | None, as_json: bool) -> None:
    """Run the smokes (or the one named `only`) in `where`, outside a release, and show a table."""
    if only and where == "dev":
        smokes_of(project_root(config), only)  # before its DDL pack is applied
    with environment_of(config, where, services=True) as env, screen.busy(f"Running the smokes on {where}"):
        target, evidence = runner.target_of(env, _version_of(env)), _evidence(env, f"smokes-{where}")
        results = runner.run(target, smokes_of(Path(target.code), only), evidence, *words_after_dashes())
    screen.report(f"Smokes on {where}", results, as_json, "Smoke", f"on {where}")


def report_conditions(config: Any, where: str, version: str | None, watch: str | None, as_json: bool) -> None:
    """Check section 7.2 in `where`, outside a release, and show a table; `watch`: seconds that each may take."""
    if watch and not watch.isdecimal():
        raise Refused(f"--watch says {watch!r}; expected seconds.", f"inv accept --env {where} --watch 120")
    with environment_of(config, where, services=True) as env:
        version = version or _version_of(env)
        title, options = f"Section 7.2 on {where}, version {version}", words_after_dashes()
        with closing(Release(version, env.root, env.settings)) as release, screen.busy(f"Checking {title}"):
            evidence = _evidence(env, f"acceptance-{where}")
            results = check_conditions(release, env, evidence, *options, watch=float(watch or 0))
    screen.report(title, results, as_json, "Condition", f"on {where}")


def _version_of(env: Environment) -> str:
    """Return the version that runs in `env`: what is live, on dev what lies in the working tree."""
    tag = "" if env.name == "dev" else env.hosts.tag()
    return env.settings.version_of(tag) or tag or version_here(env.root)


def _evidence(env: Environment, name: str) -> Path:
    """Return the empty folder for what checks outside a release leave."""
    return emptied(records_folder(env.root) / "checks" / name)
