"""The healthy world of the catalogue of lies, and the ways in which it is broken."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import conninfo, sql

from release_tasks import node
from release_tasks.checks import Target
from release_tasks.checks.logs import positions
from release_tasks.database.server import Running
from release_tasks.errors import Refused

PG = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
SCHEMA = """
create schema settings; create schema str_aux; create schema matrices; create schema ops; create schema debug;
create table settings.coin_universe (symbol text primary key, enabled boolean not null);
create table str_aux.samples_5s (symbol text, ts timestamptz, mid numeric, primary key (symbol, ts));
create table matrices.dyn_values (matrix_type text, base text, quote text, ts_ms bigint, value numeric);
create table ops.session_log (session_id text primary key, app_name text, app_version text, opened_at timestamptz);
create table ops.ddl_ledger (file text primary key, sha256 text not null, applied_at timestamptz);
create view debug.coverage as select symbol, count(*) as rows from str_aux.samples_5s group by 1;
"""
# Twenty minutes of four symbols, up to now; mid 160 is the sample of five minutes ago. OLD is not enabled and has none.
ROWS = """
insert into settings.coin_universe
    select symbol, symbol <> 'OLD' from unnest(array['BTC', 'ETH', 'SOL', 'XRP', 'OLD']) as symbol;
insert into str_aux.samples_5s select symbol, now() - make_interval(secs => 5 * n), 100 + n
    from settings.coin_universe, generate_series(0, 240) as n where enabled;
insert into matrices.dyn_values
    select type, symbol, 'USDT', (extract(epoch from now()) * 1000)::bigint - 10000 * n, n from settings.coin_universe,
    unnest(array['benchmark', 'delta', 'pct24h']) as type, generate_series(0, 120) as n where enabled;
insert into ops.session_log
    values ('first', 'app', '0.1.0', now() - interval '1 day'), ('second', 'app', '0.1.1', now());
insert into ops.ddl_ledger values ('ddl/00.sql', 'cafe', now()), ('ddl/01.sql', 'f00d', now());
"""


class Program(NamedTuple):
    """A program that ends with exit code 0, or at least says PASS; `text` is what its file holds, if it has one."""

    file: str = ""
    text: str = ""


class Suite(NamedTuple):
    """A team's own test file, with which pytest itself finds no fault."""

    text: str


class Served(NamedTuple):
    """What the web app answers to the path that the check asks for; `later` is the body from the second time on."""

    body: str = ""
    status: int = 200
    location: str = ""
    after: float = 0.0  # seconds
    later: str = ""


class Logged(NamedTuple):
    """What becomes of the app's log once the deployment has begun."""

    happens: Callable[[Path], object]


class Database(NamedTuple):
    """A statement that breaks the healthy database; `facts` are those of `Target` that are others."""

    statement: str
    facts: Mapping[str, Any] = {}


WELL = {
    "/api/health": Served('{"ok": true, "version": "0.1.1", "database": {"ok": true}}'),
    "/api/version": Served('{"version": "0.1.1"}'),
    "/": Served("<main>All is well <img src=/pixel.svg></main><script>fetch('/api/health')</script>"),
    "/sampling": Served("<main>Samples of 4 symbols</main><script>console.warn('old browser')</script>"),
    "/private": Served("<main>Yours</main>"),
    "/pixel.svg": Served('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'),
    "/moved": Served(status=301, location="/api/health"),
    "/login": Served("<main>Who are you?</main>"),
    "/compiles": Served("compiling", 500, later="<main>compiled</main>"),
    "/yesterday/api/version": Served('{"version": "0.1.0"}'),
}


@contextmanager
def web_app(served: Mapping[str, Served]) -> Iterator[str]:
    """Serve what is `served` by path, /private only with a session; yield its ORIGIN."""
    asked: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            answer = served.get(path, Served("<p>Not here</p>", 404))
            if path == "/private" and "session=s3cret-s3cret" not in self.headers.get("Cookie", ""):
                answer = Served(status=302, location="/login?next=/private")
            status, body = (200, answer.later) if answer.later and path in asked else (answer.status, answer.body)
            asked.add(path)
            time.sleep(answer.after)
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", "image/svg+xml" if path.endswith(".svg") else "text/html")
                self.send_header("Content-Length", str(len(body)))
                if answer.location:
                    self.send_header("Location", answer.location)
                self.end_headers()
                self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 64

    with Server(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


class Healthy:
    """A release that is well: its web app, and as many worlds of its own as are asked for."""

    def __init__(self, root: Path, server: Running, origin: str) -> None:
        self.root, self.server, self.origin, self.numbers = root, server, origin, itertools.count()
        self.template = self._database("template1", SCHEMA)
        path = os.environ["PATH"]
        with suppress(Refused):
            path = node.runtime(root, root / "worlds" / "cache")["PATH"]
        self.path = os.pathsep.join([path, str(server.bin)])

    @contextmanager
    def world(self) -> Iterator[Target]:
        """Yield a target where all is well, with a database and a log of its own, as a deployment leaves it."""
        name = self._database(self.template, ROWS)
        dsn, code, server_log = self.server.dsn(name), self.root / "worlds" / name, str(self.server.log)
        code.mkdir(parents=True)
        (code / "app.log").write_text("ERROR:  of yesterday\nstarted\n")
        told = conninfo.conninfo_to_dict(dsn)
        yield Target(
            **{"name": "staging", "app": "app", "version": "0.1.1", "dsn": dsn, "origin": self.origin},
            **{"root": str(self.root), "code": str(code), "folder": str(code)},
            env={"DATABASE_URL": dsn, "PATH": self.path, **{each: str(told[key]) for each, key in PG.items()}},
            deployed_at=(datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
            log=server_log,
            log_positions=positions([server_log, str(code / "app.log")], self.root),
            **{"session_log": "ops.session_log", "ledger": "ops.ddl_ledger"},
            pack={"ddl/00.sql": "cafe", "ddl/01.sql": "f00d"},
        )
        self._execute("postgres", sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def _database(self, template: str, statements: str) -> str:
        """Return the name of a new database, made from `template`, in which `statements` were executed."""
        name = f"{self.root.name}_{next(self.numbers)}"
        names = map(sql.Identifier, (name, template))
        self._execute("postgres", sql.SQL("create database {} template {}").format(*names))
        self._execute(name, statements)
        return name

    def _execute(self, database: str, statement: Any) -> None:
        with psycopg.connect(self.server.dsn(database), autocommit=True) as connection:
            connection.execute(statement)
