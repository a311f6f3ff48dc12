"""What a DDL pack makes on a scratch server, and its proof: from empty, again, over the last release, over real rows.

PostgreSQL itself says what each file drops, rewrites, empties and locks (PostgreSQL, "Event Triggers"); rows are
counted and hashed before and after.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from release_tasks.database import programs, psql, structure
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import Running, scratch, scratch_database
from release_tasks.database.structure import MISSING, NEW, Difference, Structure
from release_tasks.errors import Problem, Refused, counted, listed, refuse
from release_tasks.files import atomic_write, file_sha256, records_folder, sha256
from release_tasks.settings import Ddl, Settings

WATCH, NOTE_FILE = Path(__file__).with_name("watch.sql"), "call release_proof.note_file();\n"
DONE = "select coalesce(nullif(file, ''), 'a file'), what, object from release_proof.done order by id"
ROWS = """select name, was.count, coalesce(now.count, 0), now.columns @> was.columns, was.hash is distinct from now.hash
  from release_proof.before was left join release_proof.rows() now using (name) order by name"""
Copy = Callable[[str], None]  # fills a database, given by its DSN, with real rows
LOSES = ("changes rows of", "empties", "drops", "rewrites")  # of what a file does: what may take rows or values
FIX = "Fix the pack, or give a reason in release.ddl.exceptions."
RELEASED = "A released pack cannot change; a reason in release.ddl.exceptions lets the upgrade go unproved."


def made_by(pack: Sequence[DdlFile], root: Path, settings: Settings, major: int | None = None) -> Structure:
    """Return what `pack` makes, by psql, remembered for exactly these files. Raises `Refused` where one fails."""
    remembered = cache("made", pack, root, settings, programs.major_of(programs.find_bin(major)))
    if remembered.exists():
        return dict(json.loads(remembered.read_text(encoding="utf-8")))
    with scratch(root, major) as running, scratch_database(running, settings.app) as dsn:
        refuse(psql.run_each(dsn, pack, settings.ddl)[1][:1])
        made = structure.read(dsn)
        made.pop(f"role {programs.variables(dsn)['PGUSER']}")  # the scratch server's own
    atomic_write(remembered, json.dumps(made).encode())
    return made


def cache(kind: str, pack: Sequence[DdlFile], root: Path, settings: Settings, *more: object) -> Path:
    """Return the file in which what is known of `pack` is kept; another one for any other file, server or layer."""
    layer = [file_sha256(path) for path in sorted(Path(__file__).parent.glob("*.*"))]
    key = [settings.app, *map(str, more), *layer, *(f"{file.sha256} {file.path}" for file in pack)]
    return records_folder(root) / "cache" / f"{kind}-{sha256(chr(10).join(key).encode())[:16]}.json"


def shifts(old: Sequence[DdlFile], new: Sequence[DdlFile], root: Path, settings: Settings) -> list[Difference]:
    """Return what is new, changed or dropped in what the pack `new` makes. Raises `Refused` as `made_by` does."""
    found = structure.differences(*(made_by(pack, root, settings) for pack in (old, new)))
    return [replace(each, how="dropped") if each.how == MISSING else each for each in found]


def objects_changed(before: Sequence[DdlFile], now: Sequence[DdlFile], root: Path, settings: Settings) -> list[str]:
    """Return which objects the pack `now` makes differently than `before`; one line where they cannot be compared."""
    try:
        return [str(shift) for shift in shifts(before, now, root, settings)]
    except Refused as no:
        return [f"the objects of the two packs cannot be compared: {no}"]


class Proof(BaseModel):
    """The outcome: `problems` block, `notes` do not, `excepted` would but for a reason in the settings.

    `files` is path → what the file does to tables of the last release, as "locks public.t"; `rows` are real ones.
    """

    files: dict[str, list[str]] = {}
    server: int = 0
    passes: list[str] = []
    rows: int = 0
    problems: list[Problem] = []
    notes: list[str] = []
    excepted: dict[str, str] = {}

    def __str__(self) -> str:
        passes = ", ".join(self.passes).lower() or "not proved"
        return f"{counted(len(self.files), 'file')} on PostgreSQL {self.server}: {passes}"

    @property
    def exceptions(self) -> str:
        """The exceptions with their reasons, as the end of a sentence; "" for nothing."""
        return "".join(f"; excepted: {what} ({reason})" for what, reason in self.excepted.items())

    @contextmanager
    def one_pass(self, name: str, ddl: Ddl) -> Iterator[None]:
        """Note that the pass `name` was made, or each problem of it for which the settings give no reason."""
        try:
            yield
            self.passes.append(name)
        except Refused as no:
            for each in no.problems:
                problem = Problem(f"{name}: {each.what}", each.hint or FIX)
                if reason := ddl.excepts(problem.what) or ddl.excepts(each.what):  # a pattern may begin with ^
                    self.excepted[problem.what] = reason
                else:
                    self.problems.append(problem)


def prove(
    pack: Sequence[DdlFile], last: Sequence[DdlFile], settings: Settings, running: Running, copy: Copy | None = None
) -> Proof:
    """Return the proof of `pack` over `last` (empty: there is none) on the scratch server `running`."""
    ddl, app, proof, made = settings.ddl, settings.app, Proof(files={file.path: [] for file in pack}), Structure()
    proof.notes += [f"{file.path} is empty." for file in pack if not file.content.strip()]
    with scratch_database(running, app) as dsn:
        with proof.one_pass("From empty", ddl):
            proof.server = programs.server_major(dsn)
            found = watched(dsn, pack, ddl)
            proof.notes += found.warnings
            refuse(found.failed[:1])  # others may follow from it
            made = structure.read(dsn)
        if not made:
            return proof
        with proof.one_pass("Applied again", ddl):
            found = watched(dsn, pack, ddl)
            refuse([*found.problems(), *_unsettled(found, made, structure.read(dsn))])
    if last:
        with scratch_database(running, app) as dsn, proof.one_pass("Over the last release", ddl):
            failed = watched(dsn, last, ddl).failed
            refuse(Problem(f"the last release's {problem.what}", RELEASED) for problem in failed)
            found = watched(dsn, pack, ddl)
            refuse(found.failed)
            for file, what, name in found.done:
                if what != "alters" and file in proof.files:
                    proof.files[file].append(f"{what} {name}")
            differing = structure.differences(made, structure.read(dsn))
            more = [each.name for each in differing if each.how == NEW]
            proof.notes += [f"Exists after the upgrade, but not in a fresh database: {name}." for name in more]
            refuse(Problem(f"differs from a fresh database: {each}.") for each in differing if each.how != NEW)
    if copy:
        with scratch_database(running, app) as dsn, proof.one_pass("Over real rows", ddl):
            copy(dsn)
            found = watched(dsn, pack, ddl)
            proof.rows = sum(had for _, had, *_ in found.rows)
            refuse(found.problems())
    return proof


def _unsettled(found: "Watched", made: Structure, now: Structure) -> Iterator[Problem]:
    """Yield what a pack that was applied before drops, empties or changes: made anew, a column is empty."""
    losses = found.losses()
    for file, what, name in found.done:
        if what in ("drops", "empties") and name.removeprefix("table ") not in losses:
            yield Problem(f"{file} {what} {name}: what it holds is lost.")
    for each in structure.differences(made, now):
        yield Problem(f"{each} ({found.files_on(each.name.partition(' ')[2])}).")


@dataclass(frozen=True)
class Watched:
    """A pack applied under watch: warnings, what failed, (file, does, what), and the tables that were there."""

    warnings: list[str]
    failed: list[Problem]
    done: list[tuple[str, str, str]]
    rows: list[tuple[str, int, int, bool, bool]]  # table, rows before, now, has all its columns, hash differs

    def problems(self) -> list[Problem]:
        """Return which files failed, and which rows, values and columns that were there before are gone or others."""
        return [*self.failed, *(Problem(f"{loss}.") for loss in self.losses().values())]

    def files_on(self, name: str, does: Collection[str] = ()) -> str:
        """Return the files that did anything to the object `name`, or one of what `does` has."""
        done = [(file, what) for file, what, it in self.done if it in (name, f"table {name}")]
        return listed(sorted({file for file, what in done if not does or what in does})) or "the pack"

    def losses(self) -> dict[str, str]:
        """Return table or column → what became of its rows, or values."""
        found = dict[str, str]()
        for table, had, now, has_all_columns, hash_differs in self.rows:
            files = self.files_on(table, LOSES)
            if now < had:
                found[table] = f"table {table} had {counted(had, 'row')} and has {now} now ({files})"
            elif 0 < had == now and (hash_differs if has_all_columns else files != "the pack"):
                who = files if files != "the pack" else self.files_on(table)  # without a rewrite
                found[table] = f"values in table {table} change ({who})"
            for file, what, name in self.done:
                if had and what == "drops" and name.startswith(f"table column {table}."):
                    column = name.removeprefix("table ")
                    found[column] = f"{column} is dropped, with the values of {counted(had, 'row')} ({file})"
        return found


def watched(dsn: str, pack: Sequence[DdlFile], ddl: Ddl) -> Watched:
    """Apply `pack` by psql to a database of a scratch server, and watch what becomes of it; no trace is left there."""
    with programs.connect(dsn, timeout=0) as connection:
        connection.execute(WATCH.read_bytes())
        try:
            warnings, failed = psql.run_each(dsn, pack, ddl, NOTE_FILE)
            return Watched(warnings, failed, *(connection.execute(query).fetchall() for query in (DONE, ROWS)))
        finally:
            connection.execute("drop schema release_proof cascade")
