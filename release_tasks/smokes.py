"""The smokes of sections 2, 7.1 and 8: `smokes/test_*.py`, passed by an environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from psycopg import sql

from release_tasks import screen
from release_tasks.checks import document, runner
from release_tasks.checks.target import VARIABLE
from release_tasks.database import programs
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import emptied, records_folder
from release_tasks.processes.links import read_link

if TYPE_CHECKING:
    from release_tasks.environments import Environment
    from release_tasks.release import Release


def files_of(code: Path, only: str | None = None) -> list[Path]:
    """Return the files of the smokes in the tree `code`, or that of the one named `only`. Raises `Refused`."""
    if only is None:
        refuse(document.smoke_problems(code))
    files = document.smokes_in(code)
    if only and only not in files:
        there = ", ".join(files) or "none"
        raise Refused(f"There is no smoke {only!r}; expected one of {there}.", "inv smokes   # all of them")
    return [files[only]] if only else list(files.values())


def pass_all(release: Release, environment: Environment, code: Path | None = None, origin: str = "") -> str:
    """Pass all smokes in `environment`, with the tree `code` and against `origin` where they are other ones.

    The results are kept as evidence. Returns a few words; raises `Refused` with all that did not pass.
    """
    evidence, commit = release.kept(f"smokes-{environment.name}"), release.published or ""
    target = runner.target_of(environment, release.version, code, origin, commit=commit)
    results = runner.run(target, files_of(Path(target.code)), evidence)
    release.keep_results(f"smokes-{environment.name}", environment.name, results, commit=commit)
    refuse(problems_of(results, environment.name))
    return in_words(results)


def in_words(results: Sequence[runner.Result]) -> str:
    """Say of each smoke how long it took."""
    seconds: dict[str, float] = {}
    for result in results:
        seconds[result.file] = seconds.get(result.file, 0.0) + result.seconds
    return ", ".join(f"{runner.name_of(file)} {took:.1f} s" for file, took in seconds.items())


def problems_of(results: Sequence[runner.Result], where: str) -> list[Problem]:
    """Return the problems of smokes, each named by its file and its test."""
    return runner.problems_of(named(results), where, "smoke", f"inv smokes --env {where}")


def named(results: Sequence[runner.Result]) -> list[runner.Result]:
    """Return `results`, each under the name of its smoke and of its test."""
    return [replace(each, name=f"{runner.name_of(each.file)}: {runner.name_of(each.name)}") for each in results]


def pass_on_copy(environment: Environment, version: str, dsn: str) -> str:
    """Run the tests that are marked `on_backup` on `dsn`, a restored copy that is read-only meanwhile.

    They run in the code that is deployed in `environment`, which made the data. Returns their names, or why none ran;
    raises `Refused` with those that do not pass.
    """
    code = environment.root if environment.name == "dev" else read_link(environment.current)
    if code is None:
        return "no smoke ran, for nothing has been deployed there yet"
    files = [file for file in document.smokes_in(code).values() if "on_backup" in file.read_text(encoding="utf-8")]
    if not files:
        return "no smoke is marked on_backup"
    evidence = emptied(records_folder(environment.root) / "checks" / "restored")
    with programs.connect(dsn) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        target = runner.target_of(replace(environment, dsn=dsn, held=[]), version, code, is_backup=True)
        results = runner.run(target, files, evidence, marked="on_backup")
        connection.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
    hint = "It can only read, and runs with the code deployed there; `target.is_backup` says that rows may be old."
    refuse(replace(each, mend=hint) for each in problems_of(results, "the restored backup"))
    return f"smokes: {', '.join(dict.fromkeys(runner.name_of(each.file) for each in results))}"


def report(config: Any, where: str, only: str | None, as_json: bool, options: Sequence[str] = ()) -> None:
    """Run the smokes (or the one named `only`) of the environment `where`, outside a release, and show a table.

    `options` are pytest's. Raises `Refused` when one is no pass.
    """
    from release_tasks.release import environment_of, version_here

    screen.for_machines(as_json)
    if as_json and options:
        raise Refused("--json and pytest's options both print to the same place.", "inv smokes -- …, without --json")
    with environment_of(config, where) as environment:
        evidence = emptied(records_folder(environment.root) / "checks" / f"smokes-{where}")
        target = runner.target_of(environment, version_here(environment.root))
        with screen.busy(f"Running the smokes on {where}"):
            results = runner.run(target, files_of(Path(target.code), only), evidence, options)
    runner.keep(evidence, results)
    runner.show(f"Smokes on {where}", named(results), as_json)
    refuse(problems_of(results, where))


# For noxfile.py


def words(options: Sequence[str]) -> tuple[str, list[str]]:
    """Return the environment that `--env` names in `options`, and the rest, which is pytest's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--env", default="dev")
    known, rest = parser.parse_known_args(options)
    return known.env, rest


@contextmanager
def command_of(config: Any, file: Path, options: Sequence[str]) -> Iterator[runner.Command]:
    """Yield the arguments of Python and the variables that run one smoke.

    Where we were called with a target, they are those that we were given; else the environment is opened here.
    """
    if os.environ.get(VARIABLE):
        yield list(options), {}
        return
    from release_tasks.release import environment_of, version_here

    where, rest = words(options)
    with environment_of(config, where) as environment, TemporaryDirectory() as folder:
        evidence = emptied(records_folder(environment.root) / "checks" / f"smokes-{where}")
        target = runner.target_of(environment, version_here(environment.root), evidence=str(evidence))
        yield runner.command(target, [file], Path(folder) / "target.json", rest)


def words_after_dashes() -> list[str]:
    """Return what was typed after `--`, word by word: Invoke itself keeps it as one text."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
