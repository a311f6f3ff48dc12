"""The target: the environment under test, handed to pytest as a file that only its owner can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from xml.sax.saxutils import escape

import psycopg
from psycopg import Connection, errors

from release_tasks.checks import Inconclusive
from release_tasks.masks import hide

VARIABLE = "RELEASE_TARGET"  # names the file
# A check's own mistakes are reported by the check; in the server log they would be taken for the application's.
SET_UP = """select set_config('log_min_messages', 'log', false)
  where has_parameter_privilege('log_min_messages', 'set') and current_setting('log_min_messages') <> 'log'"""


class Secret(str):
    """A text that no failure report shows."""

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Target:
    """One environment: where it is, what should run there, and since when.

    `code` is the tree that runs there, `folder` the part of it in which commands run, `root` the repository.
    """

    name: str
    app: str
    version: str
    dsn: str
    origin: str
    root: str
    code: str
    folder: str
    evidence: str = ""  # where screenshots go
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # of the application's commands
    version_path: str = "/api/version"
    commit: str = ""  # that should be deployed; empty on dev, which runs the working tree
    deployed_at: str = ""  # ISO 8601, by the database's clock
    settled_by: float = 0.0  # Unix time until which every check may come to pass
    is_backup: bool = False  # a restored backup: old rows, nobody writes
    is_embedded: bool = False  # its server stops with each command, and logs that
    marked: str = ""  # of the checks, only those with this mark
    only_queries: bool = False  # of the checks, only those that query nothing but the database
    log: str = ""  # PostgreSQL's server log
    log_positions: Mapping[str, Any] = field(default_factory=dict)  # as of the deployment
    session_log: str = ""  # empty: nothing is stamped
    session_flags: str = ""
    ledger: str = ""
    pack: Mapping[str, str] = field(default_factory=dict, repr=False)  # DDL file → SHA-256
    rewritten: Mapping[str, str] = field(default_factory=dict)  # deployed files that may differ → why
    prefix: str = ""  # of the layer's Python

    def save(self, path: Path) -> Path:
        """Write it to the new file `path`, and return that."""
        self.hide_secrets()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        return path

    @classmethod
    def load(cls) -> Target:
        """Return the target that this process was given. Raises `Inconclusive` when it was given none."""
        try:
            file = Path(os.environ[VARIABLE])
            facts = json.loads(file.read_text(encoding="utf-8"))
            file.unlink()  # a run that is killed leaves no password behind
        except (KeyError, OSError):
            raise Inconclusive("No target is given.", "inv smokes --env dev") from None
        env = {name: Secret(value) for name, value in facts["env"].items()}
        target = cls(**{**facts, "env": env, "dsn": Secret(facts["dsn"])})
        target.hide_secrets()
        return target

    def hide_secrets(self) -> None:
        """Keep the password of the DSN out of all that is shown, in XML as well."""
        hide(self.env.get("PGPASSWORD", ""))
        hide(escape(self.env.get("PGPASSWORD", ""), {'"': "&quot;"}))

    def connect(self, timeout: float = 30) -> Connection:
        """Return a read-only connection in autocommit whose statements end after `timeout` seconds.

        Raises `Inconclusive`, also where a query fails later. PostgreSQL 15, section 20.11.1.
        """
        try:
            connection = psycopg.connect(
                self.dsn,
                autocommit=True,
                connect_timeout=5,
                application_name="release: a check",
                prepare_threshold=None,
            )
            connection.execute("select set_config('statement_timeout', %s, false)", [f"{int(timeout * 1000)}ms"])
            connection.execute(SET_UP)
            connection.execute("set default_transaction_read_only = on")
        except psycopg.Error as error:
            raise Inconclusive(f"The database of {self.name} cannot be used: {one_line(error)}.") from None
        connection.cursor_factory = CheckCursor
        return connection


class CheckCursor(psycopg.Cursor[Any]):
    """A cursor whose failed queries make a check inconclusive; final, unless the server was away."""

    def execute(self, query: Any, params: Any = None, **how: Any) -> Self:
        try:
            return super().execute(query, params, **how)
        except psycopg.Error as error:
            said, hint = error.diag.message_primary or one_line(error), ""
            if isinstance(error, errors.QueryCanceled):
                hint = "Give it an index, or less to do."
            elif isinstance(error, errors.ReadOnlySqlTransaction):
                hint = "A check only reads; what has to write belongs into a program of the application."
            elif isinstance(error, errors.InsufficientPrivilege):
                *_, kind, name = said.split()
                right = {"schema": "usage on schema", "function": "execute on function"}.get(kind, "select on")
                full = next((word for word in str(query).replace('"', "").split() if word.endswith(f".{name}")), name)
                hint = f"grant {right} {full} to {self.connection.info.user}"
            again = isinstance(error, psycopg.OperationalError) and not isinstance(error, errors.QueryCanceled)
            text = query.decode() if isinstance(query, bytes) else query
            raise Inconclusive(f"A query fails: {said}. It is: {text}", hint, final=not again) from None


def one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")
