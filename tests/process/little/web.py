"""The little app: keeps a sample a second without a gap, and answers over HTTP.

The file LITTLE_FAULTS/<database> names what it does wrong today: unhealthy, broken-view, stale, hole, warning, away,
away-<version>.
"""

import contextlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

DSN = os.environ["DATABASE_URL"]
VERSION = json.loads(Path(__file__).with_name("package.json").read_text())["version"]
SAMPLES = """
    insert into app.samples
    select symbol, moment from app.symbols,
      generate_series(date_trunc('second', now()) - interval '90 s', now(), interval '1 s') as moment
    where not (%(hole)s and symbol = 'ETH' and extract(epoch from moment)::bigint %% 20 < 10)
      and not (%(stale)s and moment > now() - interval '30 s')
    on conflict do nothing"""
WARNING = "do $$ begin raise warning 'the little app is worried'; end $$"


def faults() -> set[str]:
    file = Path(os.environ["LITTLE_FAULTS"], os.environ["PGDATABASE"])
    return set(file.read_text().split()) if file.exists() else set()


def is_away() -> bool:
    """Tell whether the whole app is away, or this version where people reach it: beside the old one it answers."""
    origin = os.environ[f"{os.environ['PGDATABASE'].rpartition('_')[2].upper()}_ORIGIN"]
    return "away" in faults() or (f"away-{VERSION}" in faults() and os.environ["ORIGIN"] == origin)


def sample() -> None:
    while True:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(DSN, autocommit=True) as connection:
            while True:
                now = faults()
                connection.execute(SAMPLES, {fault: fault in now for fault in ("hole", "stale")})
                if "warning" in now:
                    connection.execute(WARNING)
                time.sleep(0.5)
        time.sleep(0.5)


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {
            "/api/health": (200, json.dumps({"ok": "unhealthy" not in faults()})),
            "/api/version": (503, "away") if is_away() else (200, json.dumps({"version": VERSION})),
            "/": (200, "<main>Little</main>"),
            "/samples": (500, "no") if "broken-view" in faults() else (200, "<main>Samples</main>"),
        }
        status, body = answers.get(self.path, (404, "not here"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


threading.Thread(target=sample, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Pages).serve_forever()
