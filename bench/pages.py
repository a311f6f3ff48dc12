"""How many pages a second the page checks look at: six views at once against the same views one after the other.

Run by `nox -s bench`. Each round goes through both in turn, in one browser that is warm; prints medians, pages a second
and the ratio against the baseline named in the table. The views are of a small site that needs no database: a style
sheet, a script that fetches 100 rows and draws a table and a chart, an image, and a full-page screenshot of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from release_tasks import screen  # noqa: E402
from release_tasks.checks.page import look_at_page  # noqa: E402
from release_tasks.checks.place import Asked, Place  # noqa: E402
from release_tasks.kinds import Page  # noqa: E402

VIEWS = [f"/{name}" for name in ("overview", "sampling", "matrices", "dynamics", "wallet", "settings")]
VIEW = """<!doctype html><html lang=en><head><title>{path}</title><link rel=stylesheet href=/app.css></head>
<body><nav>{links}</nav><main hidden><h1>{path}</h1><img src=/logo.svg width=64 height=64 alt=logo>
<canvas width=600 height=200></canvas><table></table></main><script src=/app.js defer></script></body></html>"""
CSS = "body {font: 14px sans-serif} nav a {margin: 4px} td {border: 1px solid #ccc; padding: 2px 8px}"
SCRIPT = """
const rows = await (await fetch(`/api/rows?view=${location.pathname}`)).json();
const pen = document.querySelector('canvas').getContext('2d');
rows.forEach((row, x) => pen.fillRect(2 * x, 200 - row.mid, 1, row.mid));
document.querySelector('table').innerHTML = rows.map(
  (row) => `<tr><td>${row.symbol}<td>${row.at}<td>${row.mid.toFixed(2)}</tr>`).join('');
document.querySelector('main').hidden = false;
"""
ROWS = [{"symbol": f"S{n % 20}", "at": f"2026-01-01T00:{n % 60:02}:00Z", "mid": n * 37 % 199} for n in range(100)]
LOGO = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='4' fill='teal'/></svg>"


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    links = " ".join(f"<a href={path}>{path[1:]}</a>" for path in VIEWS)
    parts = {  # noqa: RUF012
        "/app.css": ("text/css", CSS),
        "/app.js": ("text/javascript", f"(async () => {{{SCRIPT}}})()"),
        "/logo.svg": ("image/svg+xml", LOGO),
        "/api/rows": ("application/json", json.dumps(ROWS)),
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        kind, text = self.parts.get(path, ("text/html", VIEW.format(path=path[1:], links=self.links)))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as kept, ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_port}"
        place = Place("bench", "app", "0.1.1", "", origin, kept, kept, kept, kept)
        started = seconds(lambda: look(place, VIEWS[:1]))
        ways: dict[str, Callable[[], None]] = {
            "one after the other": lambda: [look(place, [path]) for path in VIEWS] and None,
            "ours, all at once": lambda: look(place, VIEWS),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(times):
            for name, way in ways.items():
                took[name].append(seconds(way))
        server.shutdown()
    medians = {name: statistics.median(all_) for name, all_ in took.items()}
    base = medians["one after the other"]
    screen.table(
        f"\n{len(VIEWS)} views with full-page screenshots, medians of {times}",
        ["how", "seconds", "pages a second", "ratio to one after the other"],
        [(name, f"{each:.2f}", f"{len(VIEWS) / each:.1f}", f"{each / base:.2f}") for name, each in medians.items()],
    )
    screen.say(f"The first view, with the start of the browser: {started:.2f} s")


def look(place: Place, paths: list[str]) -> None:
    """Look at `paths` as one page check; what is wrong ends the benchmark."""
    check = Page(path=paths)
    if wrong := look_at_page(check, place, {}, Asked("bench", "7.2", "UI renders all views", check)):
        raise SystemExit("\n".join(wrong))


def seconds(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
