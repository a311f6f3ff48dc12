"""A view that lies is caught in a real browser; one that is well passes, and nothing hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from release_tasks import asking
from release_tasks.checks.page import safe
from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import FAIL, PASS, UNKNOWN, Result
from release_tasks.checks.watch import address
from release_tasks.kinds import Page

Look = Callable[..., Result]
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


@pytest.fixture
def see(look: Look, place: Callable[..., Place], site: Site) -> Callable[..., Result]:
    """Return what looks at pages of the site: `see(path, wait=0, **what the check is told)`."""

    def see(path: str | list[str], wait: float = 0.0, origin: str = "", **told: Any) -> Result:
        check = Page(path=path, **{"timeout": 60, "interval": 0.05, **told})
        return look(check, place(origin=origin or site.origin), wait)

    return see


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (["/well", "/pictures", "/others", "/aborts", "/later", "/stream", "/well?tab=prices#top"], {}),
        ("/second", {"selector": ".x"}),
        ("/gone", {"status": 404, "selector": "body"}),
        ("/box", {"error_words": ""}),
    ],
)
def test_healthy_pages_pass_before_their_time_is_over(
    see: Callable[..., Result], path: str | list[str], told: dict[str, Any]
) -> None:
    result = see(path, timeout=LONG, **told)
    assert (result.verdict, result.said) == (PASS, ())
    assert all(view["seconds"] < LONG for view in result.seen["views"])


LIES = {
    "/box": "/box shows what it must not, ",
    "/titled": "/titled shows what it must not, ",
    "/framed": "/framed shows what it must not, ",
    "/blank": "/blank has a picture that cannot be drawn: {origin}/well",
    "/throws": "/throws throws Cannot read properties of undefined (reading 'prices')",
    "/throws-and-empty": "/throws-and-empty does not show main: there is none.",
    "/rejects": "/rejects throws no prices",
    "/no-image": "/no-image asks for {origin}/gone.png, and gets status 404.",
    "/no-script": "/no-script asks for {origin}/gone.js, and gets status 404.",
    "/no-data": "/no-data asks for {origin}/broken, and gets status 500.",
    "/late-data": "/late-data asks for {origin}/broken?late, and gets status 500.",
    "/reset": "/reset asks for {origin}/hangs-up, which fails: net::ERR_EMPTY_RESPONSE",
    "/logs": "/logs logs an error: cannot draw 42",
    "/broken": "/broken answered with status 500, expected 200.",
    "/hangs-up": "/hangs-up gives no page: Page.goto: net::ERR_EMPTY_RESPONSE",
}
LOGINS = {
    "/redirects": "is redirected to {origin}/login?next=/redirects, a login page; expected the page itself.",
    "/off": "/off is redirected to http://localhost:{port}/login?next=/redirects, a login page; expected",
    "/moves": "/moves goes on to {origin}/login, a login page; expected that it stays.",
}


@pytest.mark.parametrize(("pages", "mend"), [(LIES, False), (LOGINS, True)], ids=["lies", "logins"])
def test_a_page_that_lies_fails_at_once(
    see: Callable[..., Result], site: Site, pages: dict[str, str], mend: bool
) -> None:
    result = see(list(pages), timeout=LONG)
    assert result.verdict == FAIL
    expected = [told.format(origin=site.origin, port=site.server_port) for told in pages.values()]
    assert [told for told in expected if told not in " ".join(result.said)] == []
    assert all(view["seconds"] < LONG for view in result.seen["views"])
    assert ("cookies" in result.mend) == mend


def test_a_page_may_be_watched_on_for_what_a_timer_does(see: Callable[..., Result]) -> None:
    assert see("/later-box").verdict == PASS
    result = see("/later-box", stay=8)
    assert result.verdict == FAIL and "Bad Gateway" in result.words


def test_words_of_our_own_come_beside_those_of_usual_error_boxes(see: Callable[..., Result]) -> None:
    assert see("/box", must_not_show=["Traceback"]).verdict == FAIL
    assert "All is well" in see("/box", must_not_show=["All is well"], error_words="").words


def test_pages_that_never_come_about_fail_at_their_time(see: Callable[..., Result], site: Site) -> None:
    result = see(["/hidden", "/none", "/silent", "/slow-image"], timeout=8)
    assert (result.verdict, result.said) == (
        FAIL,
        (
            "/hidden does not show main within 8 s: it is there, but hidden.",
            "/none does not show main within 8 s: there is none.",
            "/silent did not answer within 8 s.",
            f"/slow-image is not loaded after 8 s: {site.origin}/silent.",
        ),
    )


def test_a_page_that_is_too_busy_to_be_looked_at_fails_at_its_time(
    see: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("release_tasks.checks.page.GRACE", 1.0)
    result = see("/busy", timeout=3)
    assert result.said == ("/busy keeps its page so busy that it could not be looked at to its end.",)
    assert result.verdict == FAIL


def test_a_first_hit_that_fails_gets_well_within_its_wait(see: Callable[..., Result], site: Site) -> None:
    site.sick = 1
    result = see("/first", wait=60)
    assert (result.verdict, result.attempts) == (PASS, 2)


def test_a_private_page_needs_its_cookie_or_header(see: Callable[..., Result], site: Site) -> None:
    assert "status 401" in see("/private").words
    assert see("/private", cookies={"session": "s3cret"}).verdict == PASS
    assert see("/private", headers={"X-Key": "k3y-of-ours"}).verdict == PASS
    assert "s3cret" not in see("/private", cookies={"session": "s3cret"}).seen["request"][0]


def test_headers_and_cookies_go_to_no_other_origin(see: Callable[..., Result], site: Site) -> None:
    sent = {"headers": {"X-Key": "k3y-of-ours"}, "cookies": {"session": "s3cret"}}
    see("/off", **sent)
    see("/others", **sent)
    own = [headers for _, headers in site.heard if headers["Host"].startswith("127")]
    others = [headers for _, headers in site.heard if headers["Host"].startswith("localhost")]
    assert own and all(each["X-Key"] and each["Cookie"] for each in own)
    assert others and not any(each["X-Key"] or each["Cookie"] for each in others)


def test_nothing_but_the_page_and_its_parts_is_asked_for(see: Callable[..., Result], site: Site) -> None:
    see("/well")
    assert [path for path, _ in site.heard] == ["/well", "/pixel.gif"]


def test_each_view_viewport_and_mode_is_looked_at_and_pictured(see: Callable[..., Result], tmp_path: Path) -> None:
    result = see(["/well", "/dark"], viewports=[(800, 600), (390, 844)], dark=True)
    assert result.said == tuple(f"/dark at {size} in dark mode throws dark" for size in ("800x600", "390x844"))
    assert result.seen["rows"] == list(result.said) and len(result.seen["views"]) == 8
    kept = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(kept) == 8 and "a-check-1-well-390x844-dark.png" in kept
    assert (tmp_path / kept[0]).read_bytes().startswith(b"\x89PNG")


def test_one_page_is_pictured_under_the_name_of_its_check(see: Callable[..., Result], tmp_path: Path) -> None:
    assert "1 view in" in see("/well").seen["in_words"]
    assert [path.name for path in tmp_path.glob("*.png")] == ["a-check-1280x800.png"]


def test_one_view_that_is_silent_does_not_keep_the_others_from_being_judged(see: Callable[..., Result]) -> None:
    result = see(["/silent", "/well", "/broken"], timeout=8)
    assert result.said == (
        "/silent did not answer within 8 s.",
        "/broken answered with status 500, expected 200.",
    )


def test_a_view_that_waits_for_those_that_hang_has_its_whole_time_left(see: Callable[..., Result]) -> None:
    silent = ["/silent", "/silent?2", "/silent?3", "/silent?4"]
    result = see([*silent, "/well", "/broken"], timeout=6)
    assert result.said == (
        *(f"{path} did not answer within 6 s." for path in silent),
        "/broken answered with status 500, expected 200.",
    )


def test_a_redirect_is_told_though_where_it_leads_never_answers(see: Callable[..., Result], site: Site) -> None:
    result = see("/redirects-to-silence", timeout=LONG)
    assert result.said == (f"/redirects-to-silence is redirected to {site.origin}/silent; expected the page itself.",)
    assert result.seen["views"][0]["seconds"] < LONG


def test_nobody_at_origin_is_unknown(see: Callable[..., Result]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
        origin = f"http://127.0.0.1:{gone.server_port}"
    result = see("/well", origin=origin)
    assert (result.verdict, result.said) == (UNKNOWN, (f"{origin}/well could not be reached: ERR_CONNECTION_REFUSED.",))


def test_a_selector_that_is_none_is_unknown_at_once(see: Callable[..., Result]) -> None:
    result = see("/well", selector="main[", wait=5)
    assert (result.verdict, result.attempts) == (UNKNOWN, 1) and "'main[' cannot be looked for" in result.words


def test_addresses_differ_by_routes_but_not_by_anchors() -> None:
    assert address("http://a/b?c#top") == address("http://a/b?c")
    assert address("http://a/#/views") != address("http://a/#/login")
    assert address("http://a/b?c") != address("http://a/b")


def test_names_of_files_are_safe() -> None:
    assert safe("views: /a/../b\\c d") == "views-a-..-b-c-d"
    assert (safe("/"), safe("/sampling")) == ("root", "sampling")


OWN = """
import pytest

def test_well(page):
    assert page.goto("/well").ok
    assert page.locator("main").inner_text() == "All is well"

@pytest.mark.parametrize("path", ["/throws", "/logs", "/no-image", "/broken"])
def test_fails(page, path):
    page.goto(path)

def test_elsewhere(page):
    page.goto("http://localhost:9/well")

@pytest.mark.wait(60, interval=0.05)
def test_gets_well(page):
    assert page.goto("/first").ok
"""


def test_page_checks_and_tests_of_a_team_with_a_page_live_in_one_process(
    place: Callable[..., Place], site: Site, tmp_path: Path
) -> None:
    (tmp_path / "test_views.py").write_text(OWN)
    site.sick = 1
    asked = tuple(Asked(path[1:], "7.2", path, Page(path=path, timeout=LONG)) for path in ("/well", "/box"))
    found = {
        each.name: each for each in asking.ask(place(origin=site.origin, asked=asked), [tmp_path / "test_views.py"])
    }
    verdicts = {name: each.verdict for name, each in found.items()}
    failing = [f"views/test_fails[{path}]" for path in ("/throws", "/logs", "/no-image", "/broken")]
    passing = ["well", "views/test_well", "views/test_gets_well"]
    assert verdicts == dict.fromkeys(passing, PASS) | dict.fromkeys(["box", *failing], FAIL) | {
        "views/test_elsewhere": UNKNOWN
    }
    assert found[failing[0]].said == ("The page throws Cannot read properties of undefined (reading 'prices')",)
    assert found[failing[3]].said == (f"The page asks for {site.origin}/broken, and gets status 500.",)
    assert found["views/test_elsewhere"].said[0].startswith("http://localhost:9/well is off ORIGIN")
    assert found["views/test_well"].seen["requests"] == [f"GET {site.origin}/well → 200"]
    assert (tmp_path / found["views/test_well"].seen["screenshot"]).stat().st_size > 1000
    assert found["views/test_gets_well"].attempts == 2


def test_a_test_of_a_team_without_a_browser_is_unknown_and_says_how_to_get_one(
    place: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_BIN", str(tmp_path / "gone"))
    (tmp_path / "test_views.py").write_text("def test_a(page): pass\n")
    (result,) = asking.ask(place(), [tmp_path / "test_views.py"])
    assert result.verdict == UNKNOWN and "which is no program." in result.words and "apt-get" in result.mend
