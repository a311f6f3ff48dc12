"""Checks: pytest tests of an environment, the target. One passes, fails, or is inconclusive, which blocks as well."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from psycopg import Connection

from release_tasks.database import programs
from release_tasks.errors import Refused

LAYER = Path(__file__).parents[2]  # what PYTHONPATH names while pytest runs
Record = Callable[[str, object], None]  # pytest's record_property: a name, and what was observed
VARIABLE = "RELEASE_TARGET"  # names the file by which pytest gets it
JUDGED = "gate:"  # begins the names of what the gate records, which no test's own are
# A check's own mistakes are reported by the check; in the server log they would be taken for the application's.
SETTINGS = """select set_config(name, value, false) from (values
  ('default_transaction_read_only', 'on'), ('log_min_messages', 'log')
) as own(name, value) where name <> 'log_min_messages' or has_parameter_privilege(name, 'set')"""


@dataclass(frozen=True)
class Target:
    """One environment: where it is, what should run there, and since when."""

    name: str
    app: str
    version: str
    dsn: str = field(repr=False)
    origin: str
    root: str  # of the repository
    code: str  # of what runs there
    folder: str  # in it, where commands run
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # of the application's commands
    version_path: str = "/api/version"
    placed: str = ""  # the tree that runs there, where it is on this machine
    commit: str = ""  # that should be deployed; empty on dev, which runs the working tree
    deployed_at: str = ""  # ISO 8601, by the database's clock
    settled_by: float = 0.0  # Unix time until which every check may come to pass
    watch: float = 0.0  # seconds in which each check may, from its own start
    is_backup: bool = False  # a restored backup: old rows, nobody writes
    log: str = ""  # PostgreSQL's server log
    log_positions: Mapping[str, Any] = field(default_factory=dict)  # as of the deployment
    session_log: str = ""  # empty: nothing is stamped
    ledger: str = ""
    pack: Mapping[str, str] = field(default_factory=dict, repr=False)  # DDL file → SHA-256

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Connect in autocommit; it can only read, and statements end after 30 s. Raises `Refused`."""
        with programs.connect(self.dsn, self.name, timeout=30) as connection:
            connection.execute(SETTINGS)
            yield connection

    def rows(self, query: str, *values: object) -> list[Any]:
        with self.connect() as connection:
            return connection.execute(query.encode(), values).fetchall()


class NoPass(Refused):
    """A check does not pass. `final`: no waiting will change that, so it is not tried again."""

    def __init__(self, message: str, hint: str = "", final: bool = False) -> None:
        super().__init__(" ".join(message.split()), hint)
        self.final = final


class CheckFailed(NoPass, AssertionError):
    """A check that ran, and found otherwise."""


class Inconclusive(NoPass):
    """It could not be checked, or there was nothing to check."""


def fail(record: Record, message: str) -> NoReturn:
    """Raise `CheckFailed`, on record, so that a test that catches it does not pass either."""
    record(f"{JUDGED}failed", message)
    raise CheckFailed(message)
