"""The smokes of sections 2, 7.1 and 8: `smokes/test_*.py`, passed by an environment."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from release_tasks import screen
from release_tasks.checks import document, runner
from release_tasks.config import project_root, words_after_dashes
from release_tasks.embedded import environment_of
from release_tasks.environments import Environment
from release_tasks.errors import Refused, refuse
from release_tasks.files import emptied, read_text, records_folder
from release_tasks.outcome import all_pass
from release_tasks.release import Release
from release_tasks.versions import version_here


def files_of(code: Path, only: str | None = None) -> list[Path]:
    """Return the files of the smokes in the tree `code`, or that of the one named `only`. Raises `Refused`."""
    refuse(() if only else document.smoke_problems(code))
    files = document.smokes_in(code)
    if only and only not in files:
        raise Refused(f"There is no smoke {only!r}; expected one of {', '.join(files) or 'none'}.", "nox -l")
    return [files[only]] if only else list(files.values())


def pass_all(release: Release, here: Environment, code: Path | None = None, origin: str = "") -> str:
    """Pass all smokes in `here`, with the tree `code` and against `origin` where they are other ones."""
    release.only_in_a_run()
    target = runner.target_of(here, release.version, code, origin, commit=release.published or "")
    results = release.checked(
        f"smokes-{here.name}", here.name, partial(runner.run, target, files_of(Path(target.code)))
    )
    return all_pass(results, "Smoke", f"on {here.name}", f"inv smokes --env {here.name}")


def pass_on_copy(environment: Environment, version: str, dsn: str) -> str:
    """Run the tests marked `on_backup` on `dsn`, a restored copy; return what ran, or why nothing did."""
    if environment.name != "dev" and not environment.hosts.tag():
        return "no smoke ran, for nothing has been deployed there yet"
    code = environment.code
    files = [file for file in document.smokes_in(code).values() if "on_backup" in read_text(file)]
    if not files:
        return "no smoke is marked on_backup"
    target = runner.target_of(replace(environment, dsn=dsn, to_close=[]), version, code, is_backup=True)
    evidence = emptied(records_folder(environment.root) / "checks" / "restored")
    results = runner.run(target, files, evidence, marked="on_backup")
    again = "It runs with the code deployed there; `target.is_backup` says that rows may be old."
    return f"smokes: {all_pass(results, 'Smoke', 'on the restored backup', again)}"


def report(config: Any, where: str, only: str | None, as_json: bool) -> None:
    """Run the smokes (or the one named `only`) in `where`, outside a release, and show a table."""
    screen.for_machines(as_json)
    if only and where == "dev":
        files_of(project_root(config), only)  # before its DDL pack is applied
    with environment_of(config, where, services=True) as here, screen.busy(f"Running the smokes on {where}"):
        target = runner.target_of(here, version_here(here.root))
        evidence = emptied(records_folder(here.root) / "checks" / f"smokes-{where}")
        results = runner.run(target, files_of(Path(target.code), only), evidence, *words_after_dashes())
    screen.report(f"Smokes on {where}", results, as_json, "Smoke", f"on {where}")
