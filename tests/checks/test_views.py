"""A view that lies is caught in a real browser; one that is well passes, and nothing hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from release_tasks.checks import Target, browser, runner
from release_tasks.checks.web import Api, check_view
from release_tasks.outcome import FAILED, INCONCLUSIVE, PASSED
from tests.checks.conftest import Came, came_to

See = Callable[..., Came]
LONG = 60.0  # seconds for a page that is decided long before, on a busy machine too
PIXEL = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
VIEWS = {
    "/well": "<script>console.log('a'); console.warn('b')</script><main>All is well</main><img src=/pixel.gif>",
    "/others": "<main>well</main><img src=http://127.0.0.1:9/x.png><script src=http://localhost:{port}/none.js></script>"
    "<script>fetch('http://localhost:{port}/none').catch(() => 0); new AbortController().abort()</script>",
    "/aborts": "<main>well</main><script>const a = new AbortController();"
    "fetch('/silent', {signal: a.signal}).catch(() => 0); setTimeout(() => a.abort(), 30)</script>",
    "/later": "<body><script>setTimeout(() => document.body.innerHTML = '<main>x</main>', 200)</script>",
    "/second": "<p hidden class=x>no</p><p class=x>yes</p>",
    "/box": "<main>All is well<div class=alert>Oops! Something went wrong.</div></main>",
    "/pictures": "<main>x<img><img src=''><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>"
    "<div style='height: 9000px'></div><img loading=lazy src=/well></main>",
    "/titled": "<title>500: Internal Server Error</title><main>x</main>",
    "/framed": "<main>x</main><iframe src=/box></iframe>",
    "/blank": "<main>x<img src=/well></main>",
    "/later-box": "<main>x</main><script>setTimeout(() => document.body.append('Bad Gateway'), 5000)</script>",
    "/throws": "<main>x</main><script>undefined.prices</script>",
    "/throws-and-empty": "<div id=root></div><script>undefined.prices</script>",
    "/rejects": "<main>x</main><script>Promise.reject(new Error('no prices'))</script>",
    "/no-image": "<main>x<img src=/gone.png></main>",
    "/no-script": "<main>x</main><script src=/gone.js></script>",
    "/no-data": "<main>x</main><script>fetch('/broken')</script>",
    "/late-data": "<main>x</main><script>fetch('/broken?late')</script>",
    "/reset": "<main>x<img src=/hangs-up></main>",
    "/logs": "<main>x</main><script>console.error('cannot draw', 42)</script>",
    "/hidden": "<main style='display: none'>x</main>",
    "/none": "<p>x</p>",
    "/moves": "<p>x</p><script>setTimeout(() => location.href = '/login', 50)</script>",
    "/login": "<main>Who are you?</main>",
    "/slow-image": "<main>x<img src=/silent></main>",
    "/busy": "<main>x</main><script>setTimeout(() => { for (;;); }, 0)</script>",
    "/stream": "<main>x</main><script>new EventSource('/silent')</script>",
    "/dark": "<main>x</main><script>"
    "if (matchMedia('(prefers-color-scheme: dark)').matches) throw Error('dark')</script>",
}


class Site(ThreadingHTTPServer):
    """A web app with a view for each lie; `heard` is what it was asked, `sick` how often /first still fails."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[tuple[str, Any]] = []
        self.sick = 0
        self.quiet = threading.Event()
        self.origin = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing: a browser that leaves is no failure."""


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.heard.append((self.path, self.headers))
        if self.path.startswith("/silent"):
            self.server.quiet.wait(120)
        elif self.path == "/broken?late":
            time.sleep(0.4)
            self.answer(500, b"")
        elif self.path == "/hangs-up":
            self.close_connection = True
        elif self.path == "/redirects-to-silence":
            self.answer(302, b"", Location="/silent")
        elif self.path in ("/redirects", "/off"):
            host = "localhost" if self.path == "/off" else "127.0.0.1"
            self.answer(302, b"", Location=f"http://{host}:{self.server.server_port}/login?next=/redirects")
        elif self.path == "/private":
            known = "session=s3cret" in self.headers.get("Cookie", "") or self.headers.get("X-Key") == "k3y-of-ours"
            self.answer(200 if known else 401, b"<main>Yours<img src=/pixel.gif></main>")
        elif self.path == "/first" and self.server.sick:
            self.server.sick -= 1
            self.answer(500, b"compiling")
        elif self.path in ("/broken", "/first", "/pixel.gif"):
            self.answer(500 if self.path == "/broken" else 200, PIXEL if "gif" in self.path else b"<main>x</main>")
        else:
            text = VIEWS.get(self.path.partition("?")[0], "").replace("{port}", str(self.server.server_port))
            self.answer(200 if text else 404, (text or "<p>Not here").encode())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        kind = "image/gif" if body == PIXEL else "text/html; charset=utf-8"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with Site() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.quiet.set()
        server.shutdown()


@pytest.fixture
def site(served: Site) -> Site:
    served.heard.clear()
    return served


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    os.environ |= browser.node_of_playwright()
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(**browser.launch_options())
        yield one
        one.close()


@pytest.fixture
def see(started: Any, site: Site) -> See:
    """Return what looks at a page of the site: `see(path, **what view takes)`."""

    def see(path: str, origin: str = "", **how: Any) -> Came:
        with started.new_context() as context, Api(origin or site.origin) as api:
            return came_to(lambda record: check_view(context, api, record, path, **{"timeout": 60, **how}))

    return see


@pytest.mark.parametrize(
    ("path", "how"),
    [
        *(
            (path, {})
            for path in ("/well", "/pictures", "/others", "/aborts", "/later", "/stream", "/well?tab=prices#top")
        ),
        *(
            (path, {})  # which a browser writes in its own way
            for path in ("/well?tab=münze", '/well?q=["a b"]', "/well?q=it's")
        ),
        ("/second", {"shows": ".x"}),
        ("/box", {"error_words": ""}),
    ],
)
def test_healthy_pages_pass_before_their_time_is_over(see: See, path: str, how: dict[str, Any]) -> None:
    result = see(path, timeout=LONG, **how)
    assert (result.outcome, result.message) == (PASSED, "")
    assert result.recorded[0].startswith(f"{path} in ") and float(result.recorded[0].split()[-2]) < LONG


LIES = {
    "/box": "/box shows what it must not: Something went wrong",
    "/titled": "/titled shows what it must not: Internal Server Error",
    "/framed": "/framed shows what it must not: Something went wrong",
    "/blank": "/blank has a picture that cannot be drawn: {origin}/well",
    "/throws": "/throws throws Cannot read properties of undefined (reading 'prices')",
    "/throws-and-empty": "(reading 'prices'), does not show main: ",
    "/rejects": "/rejects throws no prices",
    "/no-image": "/no-image requests {origin}/gone.png, and gets status 404",
    "/no-script": "/no-script requests {origin}/gone.js, and gets status 404",
    "/no-data": "/no-data requests {origin}/broken, and gets status 500",
    "/late-data": "/late-data requests {origin}/broken?late, and gets status 500",
    "/reset": "/reset requests {origin}/hangs-up, which fails: net::ERR_EMPTY_RESPONSE",
    "/logs": "/logs logs an error: cannot draw 42",
    "/broken": "/broken answered 500, expected 200",
}
NOTHING_TO_SEE = ("/throws-and-empty", "/moves")
LOGINS = {
    "/redirects": "/redirects answered 302, expected 200; it leads to {origin}/login?next=/redirects",
    "/off": "/off answered 302, expected 200; it leads to http://localhost:{port}/login?next=/redirects",
    "/moves": "/moves leads to {origin}/login; expected that it stays",
}


@pytest.mark.parametrize("path", [*LIES, *LOGINS])
def test_a_page_that_lies_fails_at_once(see: See, site: Site, path: str) -> None:
    began = time.monotonic()
    result = see(path, timeout=LONG if path not in NOTHING_TO_SEE else 5)
    assert result.outcome == FAILED and time.monotonic() - began < LONG
    assert {**LIES, **LOGINS}[path].format(origin=site.origin, port=site.server_port) in result.message


def test_words_of_our_own_come_beside_those_of_usual_error_boxes(see: See) -> None:
    """C5: a box that a script shows once the page is loaded is read as well."""
    assert see("/box", must_not_show=["Traceback"]).outcome == FAILED
    assert "All is well" in see("/box", must_not_show=["All is well"], error_words="").message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/hidden", "/hidden does not show main: Locator.wait_for: Timeout 5000ms exceeded."),
        ("/none", "/none does not show main: Locator.wait_for: Timeout 5000ms exceeded."),
        ("/silent", "/silent was not answered within 5 s."),
        ("/slow-image", "/slow-image is not loaded: Page.goto: Timeout 5000ms exceeded."),
    ],
)
def test_pages_that_never_come_about_fail_at_their_time(see: See, site: Site, path: str, said: str) -> None:
    result = see(path, timeout=5)
    assert result.outcome == FAILED and said in result.message


def test_a_page_that_is_too_busy_to_be_looked_at_fails_at_its_time_and_the_next_one_is_looked_at(
    see: See,
) -> None:
    result = see("/busy", timeout=3)
    assert result.outcome == FAILED and "Timeout 3000ms exceeded" in result.message
    assert see("/well").outcome == PASSED


def test_nothing_but_the_page_twice_and_its_parts_is_requested(see: See, site: Site) -> None:
    see("/well")
    assert [path for path, _ in site.heard] == ["/well", "/well", "/pixel.gif"]


def test_each_view_has_its_whole_time_after_others_that_hang(see: See) -> None:
    """M10, C4: slow is not inconclusive while time is left; views are looked at one after the other."""
    for path in ("/silent", "/silent?2"):
        assert see(path, timeout=3).message == f"{path} was not answered within 3 s."
    assert see("/well", timeout=LONG).outcome == PASSED


def test_a_redirect_is_told_at_once_though_where_it_leads_never_answers(see: See, site: Site) -> None:
    """C4: a redirect is judged at once."""
    began = time.monotonic()
    result = see("/redirects-to-silence", timeout=LONG)
    assert "/redirects-to-silence answered 302, expected 200; it leads to /silent" in result.message
    assert time.monotonic() - began < LONG / 2


def test_nobody_at_origin_is_inconclusive(see: See) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        origin = f"http://127.0.0.1:{gone.server_port}"
    result = see("/well", origin=origin)
    assert result.outcome == INCONCLUSIVE and f"{origin}/well could not be reached" in result.message


OWN = """
import pytest

def test_well(page):
    assert page.goto("/well").ok
    assert page.locator("main").inner_text() == "All is well"

@pytest.mark.parametrize("path", ["/throws", "/logs", "/no-image"])
def test_fails(view, path):
    view(path)

def test_elsewhere(view):
    view("http://localhost:9/well")

@pytest.mark.wait(60)
def test_gets_well(view):
    view("/first")
"""


def test_tests_with_a_page_and_with_views_keep_screenshots(
    target: Callable[..., Target], site: Site, tmp_path: Path
) -> None:
    (tmp_path / "test_views.py").write_text(OWN)
    site.sick = 1
    results = runner.run(target(origin=site.origin), [tmp_path / "test_views.py"], tmp_path / "kept")
    found = {each.test: each for each in results}
    failing = [f"test_fails[{path}]" for path in ("/throws", "/logs", "/no-image")]
    outcomes = dict.fromkeys(("test_well", "test_gets_well"), PASSED) | dict.fromkeys(failing, FAILED)
    assert {name: each.outcome for name, each in found.items()} == {**outcomes, "test_elsewhere": INCONCLUSIVE}, found
    assert found[failing[0]].message == "/throws throws Cannot read properties of undefined (reading 'prices')."
    assert found["test_elsewhere"].message.startswith("http://localhost:9/well is no path on ORIGIN")
    pictures = [path for path in (tmp_path / "kept").rglob("*.png") if path.stat().st_size > 1000]
    assert len(pictures) >= 5


def test_a_test_without_a_browser_is_inconclusive(
    target: Callable[..., Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_BIN", str(tmp_path / "gone"))
    (tmp_path / "test_views.py").write_text("def test_a(view):\n    view('/')\n")
    (result,) = runner.run(target(), [tmp_path / "test_views.py"], tmp_path / "kept")
    assert (result.outcome == INCONCLUSIVE and "Executable doesn't exist" in result.message) or "gone" in result.message
