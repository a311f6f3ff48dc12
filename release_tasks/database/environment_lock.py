"""The lock on changing an environment: advisory, of one session in its database, gone with it, whatever ends it."""

import platform
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg

from release_tasks.command_line import again
from release_tasks.database.programs import KEEPALIVES, USER_TIMEOUT, as_refusals, session
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.machine import locked, user

KEY = (0x72656C65, 0x61736521)  # "rele", "ase!"
HELD = """select pid from pg_locks where locktype = 'advisory' and classid = %s and objid = %s and granted
          and database = (select oid from pg_database where datname = current_database())"""
SERVER = {**{f"tcp_{name}": value for name, value in KEEPALIVES.items()}, "tcp_user_timeout": USER_TIMEOUT}
SERVER["idle_session_timeout"] = 0


class EnvironmentLock:
    """The lock of the environment `where`, in its database `dsn`, and on its `folder` where that is here."""

    def __init__(self, where: str, dsn: str, folder: Path) -> None:
        self.where, self.dsn, self.folder = where, dsn, folder
        self._session: psycopg.Connection | None = None
        self._held = ExitStack()

    def hold(self, version: str) -> bool:
        """Hold it for a release; tell whether it was ours all along. Raises `Refused` where another has it."""
        with suppress(psycopg.OperationalError):  # the server was restarted, the line was cut, or we slept for too long
            if self._session and self._session.execute(f"{HELD} and pid = pg_backend_pid()", KEY).fetchone():
                return True
        self.give_up()
        who = f"{user()[:16]} on {platform.node()[:16]}"
        name = f"v{version} by {who} since {time.strftime('%d %b %H:%M:%SZ', time.gmtime())}"[:63]
        with ExitStack() as held, as_refusals(self.where):
            self._session = session(self.dsn, name)
            held.callback(self._session.close)
            self._lock(self._session)
            if self.folder.is_dir():  # held also where the line was cut, by a process that is stopped
                held.enter_context(locked(self.folder / ".release-lock", f"release to {self.where}"))
            self._held = held.pop_all()
        return False

    def _lock(self, session: psycopg.Connection) -> None:
        refuse(pooler_problems(session, self.where))
        for name, value in SERVER.items():  # not each version has all
            session.execute("select set_config(name, %s, false) from pg_settings where name = %s", [str(value), name])
        if session.execute("select pg_try_advisory_lock(%s, %s)", KEY).fetchone() == (True,):
            return
        query = f"select application_name, pid from pg_stat_activity where pid in ({HELD})"
        holder, pid = session.execute(query, KEY).fetchone() or ("a release that has just ended", 0)
        what = f"{self.where.capitalize()} is being changed: {holder}."
        end = f"psql -c 'select pg_terminate_backend({pid})'   # there, only if that process is gone for good"
        raise Refused(what, f"Wait for it to end, or:\n{end}" if pid else again())

    def give_up(self) -> None:
        """Let others have it."""
        self._held.close()
        self._session = None


def pooler_problems(connection: psycopg.Connection, where: str) -> list[Problem]:
    """Return a problem if a pooler is before the server: there, the lock of a session is soon somebody else's."""
    if connection.execute("select pg_backend_pid()").fetchone() == (connection.info.backend_pid,):
        return []
    what = f"A pooler is between us and the database of {where}; expected the server itself, for its locks to hold."
    return [Problem(what, f"Set release.environments.{where}.dsn to the server's own address and port.")]
