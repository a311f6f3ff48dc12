"""The machine's browser is found, or what it lacks is said in one sentence; nothing of it is left behind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from release_tasks import node
from release_tasks.checks import Inconclusive, Target, browser, runner
from release_tasks.outcome import INCONCLUSIVE
from tests.test_process import alive, until

# What was said on a bare Debian 12, in a container where nobody but root may make namespaces.
NO_SANDBOX = "No usable sandbox! If this is a Debian system, please install the chromium-sandbox package"
NO_LIBATOMIC = "node: error while loading shared libraries: libatomic.so.1: cannot open shared object file"
VIEWS = """
import pytest

@pytest.mark.wait(60)
@pytest.mark.parametrize("path", ["/", "/coins"])
def test_views(view, path):
    view(path)
"""


def program(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder that is all of PATH; Playwright has no browser of its own."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.delenv("BROWSER_BIN", raising=False)
    return tmp_path / "bin"


def test_the_one_that_is_named_comes_first_then_those_on_the_path_then_playwrights(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert browser.launch_options()["executable_path"] is None
    monkeypatch.setattr(browser, "USUAL", (program(alone.parent / "Google Chrome"),))
    assert browser.launch_options()["executable_path"] == str(alone.parent / "Google Chrome")
    for name in reversed(browser.NAMES):
        there = program(alone / name)
        assert browser.launch_options()["executable_path"] == there
    monkeypatch.setenv("BROWSER_BIN", program(alone.parent / "mine"))
    assert browser.launch_options()["executable_path"] == str(alone.parent / "mine")


def test_no_browser_says_how_to_get_one(alone: Path) -> None:
    with pytest.raises(Inconclusive, match="Executable doesn't exist") as no:
        browser.start_once()
    assert all(way in no.value.problems[0].hint for way in ("playwright install chromium", "BROWSER_BIN"))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("gone", "The browser does not start: "),
        ("lacks", "The browser does not start: cannot open libnss3.so"),
        ("ends", "The browser does not start: "),
        ("boxed", "No usable sandbox!"),
    ],
)
def test_a_browser_that_does_not_work_is_said_in_one_sentence(
    alone: Path, monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    """M4."""
    program(alone.parent / "lacks", "echo 'cannot open libnss3.so' >&2; exit 127")
    program(alone.parent / "ends")
    program(alone.parent / "boxed", f"echo '[1:ERROR:zygote_host_impl_linux.cc] {NO_SANDBOX}' >&2; exit 1")
    monkeypatch.setenv("BROWSER_BIN", str(alone.parent / named))
    with pytest.raises(Inconclusive) as no:
        browser.start_once()
    message, hint = str(no.value), no.value.problems[0].hint
    assert said in message and "\n" not in message
    assert "sudo apt-get install chromium-sandbox " in hint if named == "boxed" else "BROWSER_BIN" in hint
    assert "--no-sandbox" not in message + hint


def test_a_browser_that_never_starts_is_tried_once_for_all_views(
    alone: Path, target: Callable[..., Target], tmp_path: Path
) -> None:
    """M4: it was tried 37 times, for 60 s."""
    program(alone / browser.NAMES[0], f"echo >> {tmp_path}/tried; echo '{NO_SANDBOX}' >&2; exit 1")
    (tmp_path / "test_views.py").write_text(VIEWS)
    results = runner.run(target(), [tmp_path / "test_views.py"], tmp_path / "kept")
    assert [each.outcome for each in results] == [INCONCLUSIVE] * 2
    assert len((tmp_path / "tried").read_text().splitlines()) == 1


def test_a_node_of_playwright_that_does_not_start_is_a_sentence_below_the_loader_s_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """M3."""
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", program(tmp_path / "node", f"echo '{NO_LIBATOMIC}' >&2; exit 127"))
    with pytest.raises(Inconclusive, match=r"The browser does not start: Connection closed") as no:
        browser.start_once()
    assert "libatomic" in capfd.readouterr().err and "\n" not in str(no.value)


def test_playwright_runs_on_the_wheels_node_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """M3: its own needs libatomic.so.1, which a bare Debian 12 lacks."""
    monkeypatch.delenv("PLAYWRIGHT_NODEJS_PATH", raising=False)
    assert browser.node_of_playwright() == {"PLAYWRIGHT_NODEJS_PATH": str(node.wheel_node())}
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", "/usr/bin/node")
    assert browser.node_of_playwright() == {"PLAYWRIGHT_NODEJS_PATH": "/usr/bin/node"}


def test_a_browser_that_works_is_named_with_its_version() -> None:
    assert re.fullmatch(r".+, \d+(\.\d+)+", browser.start_once())


def test_the_sandbox_is_off_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for user, sandbox in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert browser.launch_options()["chromium_sandbox"] is sandbox


@pytest.mark.parametrize(
    "ending", ["pass", "__import__('os')._exit(1)", "__import__('os').kill(__import__('os').getpid(), 9)"]
)
def test_nothing_of_it_is_left_when_the_process_ends(
    target: Callable[..., Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    real = shutil.which(browser.launch_options()["executable_path"] or "")
    mine = program(tmp_path / "browser", f'echo $$ > {tmp_path}/pid; exec {real} "$@"')
    monkeypatch.setenv("BROWSER_BIN", mine)
    (tmp_path / "test_views.py").write_text(f"def test_a(page):\n    {ending}\n")
    runner.run(target(), [tmp_path / "test_views.py"], tmp_path / "kept")
    assert until(lambda: not alive(int((tmp_path / "pid").read_text())))
