"""The smokes of sections 2, 7.1 and 8: `smokes/test_*.py`, passed by an environment."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from psycopg import sql

from release_tasks import screen
from release_tasks.checks import document, runner
from release_tasks.database import programs
from release_tasks.environments import Environment
from release_tasks.errors import Refused, refuse
from release_tasks.files import emptied, read_link, records_folder
from release_tasks.release import Release, environment_of, version_here


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
    results = runner.run(target, files_of(Path(target.code)), release.kept(f"smokes-{here.name}"))
    release.keep_results(f"smokes-{here.name}", here.name, results, commit=target.commit)
    return runner.summary(results, "Smoke", f"on {here.name}", f"inv smokes --env {here.name}")


def pass_on_copy(environment: Environment, version: str, dsn: str) -> str:
    """Run the tests marked `on_backup` on `dsn`, a restored copy, read-only meanwhile; return what ran, or why not."""
    code = environment.root if environment.name == "dev" else read_link(environment.current)
    if code is None:
        return "no smoke ran, for nothing has been deployed there yet"
    files = [file for file in document.smokes_in(code).values() if "on_backup" in file.read_text(encoding="utf-8")]
    if not files:
        return "no smoke is marked on_backup"
    evidence = emptied(records_folder(environment.root) / "checks" / "restored")
    target = runner.target_of(replace(environment, dsn=dsn, held=[]), version, code, is_backup=True)
    with programs.connect(dsn) as connection:
        alter = sql.SQL("alter database {} ").format(sql.Identifier(connection.info.dbname))
        connection.execute(alter + sql.SQL("set default_transaction_read_only = on"))
        results = runner.run(target, files, evidence, "-m", "on_backup")
        connection.execute(alter + sql.SQL("reset default_transaction_read_only"))
    again = "It can only read, and runs with the code deployed there; `target.is_backup` says that rows may be old."
    runner.summary(results, "Smoke", "on the restored backup", again)
    return f"smokes: {', '.join(dict.fromkeys(runner.name_of(each.file) for each in results))}"


def report(config: Any, where: str, only: str | None, as_json: bool, options: Sequence[str] = ()) -> None:
    """Run the smokes (or the one named `only`) in `where`, outside a release, and show a table."""
    screen.for_machines(as_json)
    with environment_of(config, where, services=True) as here, screen.busy(f"Running the smokes on {where}"):
        target, evidence = runner.target_of(here, version_here(here.root)), records_folder(here.root) / "checks"
        files = files_of(Path(target.code), only)
        results = runner.run(target, files, emptied(evidence / f"smokes-{where}"), *options, shown=bool(options))
    runner.show(f"Smokes on {where}", results, as_json)
    runner.summary(results, "Smoke", f"on {where}", f"inv smokes --env {where}")


def words_after_dashes() -> list[str]:
    """Return what was typed after `--`, word by word: Invoke itself keeps it as one text."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
