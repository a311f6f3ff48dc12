"""The passes of a proof: a DDL pack applied on a scratch server from empty, again, over rows, over the last release."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import catalog, contents, sql
from release_tasks.environments import Environment
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.schema import drift, rows, runner, scratch
from release_tasks.schema.sending import Applied, Hook

if TYPE_CHECKING:
    from psycopg import Connection

    from release_tasks.database.postgres import Running
    from release_tasks.schema.ddl import DdlFile
    from release_tasks.settings import Settings

MOST_RUNS = 5  # after which a pack that still changes something is said never to settle
ABSENT = ("42P01", "42883", "42704", "42703", "3F000")  # undefined table, function, object, column, schema
TABLES = """select oid, relnamespace::regnamespace || '.' || quote_ident(relname) from pg_class
  where relkind in ('r', 'p', 'm') and oid >= 16384"""
LOCKED = "select relation from pg_locks where pid = pg_backend_pid() and mode = 'AccessExclusiveLock'"
DID = {catalog.MISSING: "drops", catalog.EXTRA: "makes", catalog.DIFFERS: "changes"}
EXCEPT = "or give a reason in release.ddl.exceptions."


@dataclass
class FileProof:
    """What was seen of one file: seconds from empty by psycopg (None: not reached), what was said, what it locks."""

    path: str
    seconds: float | None = None
    notices: int = 0
    warnings: int = 0
    locks: list[str] = field(default_factory=list)


@dataclass
class Proof:
    """The outcome: `problems` stand in the way, `told` does not, `excepted` would but for a reason in the settings."""

    files: list[FileProof]
    server: int = 0
    runs: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    excepted: dict[str, str] = field(default_factory=dict)

    @property
    def locks(self) -> list[str]:
        return [f"{file.path} takes ACCESS EXCLUSIVE on {', '.join(file.locks)}" for file in self.files if file.locks]

    def __str__(self) -> str:
        took = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())
        return f"{len(self.files)} files on PostgreSQL {self.server}: {took or 'not even once from empty'}"

    def add(self, problem: Problem, exceptions: dict[str, str], blocks: bool = True) -> None:
        """Put `problem` where it belongs: excepted by the settings, in the way, or only told."""
        if reason := drift.excepted(problem.what, exceptions):
            self.excepted[problem.what] = reason
        elif blocks and problem not in self.problems:
            self.problems.append(problem)
        elif not blocks and problem.what not in self.told:
            self.told.append(problem.what)


@dataclass
class Proving:
    """The proof of `pack` over `last` (empty: there is none), which lie in `root`, on the server `running`."""

    proof: Proof
    pack: list[DdlFile]
    last: list[DdlFile]
    root: Path
    settings: Settings
    running: Running
    advance: Callable[[str], None]
    made: Mapping[str, str] = field(default_factory=dict)

    def prove(self) -> None:
        """Make all passes; what stops one of them is a problem of the proof, and the others are made all the same."""
        own = " ".join(self.settings.ddl.command)
        with self._gathering(), self._database() as place:
            self._from_empty(place)
            if not own:
                self._apply_again(place)
        if not self.made:
            return
        if own:
            with self._gathering(f"By {own}"), self._database() as place:
                self.proof.seconds[own] = self._as_in_production(place)
                self._compare(place, f"By {own}")
                self._apply_again(place)
        if self.last:
            with self._gathering("Over the last release"), self._database() as place:
                self._over_the_last_release(place)
            with self._gathering("Over the last release"), self._database() as place:
                self._watch_locks(place)

    @contextmanager
    def _gathering(self, how: str = "") -> Iterator[None]:
        try:
            yield
        except Refused as no:
            for problem in no.problems:
                what = f"{how}: {problem.what}" if how else problem.what
                self._add(Problem(what, problem.mend))

    def _add(self, problem: Problem, blocks: bool = True) -> None:
        self.proof.add(problem, self.settings.ddl.exceptions, blocks)

    @contextmanager
    def _database(self) -> Iterator[Place]:
        """Yield a new empty database, and a connection to it."""
        with scratch.database(self.running, self.settings.app) as dsn:
            environment = Environment("scratch", self.settings, self.root, dsn, "", self.root, self.running.log)
            with environment.connect() as connection:
                yield Place(environment, connection)

    def _from_empty(self, place: Place) -> None:
        """Apply the pack by psycopg, which knows each file's time and notices, and the statement that fails."""
        if self.settings.ddl.command:
            place.environment.install(self.root)
        self.proof.server = place.connection.info.server_version // 10000
        refuse(runner.server_problems(place.connection, "the scratch server", self.settings.ddl))
        began, done = time.monotonic(), list[Applied]()

        def keep(applied: Applied) -> None:
            seen = self.proof.files[len(done)]
            seen.seconds, seen.warnings = applied.seconds, len(applied.warnings)
            seen.notices = len(applied.notices) - seen.warnings
            self.advance(applied.file.name)
            done.append(applied)

        with self._explaining(place, self.pack, done):
            made = scratch.make(place.connection, self.pack, self.settings, keep)
        self.proof.seconds["from empty"] = time.monotonic() - began
        self.made = made.objects
        scratch.remember(made, self.pack, self.root, self.settings, self.proof.server)

    def _apply_again(self, place: Place) -> None:
        """Apply the pack again until it changes nothing, then once more over made-up rows."""
        with self._gathering("Applied again"):
            counted = contents.rows(place.connection)
            self._settle(place)
            for table, count in contents.rows(place.connection).items():
                if count > counted.get(table, count):
                    self._add(Problem(f"Applied again, the pack adds rows to {table}."), blocks=False)
            self._over_rows(place, "applied again")

    def _settle(self, place: Place) -> None:
        before, changes, settles = self.made, list[catalog.Difference](), f"it does not settle in {MOST_RUNS} runs"
        for runs in range(1, MOST_RUNS + 1):
            self.proof.seconds.setdefault("again", self._as_in_production(place))
            now = catalog.read(place.connection)
            if now == before:
                self.proof.runs, settles = runs, f"it settles after {runs} runs"
                break
            changes, before = changes or catalog.differences(before, now), now
        for each in changes:
            what = f"Applied again, the pack {DID[each.how]} {each.name}; {settles}."
            self._add(Problem(what, f"Make it idempotent (if not exists, or replace), {EXCEPT}"))

    def _over_rows(self, place: Place, how: str) -> None:
        """Fill the tables with a few rows, apply the pack, and see that none of them is gone."""
        filled = rows.fill(place.connection)
        self.proof.rows = {table: count for table, count in filled.items() if count}
        if empty := sorted(set(filled) - set(self.proof.rows)):
            what = f"No row could be made up for {', '.join(empty)}: that the pack keeps what is there is not proved."
            self._add(Problem(what), blocks=False)
        before = rows.keys(place.connection, list(self.proof.rows))
        self.proof.seconds[f"{how} over rows"] = self._as_in_production(place)
        for gone in rows.lost(before, rows.keys(place.connection, list(self.proof.rows))):
            what = f"The pack, {how}, destroys rows: {gone}."
            self._add(Problem(what, f"Take the statement out, {EXCEPT}"))

    def _over_the_last_release(self, place: Place) -> None:
        """Apply the pack over the last release's: what it makes from empty has to come about here too."""
        self._by_psycopg(place, self.last)
        self._over_rows(place, "applied over the last release")
        self._compare(place, "Over the last release")

    def _compare(self, place: Place, how: str) -> None:
        for each in catalog.differences(self.made, catalog.read(place.connection)):
            mend = f"Add what brings an existing database there (alter table …), {EXCEPT}"
            what = f"{how} the pack does not make what it makes from empty: {each}."
            self._add(Problem(what, mend), blocks=each.how != catalog.EXTRA)

    def _watch_locks(self, place: Place) -> None:
        """See which file takes ACCESS EXCLUSIVE on tables that were there before (PostgreSQL, "Explicit Locking")."""
        self._by_psycopg(place, self.last)
        tables: dict[int, str] = dict(place.connection.execute(TABLES).fetchall())
        seen = {file.path: file for file in self.proof.files}

        def look(file: DdlFile, _: float) -> None:
            locked = [tables[oid] for (oid,) in place.connection.execute(LOCKED) if oid in tables]
            seen[file.path].locks = sorted(locked)

        self._by_psycopg(place, self.pack, look)

    def _as_in_production(self, place: Place) -> float:
        """Apply the pack by the runner of the settings; return the seconds."""
        began = time.monotonic()
        if not self.settings.ddl.command:
            self._by_psycopg(place, self.pack)
        else:
            runner.run_command(place.environment, self.pack, self.root, "")
            for file in self.pack:
                self.advance(file.name)
        return time.monotonic() - began

    def _by_psycopg(self, place: Place, pack: list[DdlFile], before_commit: Hook = lambda *_: None) -> None:
        done = list[Applied]()
        with self._explaining(place, pack, done):
            for applied in runner.run(place.connection, pack, self.settings.ddl, before_commit):
                self.advance(applied.file.name)
                done.append(applied)

    @contextmanager
    def _explaining(self, place: Place, pack: list[DdlFile], done: list[Applied]) -> Iterator[None]:
        """Let a failure after the files `done` also name the later file that makes what is missing."""
        try:
            yield
        except Refused as no:
            more = explanation(place.connection, pack, len(done)) if len(done) < len(pack) else ""
            refuse(Problem(problem.what + more, problem.mend) for problem in no.problems)


@dataclass(frozen=True)
class Place:
    """An empty scratch database: as an environment for the application's runner, and a connection to it."""

    environment: Environment
    connection: Connection


def explanation(connection: Connection, pack: list[DdlFile], failed: int) -> str:
    """Return which later file makes what file number `failed` misses: the one after which another thing happens.

    What stands before the statement that fails is kept, for the later files may need it.
    """
    if connection.closed:
        return ""
    failures = ((statement, _failure(connection, statement)) for statement in pack[failed].statements)
    statement, first = next(((each, failure) for each, failure in failures if failure), (None, ""))
    if statement is None or not first.startswith(ABSENT):
        return ""
    for later in pack[failed + 1 :]:
        for each in later.statements:
            _failure(connection, each)
        if _failure(connection, statement) != first:
            return f". What is missing is made by {later.path}, which comes later."
    return ". No later file makes what is missing."


def _failure(connection: Connection, statement: sql.Statement) -> str:
    """Run `statement` by itself; return SQLSTATE and message where it fails, else ""."""
    from psycopg import Error

    try:
        connection.execute(statement.source.encode())
    except Error as error:
        return f"{error.sqlstate} {error.diag.message_primary}"
    finally:
        if connection.info.transaction_status.name == "INERROR":
            connection.execute("rollback")
    return ""
