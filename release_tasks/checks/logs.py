"""Logs since the deployment began: files go on from where they stood, also when they were renamed meanwhile."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from release_tasks.checks import CheckFailed, Inconclusive
from release_tasks.checks.target import Target
from release_tasks.masks import mask
from release_tasks.processes.shell import plain, wait_until

SQL_TROUBLE = r"\b(WARNING|ERROR|FATAL|PANIC): |\bSQL (warn|error)|\bPostgresError\b"
OURS = "a release checks this log"
ARRIVES = 5.0  # seconds until a line that was logged can be read
CLOCK = 2.0  # seconds that the times of files may be off
TAIL = 256  # bytes before a position, by which it is known again
# An embedded server stops with each command of ours, and says so to whom is still connected.
OWN_END = r"FATAL:  (terminating connection due to administrator command|the database system is (shutting|starting))"


def positions(patterns: Iterable[str], root: Path) -> dict[str, Any]:
    """Return, as JSON can hold it, where each file that matches `patterns` (globs, from `root`) stands now."""
    files = {str(path): _position(path) for pattern in patterns for path in _matching(pattern, root)}
    return {"at": time.time(), "files": files}


class Log:
    """What was logged since the deployment; where nothing was deployed, as on dev, since this was made."""

    def __init__(self, target: Target, record: Callable[[str, object], None]) -> None:
        self.target, self.record = target, record
        self.began = dict(target.log_positions)

    def has_no_trouble(
        self, file: str = "", pattern: str = SQL_TROUBLE, exceptions: Mapping[str, str] | None = None, silent: str = ""
    ) -> None:
        """Raise `CheckFailed` with the lines that match `pattern`, of PostgreSQL's server log or of `file`, a glob.

        `exceptions` are patterns of lines that may be, each with its reason; `silent` is why it is right that nobody
        writes to this log.
        """
        known, excepted = dict(exceptions or {}), Counter[str]()
        if self.target.is_embedded:
            known[OWN_END] = "the embedded server stopped with an earlier command"
        lines, trouble = self.lines(file), []
        for line in lines:
            if re.search(pattern, line):
                reason = next((why for each, why in known.items() if re.search(each, line)), "")
                excepted.update([reason] if reason else [])
                trouble += [] if reason else [mask(line[:300])]
        name = f"The log {file}" if file else f"The server log of {self.target.name}"
        since = f" since {self.target.deployed_at}" if self.target.deployed_at else ""
        if trouble:
            more = f" (and {len(trouble) - 3} more)" if len(trouble) > 3 else ""
            hint = "A fix is a new version. If it is none of ours: has_no_trouble(exceptions={pattern: reason})"
            raise CheckFailed(f"{name} says{since}: {'; '.join(trouble[:3])}{more}", hint, final=True)
        if not (lines or silent or not file):  # of the server's own log our mark has arrived
            raise Inconclusive(f"{name} has no line{since}: that proves nothing.", "has_no_trouble(silent=reason)")
        self.record("log", "; ".join([f"{len(lines)} lines", *(f"{n} excepted: {why}" for why, n in excepted.items())]))

    def lines(self, file: str = "") -> list[str]:
        """Return the lines since the deployment began. Raises `Inconclusive` where some cannot be read any more."""
        pattern, root = file or self.target.log, Path(self.target.root)
        if not pattern or not (_matching(pattern, root) or self._known(pattern)):
            hint = "" if file else f"release.environments.{self.target.name}.log in invoke.yaml names the server's log."
            raise Inconclusive(f"There is no log {pattern or 'of the server'}.", hint)
        if not self._known(pattern):
            if self.target.log_positions:
                hint = f"release.acceptance.logs: [{pattern}]   # in invoke.yaml; from the next deployment on"
                raise Inconclusive(f"Nobody noted where {pattern} stood when the deployment began.", hint, final=True)
            new = positions([pattern], root)
            self.began = {"at": new["at"], "files": {**self.began.get("files", {}), **new["files"]}}
        if file:
            return list(self._written(pattern))
        self._prove_it_is_this_server_s()
        lines = (line for line in self._written(pattern) if f"LOG:  {OURS}" not in line)
        return list(_of_database(lines, *self._database()))

    def _known(self, pattern: str) -> list[str]:
        root = Path(self.target.root)
        return [name for name in self.began.get("files", {}) if Path(name).match(str(root / pattern))]

    def _written(self, pattern: str) -> Iterator[str]:
        """Yield what was written to the files since they were noted, and to those that came since."""
        now = _matching(f"{pattern}*", Path(self.target.root))
        for name in self._known(pattern):
            noted = self.began["files"][name]
            same = next((path for path in now if _is_same(path, noted)), None)
            if same is None:
                since = self.target.deployed_at or "the check began"
                said = f"{name} was emptied or removed since {since}: what it said cannot be read any more."
                raise Inconclusive(said, final=True)
            now.remove(same)
            yield from _entries(same, noted["size"])
        for path in now:
            known = any(_is_same(path, noted) for noted in self.began["files"].values())
            if not known and path.stat().st_mtime >= self.began["at"] - CLOCK:
                yield from _entries(path, 0)

    def _prove_it_is_this_server_s(self) -> None:
        """Have PostgreSQL log a mark that must arrive: another server's log proves nothing."""
        query = "select reset_val, current_setting('lc_messages') from pg_settings where name = 'log_min_messages'"
        mark, before = f"{OURS}: {secrets.token_hex(8)}", positions([self.target.log], Path(self.target.root))["files"]
        with self.target.connect() as connection:
            level, language = connection.execute(query).fetchone() or ("", "")
            connection.execute(f"do $$ begin raise log '{mark}'; end $$".encode())
        if level in ("error", "log", "fatal", "panic") or not re.match(r"en|C\b|POSIX|$", language):
            said = f"{self.target.name} logs from {level} on, in {language or 'C'}; expected warning, in English."
            raise Inconclusive(said, "alter system set log_min_messages = warning, lc_messages = 'C'", final=True)

        def arrived() -> bool:
            files = _matching(f"{self.target.log}*", Path(self.target.root))
            return any(
                mark in line for path in files for line in _entries(path, before.get(str(path), {}).get("size", 0))
            )

        if not wait_until(arrived, time.monotonic() + ARRIVES, every=0.1):
            said = f"What {self.target.name} logs does not arrive in {self.target.log} within {ARRIVES:g} s"
            raise Inconclusive(f"{said}: it is another server's log, or no text.", final=True)

    def _database(self) -> tuple[str, str]:
        with self.target.connect() as connection:
            return connection.execute("select current_setting('log_line_prefix'), current_database()").fetchone() or (
                "",
                "",
            )


def _of_database(entries: Iterable[str], prefix: str, database: str) -> Iterator[str]:
    """Yield the entries of `database` and of none, where the log says which: in JSON, or by %d in log_line_prefix."""
    ends = prefix.partition("%d")[2][:1]  # what stands behind the database's name
    shape = re.sub(r"%-?\d*[a-zA-Z]", ".*?", re.sub(r"([^\w%-])", r"\\\1", prefix.partition("%d")[0]))
    named = re.compile(rf"{shape}(?P<name>[^{re.escape(ends or ' ')}]*)") if "%d" in prefix else None
    for entry in entries:
        if entry.startswith("{"):
            row = json.loads(entry)
            name, entry = row.get("dbname", ""), f"{row.get('error_severity')}:  {row.get('message')}"
        else:
            name = match["name"] if named and (match := named.match(entry)) else ""
        if name in ("", "[unknown]", database):
            yield entry


def _matching(pattern: str, root: Path) -> list[Path]:
    whole, anchor = root / pattern, Path(pattern).anchor
    paths = [whole] if whole.is_file() else Path(anchor or root).glob(pattern.removeprefix(anchor))
    return sorted(path for path in paths if path.is_file())


def _position(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"inode": stat.st_ino, "size": stat.st_size, "tail": _tail(path, stat.st_size)}


def _is_same(path: Path, noted: Mapping[str, Any]) -> bool:
    """Tell whether this is the very file, whatever it is called by now, with what it held before."""
    stat = path.stat()
    return bool(
        stat.st_ino == noted["inode"] and stat.st_size >= noted["size"] and _tail(path, noted["size"]) == noted["tail"]
    )


def _tail(path: Path, size: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        return hashlib.sha256(file.read(min(size, TAIL))).hexdigest()


def _entries(path: Path, offset: int) -> Iterator[str]:
    """Yield the entries of a file from `offset` on: a line, and those after it that begin with a tab."""
    entry = ""
    with path.open("rb") as file:
        file.seek(offset)
        for raw in file:
            line = plain(raw.decode("utf-8", errors="replace")).rstrip()
            if line.startswith("\t"):
                entry += f"\n{line}"
            else:
                if entry:
                    yield entry
                entry = line
    if entry:
        yield entry
