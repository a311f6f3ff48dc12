"""The proof of a DDL pack on a scratch server: from empty, again, over the last release, over a copy of real rows.

Each pass is a pack applied under watch (watch.py), and what is there then, compared with what has to be.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from release_tasks.database import apply, programs, scratch, structure
from release_tasks.database.pack import DdlFile
from release_tasks.database.server import Running
from release_tasks.database.structure import Structure
from release_tasks.database.watch import Watched, watched
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.settings import Ddl

if TYPE_CHECKING:
    pass

ABSENT = ("42P01", "42883", "42704", "42703", "3F000")  # undefined table, function, object, column, schema


@dataclass
class FileProof:
    """One file: seconds from empty (None: not reached), messages, and what it does to tables of the last release."""

    path: str
    seconds: float | None = None
    notices: int = 0
    warnings: int = 0
    does: list[str] = field(default_factory=list)


@dataclass
class Proof:
    """The outcome: `problems` block, `told` does not, `excepted` would but for a reason in the settings."""

    files: list[FileProof] = field(default_factory=list)
    server: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    excepted: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        took = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())
        return f"{len(self.files)} files on PostgreSQL {self.server}: {took or 'not even once from empty'}"

    def add(self, problem: Problem, ddl: Ddl) -> None:
        """Add `problem`, unless the settings give a reason why it may be."""
        if reason := ddl.excepts(problem.what):
            self.excepted[problem.what] = reason
        elif problem not in self.problems:
            self.problems.append(problem)


EXCEPT = "or give a reason in release.ddl.exceptions."


@dataclass
class Proving:
    """The passes of a proof of `pack` over `last` (empty: there is none) on the scratch server `running`.

    `runner` applies the pack as the application does, given the DSN and log of a database; `real` is the DSN of
    another one that has real rows, "" where there is none.
    """

    pack: Sequence[DdlFile]
    last: Sequence[DdlFile]
    ddl: Ddl
    app: str
    running: Running
    runner: Callable[[str, Path], object] | None = None
    real: str = ""
    proof: Proof = field(default_factory=Proof)
    made: Structure | None = None
    files: dict[str, str] = field(default_factory=dict)

    def prove(self) -> Proof:
        """Make all passes; what stops one is a problem of the proof, and the others are made all the same."""
        self.proof.files = [FileProof(file.path) for file in self.pack]
        self.proof.told += [f"{file.path} is empty." for file in self.pack if not file.content.strip()]
        with self._pass("from empty", "") as dsn:
            self._from_empty(dsn)
        if self.made is None:
            return self.proof
        if self.runner:
            with self._pass("by the application's runner", "By the application's runner") as dsn:
                self.runner(dsn, self.running.log)
                self._compare(dsn, "By the application's runner")
                self.runner(dsn, self.running.log)
                self._compare(dsn, "By the application's runner, applied again,")
        if self.last:
            with self._pass("over the last release", "Over the last release") as dsn:
                self._over_the_last_release(dsn)
            if self.runner:
                with self._pass("by its runner", "Over the last release, by the application's runner") as dsn:
                    watched(dsn, self.last, self.ddl)
                    self.runner(dsn, self.running.log)
                    self._compare(dsn, "Over the last release, by the application's runner,")
        if self.real:
            with self._pass("over real rows", "Over real rows") as dsn:
                self._over_real_rows(dsn)
        return self.proof

    @contextmanager
    def _pass(self, name: str, how: str) -> Iterator[str]:
        """Yield an empty database; note the seconds, and what is refused meanwhile."""
        began = time.monotonic()
        try:
            with scratch.database(self.running, self.app) as dsn:
                yield dsn
            self.proof.seconds[name] = time.monotonic() - began
        except Refused as no:
            for problem in no.problems:
                self._add(f"{how}: {problem.what}" if how else problem.what, problem.mend)

    def _add(self, what: str, hint: str) -> None:
        self.proof.add(Problem(what, hint), self.ddl)

    def _from_empty(self, dsn: str) -> None:
        with programs.connect(dsn) as connection:
            self.proof.server = connection.info.server_version // 10000
            refuse(apply.server_problems(connection, "the scratch server", self.ddl))
        found = watched(dsn, self.pack, self.ddl)
        for each, file in zip(self.proof.files, self.pack, strict=True):
            for applied in found.applied:
                if applied.file == file:
                    each.seconds, each.warnings = applied.seconds, len(applied.warnings)
                    each.notices = len(applied.messages) - each.warnings
        if found.failed:
            first, problem = next(iter(found.failed.items()))
            refuse([Problem(problem.what + self._made_later(dsn, first, found), problem.mend)])
        self.made = structure.read(dsn)
        self.files = found.makers(self.made.objects)
        self._again(dsn, self.made)

    def _made_later(self, dsn: str, path: str, found: Watched) -> str:
        """Return that a later file makes what `path` misses, where it can be applied now that all the others were."""
        file = next(each for each in self.pack if each.path == path)
        if found.states[path] not in ABSENT or watched(dsn, [file], self.ddl).failed:
            return ""
        named = re.findall(r'"(?:[^".]*\.)*([^".]+)"|function (?:\w+\.)*(\w+)\(', found.failed[path].what)
        missing = {name for names in named for name in names if name}
        makers = (by for by, what, made in found.seen if what == "makes" and missing & set(re.split(r"[.(]", made)))
        return f" What is missing is made by {next(makers, 'a file')}, which comes later."

    def _again(self, dsn: str, before: Structure) -> None:
        """Apply the pack again: each file that fails, and each that changes something, is named."""
        began, found = time.monotonic(), watched(dsn, self.pack, self.ddl)
        self.proof.seconds["again"] = time.monotonic() - began
        hint = f"Make it idempotent (if not exists, or replace), {EXCEPT}"
        for problem in found.failed.values():
            self._add(f"Applied again: {problem.what}", hint)
        for file, what, name in found.did("drops", "empties"):
            self._add(f"Applied again, {file} {what} {name}: what it holds is lost.", hint)
        for loss in found.losses():
            self._add(f"Applied again, the pack changes rows: {loss}.", f"Take the statement out, {EXCEPT}")
        now = structure.read(dsn)
        files = self.files | found.makers(now.objects)
        for each in structure.differences(before, now):
            did = {structure.MISSING: "drops", structure.EXTRA: "makes"}.get(each.how, "changes")
            by = f" ({files[each.name]})" if each.name in files else ""
            detail = f": {each.detail}" if did == "changes" else ""
            self._add(f"Applied again, the pack {did} {each.name}{detail}{by}.", hint)
        for table, (count, _) in found.after.items():
            if count > found.before.get(table, (count, {}))[0]:
                self.proof.told.append(f"Applied again, the pack adds rows to {table}.")

    def _over_the_last_release(self, dsn: str) -> None:
        """Apply the pack over the last release's: what it makes from empty has to come about here too."""
        before = watched(dsn, self.last, self.ddl)
        released = "A released pack cannot change; a reason in release.ddl.exceptions lets the upgrade go unproved."
        refuse(Problem(f"the last release's {problem.what}", released) for problem in before.failed.values())
        found = watched(dsn, self.pack, self.ddl)
        refuse(found.failed.values())
        self._note(found)
        self._compare(dsn, "Over the last release")

    def _over_real_rows(self, dsn: str) -> None:
        try:
            scratch.copy(self.real, dsn)
        except Refused as no:
            self.proof.told.append(f"Not proved over real rows, for they could not be copied: {no}")
            return
        found = over_rows(dsn, self.pack, self.ddl)
        self.proof.rows, self.proof.told = found.rows, [*self.proof.told, *found.told]
        for problem in found.problems:
            self._add(f"Over real rows: {problem.what}", problem.mend)

    def _note(self, found: Watched) -> None:
        """Note what each file does to tables that were there before."""
        files = {each.path: each for each in self.proof.files}
        for path, what, name in found.did("locks", "rewrites", "drops", "empties", "changes rows of"):
            if path in files:
                files[path].does.append(f"{what} {name}")

    def _compare(self, dsn: str, how: str) -> None:
        assert self.made is not None
        for each in structure.differences(self.made, structure.read(dsn)):
            if each.how == structure.EXTRA:
                self.proof.told.append(f"{how} the pack leaves what it does not make from empty: {each.name}.")
                continue
            hint = f"Add what brings an existing database there (alter table …), {EXCEPT}"
            self._add(f"{how} the pack does not make what it makes from empty: {each}.", hint)


@dataclass
class OverRows:
    """What a pack does to a copy of real rows: `problems` block, unless the settings except them."""

    rows: int = 0
    tables: int = 0
    problems: list[Problem] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    excepted: dict[str, str] = field(default_factory=dict)


def over_rows(dsn: str, pack: Sequence[DdlFile], ddl: Ddl) -> OverRows:
    """Apply `pack` to the copy `dsn` of a real database, on a scratch server, and see what becomes of its rows."""
    found = watched(dsn, pack, ddl)
    result = OverRows(sum(count for count, _ in found.before.values()), len(found.before))
    hint = f"Take the statement out, {EXCEPT}"
    lost = [Problem(f"{loss}.", hint) for loss in found.losses()]
    for problem in [*found.failed.values(), *lost]:
        if reason := ddl.excepts(problem.what):
            result.excepted[problem.what] = reason
        else:
            result.problems.append(problem)
    result.told = [f"{file} {what} {name}" for file, what, name in found.did("locks", "rewrites", "drops", "empties")]
    return result
