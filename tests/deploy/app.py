"""The application of these tests: `python3 app.py FOLDER SERVICE PORT`; its version is in VERSION beside it.

The file `fault-<version>` in FOLDER says what is wrong with it.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, SERVICE, PORT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
VERSION = (Path(__file__).parent / "VERSION").read_text().strip()
under_way = set()


def fault():
    try:
        return (FOLDER / f"fault-{VERSION}").read_text()
    except OSError:
        return ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        under_way.add(self)
        found, by_front, status, version = fault(), "X-Forwarded-For" in self.headers, 200, VERSION
        if found == "dies" and by_front:
            os._exit(1)
        if found == "unwell" or (found == "sick" and by_front):
            status = 503
        if found == "old":
            version = "0.0.1"
        if self.path == "/slow":
            time.sleep(0.5)
        body = json.dumps({"version": version}).encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)
        under_way.discard(self)

    do_POST = do_GET

    def log_message(self, *_):
        """Say nothing."""


def end(*_):
    """End when each request that is under way has its answer."""

    def wait():
        while under_way:
            time.sleep(0.01)
        os._exit(0)

    threading.Thread(target=wait).start()


def jobs():
    """Run until SIGTERM, and note where others run at the same time."""
    mark = FOLDER / "jobs-run"
    if mark.exists():
        (FOLDER / "two-at-once").write_text(VERSION)
    mark.write_text(VERSION)

    def leave(*_):
        mark.unlink()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    while True:
        signal.pause()


if __name__ == "__main__":
    if fault() == "exits":
        sys.exit("This version does not start.")
    if SERVICE == "jobs":
        jobs()
    signal.signal(signal.SIGTERM, end)
    while fault() == "mute":
        time.sleep(0.1)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 100
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
