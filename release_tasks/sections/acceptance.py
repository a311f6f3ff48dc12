"""Section 7.2: the release goes on only if its conditions hold; the tests in `acceptance/` are named like them."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from release_tasks import embedded, screen
from release_tasks.checks import deployed, document, runner
from release_tasks.config import project_root, settings_of, words_after_dashes
from release_tasks.database.pack import pack_at
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, refuse, require
from release_tasks.files import emptied, records_folder
from release_tasks.outcome import INCONCLUSIVE, Result, all_pass, problems_of
from release_tasks.release import Release, until_live
from release_tasks.sections.deployment import stamped_at
from release_tasks.versions import version_here


@until_live
def meet_the_conditions(release: Release, env: Environment) -> str:
    """All conditions of section 7.2 hold."""
    again = f"inv accept --env {env.name}   # then the same command goes on, and nothing is deployed again"
    return all_pass(acceptance_on(release, env), "Condition", f"on {env.name}", again)


def acceptance_on(release: Release, here: Environment) -> list[Result]:
    """Return what section 7.2 says of the release that runs `here`; checked once until something changes."""
    if release.acceptance is None:
        require(here.runs(release.version), f"after the release runs on {here.name}")
        stamped = not release.settings.stamp.command or stamped_at(release, here)
        require(stamped, f"after the session is stamped on {here.name}")
        release.only_in_a_run()
        release.acceptance = release.checked(f"acceptance-{here.name}", here.name, partial(check, release, here))
    return release.acceptance


def accept_before_the_flip(release: Release, here: Environment, origin: str) -> str:
    """Check section 7.2 at `origin`, where the release runs without traffic; its tests only read."""
    conditions = partial(check, release, here, origin=origin)
    results = release.checked(f"acceptance-{here.name}-before", here.name, conditions)
    return all_pass(results, "Condition", f"at {origin}, before the flip", release.again())


def check(
    release: Release, here: Environment, evidence: Path, *options: str, watch: float = 0, origin: str = ""
) -> list[Result]:
    """Check the conditions until the deployment has settled, or each for `watch` seconds; `options` are pytest's."""
    code, facts = release.code if origin else here.code, dict[str, Any](watch=watch)
    refuse(document.condition_problems(code))
    deployment = {} if here.name == "dev" else here.hosts.facts(release.tag)
    if commit := deployment.get("commit"):
        settings = release.settings
        facts |= {"commit": commit, "deployed_at": deployment["began"], "ledger": settings.ddl.ledger}
        facts["settled_by"] = deployment.get("began_unix", 0.0) + settings.acceptance.wait
        facts["pack"] = {file.path: file.sha256 for file in pack_at(release.git, commit, settings)}
        facts["log_positions"] = deployment.get("positions", {})
        facts["session_log"] = settings.stamp.log if settings.stamp.command else ""
        facts["placed"] = str(here.hosts.path_of(release.tag) or "")
    target = runner.target_of(here, release.version, code, origin, **facts)
    files = [Path(deployed.__file__), *sorted((code / "acceptance").glob("test_*.py"))]
    results = runner.run(target, files, evidence, *options)
    items = {f"test_{name}": item for name, item in document.conditions(code).items()}
    missing = items.keys() - {each.test.partition("[")[0] for each in results}
    results += [Result("", INCONCLUSIVE, "Its test did not run.", test=test) for test in missing]
    return [replace(each, name=runner.name_of(each.test, items) if each.test else each.name) for each in results]


def problems_on_dev(release: Release, dev: Environment) -> list[Problem]:
    """Return which conditions have no test, or queries that cannot be run on dev; their rows there are no matter."""
    release.only_in_a_run()
    files, target = sorted((release.root / "acceptance").glob("test_*.py")), runner.target_of(dev, release.version)
    results = runner.run(target, files, emptied(release.folder / "checks" / "acceptance-dev"), marked="queries")
    none = "exit code 5."  # pytest's, where no test only queries the database
    unclear = [each for each in results if each.outcome == INCONCLUSIVE and none not in each.message]
    return problems_of(unclear, "Condition", "on dev", "inv accept --env dev")


def report(config: Any, where: str, version: str | None, watch: str | None, as_json: bool) -> None:
    """Check section 7.2 in `where`, outside a release, and show a table; `watch`: seconds that each may take."""
    screen.for_machines(as_json)
    if watch and not watch.isdecimal():
        raise Refused(f"--watch says {watch!r}; expected seconds.", f"inv accept --env {where} --watch 120")
    settings, root = settings_of(config), project_root(config)
    with embedded.environment_of(config, where, services=True) as env:
        tag = "" if where == "dev" else env.hosts.tag()
        version = version or settings.version_of(tag) or tag or version_here(root)
        title, evidence = f"Section 7.2 on {where}, version {version}", records_folder(root) / "checks"
        with closing(Release(version, root, settings)) as release, screen.busy(f"Checking {title}"):
            options = words_after_dashes()
            results = check(release, env, emptied(evidence / f"acceptance-{where}"), *options, watch=float(watch or 0))
    screen.report(title, results, as_json, "Condition", f"on {where}")
