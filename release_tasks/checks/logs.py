"""Logs since the deployment began: files go on from where they stood, also when they were renamed meanwhile."""

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from release_tasks.checks import CheckFailed, Inconclusive, Record, Target
from release_tasks.database import programs
from release_tasks.errors import counted
from release_tasks.files import sha256
from release_tasks.machine import wait_until
from release_tasks.masks import short
from release_tasks.process import plain

SQL_TROUBLE = r"\b(WARNING|ERROR|FATAL|PANIC): |\bSQL (warn|error)|\bPostgresError\b"
# Of an application's log also what other loggers write: Python's, in JSON, as pino, in logfmt.
OTHERS = r"^(\S+ ){0,3}\W?(ERROR|FATAL|CRITICAL)\b|^error: |Traceback \(most recent call last\)"
LEVEL = r'"(level|severity)":\s*("(error|fatal|critical)"|[56]0\s*[,}])|\b(level|severity)=(error|fatal|critical)\b'
TROUBLE = re.compile("|".join([SQL_TROUBLE, OTHERS, LEVEL]))
MARK = "a release checks this log"
ARRIVES = 5.0  # seconds until a line that was logged can be read
CODE = r"(\w{5}: )?"  # SQLSTATE, where a server logs it
# A server that is stopped and started again says so to whom is connected: that is no doing of the application.
STOPPED = rf"FATAL:  {CODE}(terminating connection due to administrator|the database system is (shut|start|not))"


def positions(patterns: Iterable[str], root: Path) -> dict[str, Any]:
    """Return, as JSON can hold it, where each file that each of `patterns` (globs, from `root`) finds stands now."""
    found = {pattern: matching(pattern, root) for pattern in patterns if pattern}
    logs = {each: {str(path): position(path, path.stat().st_size) for path in paths} for each, paths in found.items()}
    return {"at": time.time(), "logs": logs}


def matching(pattern: str, root: Path) -> list[Path]:
    path = root / pattern
    base = root if path.is_relative_to(root) else Path(path.anchor)  # whose own name is no pattern
    return sorted(each for each in base.glob(str(path.relative_to(base))) if each.is_file())


def position(path: Path, size: int) -> dict[str, Any]:
    """Return by what a file that had `size` bytes is known again, whatever it is called by then."""
    with path.open("rb") as file:
        file.seek(max(0, size - 256))
        return {"inode": path.stat().st_ino, "size": size, "before": sha256(file.read(min(size, 256)))}


class Log:
    """Lines logged since the deployment; where nothing was deployed, as on dev, since they were first read."""

    def __init__(self, target: Target, record: Record) -> None:
        self.target, self.record, self.root = target, record, Path(target.root)
        self.began = dict(target.log_positions) or {"at": time.time(), "logs": {}}

    def has_no_trouble(self, file: str = "", exceptions: Mapping[str, str] | None = None) -> None:
        """Raise `CheckFailed` with trouble in the server log, or in `file`, a glob; `exceptions`: pattern → why."""
        lines, known = self.lines(file), [*(exceptions or {}), STOPPED]
        found = [line for line in lines if re.search(TROUBLE if file else SQL_TROUBLE, line)]
        trouble = [short(line) for line in found if not any(re.search(each, line) for each in known)]
        name, since = file or f"The server of {self.target.name}", self.target.deployed_at or "the check began"
        if trouble:
            said = f"{name} logs {counted(len(trouble), 'line')} of trouble since {since}: {'; '.join(trouble[:3])}"
            raise CheckFailed(f"{said} (if it is none of ours: exceptions={{pattern: reason}})", final=True)
        if file and not lines:
            raise Inconclusive(f"{name} has no line since {since}: that proves nothing.")
        self.record("log", f"{counted(len(lines), 'line')}, {len(found)} excepted")

    def lines(self, file: str = "") -> list[str]:
        """Return the entries since the deployment began. Raises `Inconclusive` where some cannot be read any more."""
        name, pattern = self.target.name, file or self.target.log
        if not self.target.log_positions:
            self.began["logs"] = positions([pattern], self.root)["logs"] | self.began["logs"]
        noted = self.began.get("logs", {}).get(pattern)  # an older layer noted something else
        if noted is None:
            key = f"acceptance.logs: [{file}]" if file else f"environments.{name}.log"
            hint = f"release.{key}   # in invoke.yaml; from the next deployment on"
            raise Inconclusive(f"Where the log {pattern} stood at the deployment was not noted.", hint, final=True)
        if file:
            return self._read(pattern, noted)
        # A warning of our own has to arrive: else the log is another server's, has no warnings, or is no plain text.
        mark = f"{MARK}: {secrets.token_hex(8)}"
        with programs.connect(self.target.dsn, name) as connection:
            about = "select current_setting('log_line_prefix'), current_database()"
            prefix, database = connection.execute(about).fetchall()[0]
            connection.execute(f"do $$ begin raise warning '{mark}'; end $$".encode())
        its_line = re.compile(f"WARNING:  {CODE}{mark}")
        if not wait_until(lambda: any(its_line.search(entry) for entry in self._read(pattern, noted)), ARRIVES, 0.1):
            said = f"A warning of {name} does not arrive in {pattern}: another server's log, without warnings, or JSON."
            wanted = ("log_min_messages = warning", "lc_messages = 'C'", "log_destination = 'stderr'")
            hint = "".join(f"alter system set {each};\n" for each in wanted) + "select pg_reload_conf();"
            raise Inconclusive(said, hint, final=True)
        return [entry for entry in of_database(self._read(pattern, noted), prefix, database) if MARK not in entry]

    def _read(self, pattern: str, noted: dict[str, Any]) -> list[str]:
        """Return the entries of the files `noted`, whatever they are called now, and of those that came since."""
        now, starts = matching(f"{pattern}*", self.root), dict[Path, int]()
        for name, at in noted.items():
            same = next((path for path in now if at == position(path, at["size"])), None)
            if same is None:
                raise Inconclusive(f"{name} was emptied or removed: what it said cannot be read any more.", final=True)
            now.remove(same)
            starts[same] = at["size"]
        starts |= {path: 0 for path in now if path.stat().st_mtime >= self.began["at"] - 2}
        texts = [plain(path.read_bytes()[start:]) for path, start in starts.items()]
        # Lines that begin with a tab belong to the entry before.
        return [entry.rstrip() for text in texts for entry in re.split(r"\n(?!\t)", text) if entry.strip()]


def of_database(entries: Iterable[str], prefix: str, database: str) -> Iterator[str]:
    """Yield the entries of `database`, and of none, where %d in log_line_prefix says which they are of."""
    shape = re.sub(r"%\\?-?\d*[a-zA-Z]", ".*?", re.escape(prefix).replace("%d", "(?P<name>.*?)")) + r"[A-Z]+\d?:  "
    for entry in entries:
        match = re.match(shape, entry)
        if not match or match.groupdict().get("name", "") in ("", "[unknown]", database):
            yield entry
