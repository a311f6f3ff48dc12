"""The report, in a real browser: nothing is requested, nothing of the data is markup, it fits a phone and paper."""

from __future__ import annotations

import base64
import inspect
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke import Config

from release_tasks import evidence_tasks, release
from release_tasks.checks.browser import launch_options, node_of_playwright
from release_tasks.evidence import report
from release_tasks.git import Git
from release_tasks.release import Release
from tests.evidence.attacks import Good

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>{{ 7 * 7 }}\u202egnp.exe&amp;"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TASKS = Path(__file__).parents[2] / "tasks.py"
LIVE = "done: it is or was live in production"
SIZES = {"phone": (390, 844), "desktop": (1200, 900)}
SECTIONS = ["Release", "Timeline", "Checks", "Database", "People", "Screens", "Proof"]
# WCAG 2.2, 1.4.3: the contrast of each text with what is behind it.
CONTRASTS = """() => {
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => parts(color).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { while (e && parts(getComputedStyle(e).backgroundColor)[3] === 0) e = e.parentElement;
    return getComputedStyle(e || document.body).backgroundColor };
  return [...document.body.querySelectorAll(':not(svg *)')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a))
    .map(([a, b]) => (a + 0.05) / (b + 0.05))
}"""


def record(event: str, **facts: Any) -> dict[str, Any]:
    return {"at": "2026-11-26T16:20:38.788+00:00", "event": event, "who": EVIL, "where": "host", **facts}


def step(event: str, section: str, name: str, state: str, seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    facts = {"section": section, "step": name, "state": state, "text": EVIL, "problems": [], "seconds": seconds}
    return record(event, **{**facts, **more})


RECORDS = [
    record("run", argv=["release", EVIL], git="git version 2", python="3.11"),
    *(step("checked", f"{number}. Section", EVIL, "planned") for number in range(2, 11)),
    step("step", "2. Section", EVIL, "done", 3),
    step("step", "3. Section", "freeze", "manual"),
    step("step", "8. Section", "A person confirms production", "changed"),
    step("step", "9. Section", "no seconds", "refused", 0, problems=[{"what": EVIL, "hint": EVIL}]),
    record("answer", section="3. Section", step="freeze", confirmed=True),
]
RESULT = {"name": EVIL, "outcome": "passed", "message": "", "hint": "", "observed": [EVIL, "a" * 300], "seconds": 0.1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the payload of a pack in which every text is hostile."""
    files = {
        "ids.json": json.dumps({"commit": EVIL, "tree": "b" * 64, "swhids": [EVIL]}),
        "checks/acceptance-staging.json": json.dumps({"where": EVIL, "results": [RESULT, {**RESULT, "outcome": EVIL}]}),
        "checks/withdrawn.json": json.dumps({EVIL: {EVIL: [EVIL, None]}, "left": []}),
        "checks/ddl-proof.json": json.dumps({"over": EVIL, "files": {EVIL: [EVIL]}, "passes": [EVIL]}),
        "ddl/ORDER.lock": f"{'c' * 64}  {EVIL}\n",
        "ddl/applied-staging.jsonl": json.dumps(
            {"file": EVIL, "applied_at": EVIL, "version": EVIL, "applied_by": EVIL}
        ),
        "HASHES.sha256.txt": f"{'d' * 64}  {EVIL}\n",
        "notes/v0.1.1.md": f"# {EVIL}\n</pre></details>{EVIL}",
        "keys/allowed_signers": EVIL,
    }
    for name, text in files.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text, encoding="utf-8")
    shot = tmp_path / "data/checks/acceptance-staging/deployed/a-test-x\"onerror='y/test-finished-1.png"
    shot.parent.mkdir(parents=True)
    shot.write_bytes(base64.b64decode(PIXEL))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    os.environ |= node_of_playwright()
    with sync_playwright() as playwright, playwright.chromium.launch(**launch_options()) as browser:
        yield browser


def opened(browser: Any, file: Path, size: str, scheme: str) -> Any:
    """Return `file` as a page, and see that it requests nothing, logs nothing, and fits."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    requests, said = list[str](), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.goto(file.as_uri(), wait_until="load")
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    assert [each for each in requests if not each.startswith("data:")] == [file.as_uri()]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_report_of_hostile_texts_shows_them_as_texts(
    data: Path, tmp_path: Path, browser: Any, size: str, scheme: str
) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(report.page(data, RECORDS, title=EVIL, tag="v0.1.1"))
    page = opened(browser, file, size, scheme)
    assert page.locator("script, iframe, object, link, [onerror], [onload], img[src=x]").count() == 0
    assert page.locator("h1").inner_text() == EVIL and page.locator("html[lang=en]").count() == 1
    assert page.locator("main > section").evaluate_all("them => them.map(it => it.id)") == SECTIONS
    for section in SECTIONS:
        assert page.locator(f"#{section} > h2").is_visible()
    links = page.locator("nav > a").evaluate_all("them => them.map(it => it.hash)")
    assert links == [f"#{section}" for section in SECTIONS[1:]]
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("#Timeline rect").count() == 13
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50 and min(contrasts) >= 4.5
    page.close()


def test_a_report_prints_all_of_it_in_light_colours_to_pdf(data: Path, tmp_path: Path, browser: Any) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(report.page(data, RECORDS, title="App", tag="v0.1.1"))
    page = browser.new_page(color_scheme="dark")
    page.goto(file.as_uri())
    assert page.pdf().startswith(b"%PDF-")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    closed = page.locator("details table").first  # nobody can open it on paper
    assert closed.evaluate("it => it.checkVisibility({contentVisibilityAuto: true}) && it.clientHeight > 0")
    page.close()


def test_the_picture_of_a_long_page_is_scaled_down_and_is_whole(data: Path, tmp_path: Path, browser: Any) -> None:
    page = browser.new_page()
    page.set_content("<div style='height: 9000px'>")
    next(data.glob("checks/**/*.png")).write_bytes(page.screenshot(full_page=True))
    file = tmp_path / "report.html"
    file.write_bytes(report.page(data, RECORDS, title="App", tag="v0.1.1"))
    page.goto(file.as_uri())
    image = page.locator("#Screens img")
    assert image.evaluate(
        "it => [it.naturalHeight > 9000, it.clientHeight <= 480, getComputedStyle(it).objectFit]"
    ) == [
        True,
        True,
        "contain",
    ]
    page.close()


def test_a_report_is_made_of_the_data_alone(data: Path) -> None:
    first = report.page(data, RECORDS, title="App", tag="v0.1.1")
    assert first == report.page(data, RECORDS, title="App", tag="v0.1.1")
    assert str(data).encode() not in first
    assert b"1 of 2 checks pass" in first
    for file in data.glob("checks/*.json"):
        file.unlink()
    assert b"No check was recorded here" in report.page(data, RECORDS, title="App", tag="v0.1.1")


def test_what_is_archived_later_confirms_nothing_and_does_not_prolong_the_release(data: Path) -> None:
    """Each later `inv archive` was one more confirmation of production, and the end of the release."""
    confirm, later = "A person confirms production", "2026-12-24T08:00:00.000+00:00"
    records = [
        record("run", argv=["release"]),
        step("step", "8. Deploy to Production", confirm, "done", text="--yes"),
        step("step", "10. Post-Release", "Push: the main branch has it, and the cycle is open", "changed"),
        record("run", argv=["archive"], at=later),
        step("step", "8. Deploy to Production", confirm, "done", text=LIVE, at=later),
        step("step", "9. Archive and Register Evidence Pack", "Copy", "changed", at=later),
    ]
    text = report.page(data, records, title="App", tag="v0.1.1").decode()
    assert text.count("--yes") == 2 and text.count(LIVE) == 1, "in the timeline, and the first by whom"
    assert LIVE in inspect.getsource(release) and "9. Archive and Register Evidence Pack" in TASKS.read_text()
    assert re.search(r"16:20:38</time> to <time [^>]*>2026-11-26 16:20:38</time> UTC", text)


def test_what_is_torn_is_named_and_holds_up_nothing(data: Path) -> None:
    (data / "checks" / "smokes-dev.json").write_text('{"results": [')
    (data / "checks" / "list.json").write_text('["a", {"b": null}]')
    (data / "ddl" / "applied-staging.jsonl").write_text('{"file": "a.sql"}\n{"file"')
    text = report.page(data, [], title="App", tag="v0.1.1").decode()
    assert "checks/smokes-dev.json" in text and "checks/list.json" in text and "a.sql" in text


def test_bars_follow_each_other_and_fill_the_line() -> None:
    found = report.lanes([*RECORDS, {"event": "step", "step": "torn"}])
    bars = sorted((bar["x"], bar["width"]) for lane in found.values() for bar in lane)
    assert list(found) == [f"{number}. Section" for number in range(2, 11)]
    assert bars[0][0] == 0 and sum(bars[-1]) == pytest.approx(100)
    assert report.lanes([step("step", "2. Section", "quick", "done", 0)])["2. Section"][0]["width"] == 0


def config_of(release: Release) -> Any:
    settings = {"app": "app", "branch": "", "evidence": {"places": ["/mnt/vault"]}}
    config = Config(overrides={"release": settings})
    vars(config)["_project_prefix"] = str(release.root)
    return config


def test_a_report_is_written_before_there_is_a_pack_and_then_of_that(
    tagged: Release, good: Good, capsys: pytest.CaptureFixture[str], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Git, "remote_refs", property(lambda _: pytest.fail("a report needs no remote")))
    evidence_tasks.write_report(config_of(tagged), "0.1.1")
    assert capsys.readouterr().out == ".release/v0.1.1/report.html\n"
    file, packed = tagged.folder / "report.html", tagged.folder / "evidence"
    opened(browser, file, "phone", "light").close()
    text, commit = file.read_text(encoding="utf-8"), tagged.git.commit_named(tagged.tag_ref)
    assert "not in production yet" in text and str(commit) in text
    packed.symlink_to(good.folder)
    try:
        evidence_tasks.write_report(config_of(tagged), "0.1.1")
    finally:
        packed.unlink()
    text = file.read_text(encoding="utf-8")
    file.unlink()
    assert "swh:1:rel:" in text and "not in production yet" not in text
