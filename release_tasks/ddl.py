"""The DDL pack: which files, in which order, locked how, and applied to which database."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from release_tasks import node, shell
from release_tasks.errors import Problem, Refused
from release_tasks.files import checksum_lines, read_checksums, records_folder, sha256

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.errors import Diagnostic

    from release_tasks.environments import Environment
    from release_tasks.git import Git
    from release_tasks.settings import Ddl, Settings

SORT = "const n = JSON.parse(process.argv[1]); console.log(JSON.stringify(n.sort((a, b) => a.localeCompare(b))))"


ADVISORY_LOCK = 0x11EA5E  # any number will do, as long as every release takes the same


@dataclass(frozen=True)
class DdlFile:
    """One file of the pack: its path from the root with forward slashes, and its committed bytes."""

    path: str
    content: bytes

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def sha256(self) -> str:
        return sha256(self.content)


def pack_at(git: Git, commit: str, settings: Settings) -> list[DdlFile]:
    """Return the pack as committed in `commit`, in the order in which it is applied."""
    paths = [path for path in git.files_in(commit, settings.ddl.folder) if path.endswith(".sql")]
    contents = {PurePosixPath(path).name: DdlFile(path, git.bytes_at(commit, path) or b"") for path in paths}
    return [contents[name] for name in in_order(list(contents), git.root, settings)]


def pack_in(code: Path, root: Path, settings: Settings) -> list[DdlFile]:
    """Return the pack as it lies in the folder `code`, in the order in which it is applied."""
    files = {path.name: path for path in (code / settings.ddl.folder).glob("*.sql")}
    names = in_order(list(files), root, settings)
    return [DdlFile(f"{settings.ddl.folder}/{name}", files[name].read_bytes()) for name in names]


def in_order(names: list[str], root: Path, settings: Settings) -> list[str]:
    """Return base names as the runner sorts them; `javascript` asks Node itself, for its order is a locale's."""
    if settings.ddl.order == "bytes" or len(names) < 2:
        return sorted(names)
    env = node.runtime(root / settings.folder, records_folder(root))
    asked = shell.run(["node", "--eval", SORT, json.dumps(sorted(names))], env=env)
    return list(json.loads(asked.stdout))


def pack_problems(pack: list[DdlFile], ddl: Ddl) -> list[Problem]:
    """Return what is wrong with a pack before anything is applied: empty, empty files, no leading number."""
    if not pack:
        return [
            Problem(f"No *.sql file is committed in {ddl.folder}; expected the DDL pack.", "Set release.ddl.folder.")
        ]
    problems = []
    for file in pack:
        if not file.content.strip():
            problems.append(Problem(f"{file.path} is empty; expected SQL.", f"git rm {file.path}"))
        if not re.match(r"\d", file.name):
            problems.append(
                Problem(
                    f"{file.path} has no number; expected one, for it is what orders the pack.", f"git mv {file.path} …"
                )
            )
    return problems


def lock_of(pack: list[DdlFile], tag: str) -> bytes:
    """Return the order lock: `sha256sum --check` reads it, and its lines stand in application order."""
    title = f"# {tag}: the DDL pack in the order in which it is applied\n".encode()
    return title + checksum_lines({file.path: file.sha256 for file in pack})


def locked_for(lock: bytes, tag: str) -> bool:
    """Tell whether `lock` was made for the release `tag`, and not for one before."""
    return lock.startswith(f"# {tag}:".encode())


def shifts(lock: bytes, pack: list[DdlFile]) -> list[Problem]:
    """Return the structural shifts since the lock: files added, removed or in another order (section 3)."""
    locked, found = list(read_checksums(lock)), [file.path for file in pack]
    problems = [Problem(f"{path} was added after the DDL order was locked.") for path in found if path not in locked]
    problems += [Problem(f"{path} was removed after the DDL order was locked.") for path in locked if path not in found]
    if not problems and locked != found:
        problems.append(Problem("The order of the DDL pack is not the locked one any more."))
    return problems


def unapplied(connection: Connection, pack: list[DdlFile], ddl: Ddl) -> list[DdlFile]:
    """Return the files that the ledger does not hold with their present content, in order."""
    schema, _, table = ddl.ledger.partition(".")
    if connection.execute("select to_regclass(%s)", [f"{schema}.{table}"]).fetchone() == (None,):
        return list(pack)
    held: dict[str, str] = dict(connection.execute(f"select file, sha256 from {ddl.ledger}").fetchall())
    return [file for file in pack if held.get(file.path) != file.sha256]


def keep_others_out(connection: Connection, where: str) -> None:
    """Let no other release apply DDL here while `connection` lives (PostgreSQL, "Advisory Locks"); never waits."""
    if connection.execute("select pg_try_advisory_lock(%s)", [ADVISORY_LOCK]).fetchone() == (True,):
        return
    holder = connection.execute(
        "select format('process %%s, since %%s', pid, backend_start::timestamptz(0)) from pg_locks"
        " join pg_stat_activity using (pid) where locktype = 'advisory' and objid = %s and granted",
        [ADVISORY_LOCK],
    ).fetchone()
    raise Refused(
        f"Another release is applying DDL to {where}: {holder[0] if holder else 'it has just ended'}.",
        "Wait for it, then run again.",
    )


def apply(environment: Environment, pack: list[DdlFile], code: Path, version: str) -> list[str]:
    """Apply the whole pack by the application's runner in `code`, or by psycopg, one transaction a file.

    Returns the notices and warnings, each with its file. Raises `Refused` naming file, line and PostgreSQL's message.
    """
    if environment.settings.ddl.command:
        return _apply_by_command(environment, pack, code, version)
    return _apply_by_psycopg(environment, pack)


def _apply_by_command(environment: Environment, pack: list[DdlFile], code: Path, version: str) -> list[str]:
    settings, ddl = environment.settings, environment.settings.ddl
    env = environment.variables(version)
    ran = shell.run(ddl.command, cwd=code / settings.folder, env=env, timeout=ddl.timeout, leash=True)
    expected = ddl.must_print.replace("{count}", str(len(pack)))
    if not re.search(expected, ran.output):
        raise Refused(
            f"{' '.join(ddl.command)} ended without an error, but did not print {expected!r}: "
            f"expected it to apply {len(pack)} files. It said: {ran.tail(3)}",
            "Run it by hand with --dry-run and compare with the order lock.",
        )
    named = [found.start() for file in pack if (found := re.search(rf"(?<![\w.-]){re.escape(file.name)}", ran.stdout))]
    if len(named) == len(pack) and named != sorted(named):
        raise Refused(
            f"{' '.join(ddl.command)} applied the files in another order than the locked one.",
            "Let release.ddl.order in invoke.yaml say how the runner sorts.",
        )
    return [line for line in ran.output.splitlines() if re.search(r"\b(NOTICE|WARNING)\b", line)]


def _apply_by_psycopg(environment: Environment, pack: list[DdlFile]) -> list[str]:
    from psycopg import Error

    notices: list[str] = []
    with environment.connect() as connection:
        connection.execute(f"set statement_timeout = '{environment.settings.ddl.timeout:g}s'")
        for file in pack:

            def keep(diagnostic: Diagnostic, name: str = file.name) -> None:
                notices.append(f"{name}: {diagnostic.severity}: {diagnostic.message_primary}")

            connection.add_notice_handler(keep)
            try:
                with connection.transaction():
                    connection.execute(file.content.removeprefix(codecs.BOM_UTF8))
            except Error as error:
                mend = f"Mend {file.path}; once the tag is published, a fix is a new version."
                raise Refused(_failure(file, error), mend) from error
            finally:
                connection.remove_notice_handler(keep)
    return notices


def _failure(file: DdlFile, error: Exception) -> str:
    """Return one sentence: file, line, message and SQLSTATE (PostgreSQL, "Error and Notice Message Fields")."""
    diagnostic = getattr(error, "diag", None)
    position = getattr(diagnostic, "statement_position", None)
    text = file.content.decode("utf-8", errors="replace")
    line = f", line {text[: int(position)].count(chr(10)) + 1}" if position else ""
    message = getattr(diagnostic, "message_primary", None) or str(error)
    return f"{file.path}{line}: {message} (SQLSTATE {getattr(error, 'sqlstate', None) or 'none'})."


def enter(connection: Connection, pack: Iterable[DdlFile], ddl: Ddl, version: str) -> None:
    """Enter what was applied in the ledger, which makes "is this pack applied here?" a look."""
    schema = ddl.ledger.partition(".")[0]
    connection.execute("set client_min_messages = warning")
    connection.execute(f"create schema if not exists {schema}")
    connection.execute(
        f"create table if not exists {ddl.ledger} (file text primary key, sha256 text not null,"
        " version text not null, applied_at timestamptz not null default now(), applied_by text not null default user)"
    )
    connection.cursor().executemany(
        f"insert into {ddl.ledger} (file, sha256, version) values (%s, %s, %s) on conflict (file) do update"
        " set sha256 = excluded.sha256, version = excluded.version, applied_at = now(), applied_by = user",
        [(file.path, file.sha256, version) for file in pack],
    )
