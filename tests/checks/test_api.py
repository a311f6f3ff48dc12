"""A request that is answered with a lie is caught: ok that is false, a login page, another version, nobody there."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import masks
from release_tasks.checks import CheckFailed, Inconclusive
from release_tasks.checks.web import Api, as_text, part_of
from release_tasks.masks import short
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED
from tests.checks.conftest import Came, came_to

HEALTH = {
    "ok": True,
    "version": "0.1.1",
    "database": {"ok": True, "lag": 1},
    "jobs": ["ingest"],
    "none": None,
}
ANSWERS: dict[str, tuple[int, str, dict[str, str]]] = {
    "/api/health": (200, json.dumps(HEALTH), {}),
    "/sick": (200, '{"ok": false}', {}),
    "/text": (200, '{"ok": "true"}', {}),
    "/one": (200, '{"ok": 1}', {}),
    "/twice": (200, '{"ok": false, "ok": true}', {}),
    "/nan": (200, '{"ok": true, "value": NaN}', {}),
    "/drops": (200, '{"ok": true}', {}),
    "/html": (200, "<h1>Welcome</h1>" + "x" * 500, {}),
    "/down": (503, "no database: postgresql://app:hunter2x@db/app", {}),
    "/private": (302, "", {"Location": "/login?next=/private"}),
    "/moved": (301, "", {"Location": "/api/health"}),
    "/off": (302, "", {"Location": "http://localhost:9/api/health"}),
    "/round": (302, "", {"Location": "/round"}),
}


@pytest.fixture(scope="module")
def served() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path in ("/silent", "/hangs-up"):
                quiet.wait(120 * (self.path == "/silent"))
                self.close_connection = True
                return
            status, body, headers = ANSWERS.get(self.path, (404, "", {}))
            if self.path == "/echo":
                status, body = 200, json.dumps({"key": self.headers.get("X-Key"), "method": self.command})
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                for each in [body] if self.path != "/drops" else body:
                    self.wfile.write(each.encode())
                    quiet.wait(0.1 * (self.path == "/drops"))

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    quiet = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        quiet.set()
        server.shutdown()


@pytest.fixture
def origin(served: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{served.server_port}"


@pytest.fixture
def ask(origin: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Came]:
    """Return what asks: `ask(path, json, **options)`; a proxy is set that nobody must use."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")

    def ask(path: str, json: Any = None, origin: str = origin, **options: Any) -> Came:
        with Api(origin) as api:
            return came_to(lambda _: api.expect(path, json, **options))

    return ask


@pytest.mark.parametrize(
    ("path", "json", "options"),
    [
        ("/api/health", None, {}),
        ("/api/health", {"ok": True, "version": "0.1.1", "database": {"ok": True}, "jobs": ["ingest"]}, {}),
        ("/api/health", {"database": {"ok": True, "lag": 1}, "none": None}, {}),
        ("/down", None, {"status": 503}),
        ("/private", None, {"status": 302}),
        ("/echo", {"key": "k3y-of-ours"}, {"headers": {"X-Key": "k3y-of-ours"}}),
    ],
)
def test_a_healthy_answer_passes(ask: Callable[..., Came], path: str, json: Any, options: dict[str, Any]) -> None:
    assert ask(path, json, within=60, **options) == Came(PASSED)


@pytest.mark.parametrize(
    ("path", "json", "said"),
    [
        ("/sick", {"ok": True}, '/sick says {"ok": false}, expected {"ok": true}.'),
        ("/text", {"ok": True}, '/text says {"ok": "true"}, expected {"ok": true}.'),
        ("/one", {"ok": True}, '/one says {"ok": 1}, expected {"ok": true}.'),
        ("/one", {"ok": [True]}, '/one says {"ok": 1}, expected {"ok": [true]}.'),
        ("/one", {"ok": 1, "v": 2}, '/one says {"ok": 1}, expected {"ok": 1, "v": 2}.'),
        ("/twice", {"ok": True}, '/twice says "{'),
        ("/nan", {"ok": True}, '/nan says "{'),
        ("/sick", {"v": "0.1.1"}, '/sick says {}, expected {"v": "0.1.1"}.'),
        ("/html", {"ok": True}, '/html says "<h1>Welcome</h1>xxx'),
        ("/down", None, "/down answered 503, expected 200; it said no database: postgresql://***@db"),
        ("/gone", None, "/gone answered 404, expected 200; it said"),
        ("/private", None, "/private answered 302, expected 200; it leads to /login?next=/private"),
        ("/moved", None, "/moved answered 301, expected 200; it leads to /api/health"),
    ],
)
def test_an_answer_that_lies_fails(ask: Callable[..., Came], origin: str, path: str, json: Any, said: str) -> None:
    result = ask(path, json, within=60)
    assert result.outcome == FAILED and said.replace("{origin}", origin) in result.message


def test_what_is_slow_fails(ask: Callable[..., Came]) -> None:
    for path in ("/silent", "/drops"):  # of which each byte comes in time
        assert ask(path, within=0.3).message == f"{path} was not answered within 0.3 s."


def test_nobody_there_is_inconclusive_and_may_yet_come(ask: Callable[..., Came]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = ask("/api/health", origin=origin)
    assert (result.outcome, result.final) == (INCONCLUSIVE, False)
    assert result.message.startswith(f"{origin}/api/health could not be reached") and origin in result.hint


def test_certificates_that_are_gone_are_inconclusive(ask: Callable[..., Came], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    result = ask("/", origin="https://127.0.0.1:9")
    assert result.outcome == INCONCLUSIVE and "/no/such/file" in result.message


@pytest.mark.parametrize("path", ["/hangs-up", "/round"])
def test_an_answer_that_cannot_be_read_is_no_pass(ask: Callable[..., Came], path: str) -> None:
    assert ask(path, within=60).outcome != PASSED


def test_a_secret_that_is_cut_in_two_is_not_shown() -> None:
    masks.hide("s3cret-of-ours")
    assert "s3cret" not in short("x" * 193 + "s3cret-of-ours")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_a_value_is_the_same_as_itself_and_never_as_its_text(value: Any) -> None:
    again = json.loads(json.dumps(value))
    assert as_text(part_of(again, value)) == as_text(value)
    assert as_text(json.dumps(value)) != as_text(value)
    if isinstance(value, bool | int):
        assert as_text(int(value)) != as_text(bool(value))


def test_the_session_stays_on_origin_and_follows_no_redirect(origin: str) -> None:
    with Api(origin) as api:
        assert api.get("/moved").status_code == 301
        for elsewhere in ("https://example.invalid/", "api/health"):
            with pytest.raises(Inconclusive, match="no path on ORIGIN"):
                api.get(elsewhere)
        with pytest.raises(CheckFailed, match="not answered"):
            api.get("/silent", timeout=0.2)
