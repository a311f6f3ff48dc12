"""A request that is answered with a lie is caught: ok that is false, a login page, another version, nobody there."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks import asking, masks
from release_tasks.checks.http import _same
from release_tasks.checks.place import Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result, Unknown
from release_tasks.checks.web import Session, is_own, short
from release_tasks.kinds import Http

Look = Callable[..., Result]
HEALTH = {
    "ok": True,
    "version": "0.1.1",
    "database": {"ok": True, "lag": 1},
    "jobs": [{"name": "ingest"}],
    "none": None,
}
ANSWERS: dict[str, tuple[int, str, dict[str, str]]] = {
    "/api/health": (200, json.dumps(HEALTH), {}),
    "/sick": (200, '{"ok": false}', {}),
    "/text": (200, '{"ok": "true"}', {}),
    "/one": (200, '{"ok": 1}', {}),
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
            if self.path == "/drips":
                self.send_response(200)
                self.end_headers()
                for _ in range(4):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
                return
            status, body, headers = ANSWERS.get(self.path, (404, "", {}))
            if self.path == "/echo":
                status, body = 200, json.dumps({"key": self.headers.get("X-Key"), "method": self.command})
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

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
def ask(look: Look, place: Callable[..., Place], origin: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return what asks: `ask(path, **what the check is told)`; a proxy is set that nobody must use."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(masks, "_hidden", set())

    def ask(path: str, origin: str = origin, **told: Any) -> Result:
        here = place(origin=origin)
        return look(Http(path=path, **told), here)

    return ask


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/health", {}),
        ("/api/health", {"holds": {"ok": True, "version": "{version}", "database.ok": True, "jobs.0.name": "ingest"}}),
        ("/api/health", {"holds": {"database": {"ok": True, "lag": 1.0}, "none": None}}),
        ("/api/health", {"method": "HEAD"}),
        ("/down", {"status": 503}),
        ("/private", {"status": 302}),
        ("/moved", {"redirects": True, "holds": {"ok": True}}),
        ("/echo", {"method": "POST", "holds": {"method": "POST"}}),
        ("/echo", {"headers": {"X-Key": "k3y-of-ours"}, "holds": {"key": "k3y-of-ours"}}),
    ],
)
def test_a_healthy_answer_passes(ask: Callable[..., Result], path: str, told: dict[str, Any]) -> None:
    result = ask(path, **told)
    assert (result.verdict, result.said) == (PASS, ())
    assert result.seen["status"] == told.get("status", 200) and " in 0." in result.seen["in_words"]


@pytest.mark.parametrize(
    ("path", "told", "said"),
    [
        ("/sick", {"holds": {"ok": True}}, "GET /sick says that ok is false, expected true."),
        ("/text", {"holds": {"ok": True}}, 'GET /text says that ok is "true", expected true.'),
        ("/one", {"holds": {"ok": True}}, "GET /one says that ok is 1, expected true."),
        ("/one", {"holds": {"ok.0": True}}, 'GET /one has no ok.0 in its JSON, expected true; it said: {"ok": 1}'),
        ("/sick", {"holds": {"v": "{version}"}}, 'GET /sick has no v in its JSON, expected "0.1.1"; it said: '),
        ("/html", {"holds": {"ok": True}}, "GET /html answered with no JSON: <h1>Welcome</h1>xxx"),
        ("/down", {}, "GET /down answered with status 503, expected 200; it said: no database: postgresql://***@db"),
        ("/gone", {}, "GET /gone answered with status 404, expected 200; it said: nothing"),
        (
            "/private",
            {},
            "GET /private is redirected (302) to {origin}/login?next=/private, a login page; expected 200.",
        ),
        ("/moved", {}, "GET /moved is redirected (301) to {origin}/api/health; expected 200."),
        ("/off", {"redirects": True}, "GET /off is redirected (302) to http://localhost:9/api/health, off ORIGIN; exp"),
        ("/silent", {"within": 0.3}, "GET /silent was not answered within 0.3 s."),
    ],
)
def test_an_answer_that_lies_fails(
    ask: Callable[..., Result], origin: str, path: str, told: dict[str, Any], said: str
) -> None:
    result = ask(path, **told)
    assert result.verdict == FAIL and len(result.said) == 1
    assert result.said[0].startswith(said.format(origin=origin) if "{origin}" in said else said)
    assert ("Cookie" in result.mend) == ("login" in said)
    assert len(result.seen.get("body", "")) <= 200


def test_what_is_slow_fails_also_when_it_answers(ask: Callable[..., Result]) -> None:
    (said,) = ask("/drips", within=0.25).said
    assert said.startswith("GET /drips took ") and said.endswith(" s, expected at most 0.25 s.")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/hangs-up", "Remote end closed connection without response"),
        ("/round", "TooManyRedirects"),
    ],
)
def test_an_answer_that_is_none_is_unknown(ask: Callable[..., Result], path: str, told: str) -> None:
    result = ask(path, redirects=True)
    assert result.verdict == UNKNOWN and f": {told}." in result.words


def test_nobody_there_is_unknown_and_says_where(ask: Callable[..., Result]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = ask("/api/health", origin=origin)
    assert (result.verdict, result.mend) == (UNKNOWN, f"curl --head {origin}")
    assert result.said == (f"{origin}/api/health could not be reached: [Errno 111] Connection refused.",)


def test_a_header_that_cannot_be_sent_is_unknown_and_stays_secret(ask: Callable[..., Result]) -> None:
    result = ask("/echo", headers={"X-Key": "k3y-of-\nours"})
    assert result.verdict == UNKNOWN and "k3y" not in result.words and "InvalidHeader" in result.words


def test_a_secret_that_is_cut_in_two_is_not_shown() -> None:
    masks.hide("tr0ub4dor-and-three")
    assert "tr0ub" not in short("x" * 195 + "tr0ub4dor-and-three")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    )
)
def test_a_value_is_the_same_as_itself_and_never_as_its_text(value: Any) -> None:
    assert _same(json.loads(json.dumps(value)), value)
    assert not _same(json.dumps(value), value)
    assert not _same([value, True], [value, 1])


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://app.example", True),
        ("https://APP.example:443/x", True),
        ("http://app.example/x", False),
        ("https://app.example.evil/x", False),
        ("https://app.example@evil/x", False),
        ("https://app.example:8443/x", False),
        ("https://app.example:port/x", False),
        ("//app.example/x", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, own: bool) -> None:
    assert is_own(url, "https://app.example") is own


def test_the_session_of_a_team_stays_on_origin_and_follows_no_redirect(origin: str) -> None:
    with Session(origin) as api:
        assert api.get("/api/health").json()["ok"] is True
        assert api.get("/moved").status_code == 301
        assert api.get("//localhost:9/api/health").status_code == 404
        for path in ("http://localhost:9/x", "api/health"):
            with pytest.raises(Unknown) as refused:
                api.get(path)
            assert refused.value.definite and "is off ORIGIN" in str(refused.value)


def test_a_test_of_a_team_is_handed_a_session_that_keeps_what_it_asked(
    place: Callable[..., Place], origin: str, tmp_path: Path
) -> None:
    (tmp_path / "test_own.py").write_text(
        "def test_health(api):\n"
        "    assert all(api.get('/api/health').json()['ok'] for _ in range(11))\n"
        "def test_elsewhere(api):\n"
        "    api.get('http://localhost:9/api/health')\n"
    )
    well, elsewhere = asking.ask(place(origin=origin), [tmp_path / "test_own.py"])
    assert (well.verdict, well.seen["requests"]) == (PASS, [f"GET {origin}/api/health → 200"] * 10)
    assert elsewhere.verdict == UNKNOWN
    assert elsewhere.said == (
        f"http://localhost:9/api/health is off ORIGIN; expected a path on {origin}, as /api/health.",
    )
