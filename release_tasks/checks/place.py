"""The place that is looked at, as the process that looks is told of it: a file that only its owner can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.checks.verdict import Unknown
from release_tasks.kinds import KINDS, Check
from release_tasks.masks import hide

if TYPE_CHECKING:
    from psycopg import Connection

TOLD = "RELEASE_PLACE"  # the variable that names the file
CONNECT = 5  # seconds to reach the database
WHO = "release: a check"
# What a check mistypes is told by the check; in the server log it would be found as the application's.
QUIETLY = """select set_config('log_min_messages', 'log', false)
  where has_parameter_privilege('log_min_messages', 'set') and current_setting('log_min_messages') <> 'log'"""


class Hidden(str):
    """A text that may hold a secret: pytest shortens what it shows of a value, and half a password is not masked."""

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Asked:
    """One check as it is asked: under which name, for which bullet of which section, and how long it may wait."""

    name: str
    section: str
    bullet: str
    check: Check
    wait: float = 0.0  # seconds
    turn: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)  # of a command: those of its own environment


@dataclass(frozen=True)
class Place:
    """One environment: where it is, what should run there, and since when.

    `code` is the tree that runs there and `folder` the part of it in which commands run; `kept` takes screenshots.
    """

    name: str
    app: str
    version: str
    dsn: str = field(repr=False)
    origin: str
    root: str
    code: str
    folder: str
    kept: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    keys: str = ""
    version_path: str = "/api/version"
    commit: str = ""  # that should be deployed; empty on dev, which runs the working tree
    began: str = ""  # when the deployment began, in ISO 8601
    log: str = ""  # PostgreSQL's server log
    positions: Mapping[str, Any] = field(default_factory=dict)  # of the logs, from when the deployment began
    ends_with_us: bool = False  # embedded: its server logs that it stops, each time
    stamp_log: str = ""  # empty: nothing is stamped
    stamp_flags: str = ""
    ledger: str = ""
    pack: Mapping[str, str] = field(default_factory=dict, repr=False)  # DDL file → SHA-256
    rewritten: Mapping[str, str] = field(default_factory=dict)  # deployed files that may differ → why
    asked: tuple[Asked, ...] = field(default=(), repr=False)

    def write(self, path: Path) -> None:
        """Write what the checks have to know into the new file `path`, readable by its owner alone."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            told = [{**vars(each), "check": each.check.model_dump(mode="json")} for each in self.asked]
            json.dump({**asdict(self), "asked": told}, file)

    @classmethod
    def told(cls) -> Place:
        """Return the place that this process was told to look at. Raises `Unknown` when it was told of none.

        The file goes once it is read: a run that is killed leaves no password behind.
        """
        try:
            file = Path(os.environ[TOLD])
            facts = json.loads(file.read_text(encoding="utf-8"))
            file.unlink()
        except (KeyError, OSError):
            raise Unknown("No environment was named to look at.", "inv smokes --env dev", definite=True) from None
        asked = tuple(
            Asked(**{**each, "check": KINDS[each["check"]["kind"]].model_validate(each["check"])})
            for each in facts["asked"]
        )
        facts["variables"] = {name: Hidden(value) for name, value in facts["variables"].items()}
        place = cls(**{**facts, "asked": asked, "dsn": Hidden(facts["dsn"])})
        place.hide_its_secrets()
        return place

    def hide_its_secrets(self) -> None:
        """Keep the password of the DSN, and what is sent as cookies and headers, out of all that is shown."""
        hide(self.variables.get("PGPASSWORD", ""))  # the DSN's own, which is not parsed here: that takes psycopg
        for each in self.asked:
            for sent in ("cookies", "headers"):
                for value in getattr(each.check, sent, {}).values():
                    hide(value)
                    hide(value.partition("=")[2])

    def connect(self, timeout: float = 30, read_only: bool = True) -> Connection:
        """Return a connection in autocommit whose statements end after `timeout` seconds. Raises `Unknown`.

        PostgreSQL 15, section 20.11.1: `default_transaction_read_only`, `statement_timeout`.
        """
        import psycopg

        try:
            connection = psycopg.connect(
                self.dsn, autocommit=True, connect_timeout=CONNECT, application_name=WHO, prepare_threshold=None
            )
            connection.execute("select set_config('statement_timeout', %s, false)", [f"{int(timeout * 1000)}ms"])
            connection.execute(QUIETLY)
            if read_only:
                connection.execute("set default_transaction_read_only = on")
        except psycopg.Error as error:
            raise Unknown(f"The database of {self.name} cannot be used: {' '.join(str(error).split())}") from None
        return connection
