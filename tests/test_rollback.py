"""What a rollback goes to."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks import rollback
from release_tasks.errors import Refused
from release_tasks.git import Git
from release_tasks.rollback import _target, _warnings
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Work


def well(tag: str) -> str:
    return ""


RELEASES = {"v0.1.1": {"before": "before", "since": "now"}, "before": {"since": "earlier"}}


def env(releases: dict[str, Any], current: str) -> Any:
    hosts = SimpleNamespace(releases=lambda: releases, tag=lambda: current)
    hosts.live, hosts.status = lambda: {current: ""}, dict
    return SimpleNamespace(name="production", hosts=hosts, settings=Settings(), last_stamp=lambda: None)


def test_what_is_no_release_is_not_gone_back_to() -> None:
    """A rehearsal's first code has no version: a rollback to it could not be stamped, and had moved the traffic."""
    with pytest.raises(
        Refused, match=r"What was live before in production is no release in place\. In place are: 0\.1\.1\."
    ):
        _target(env(RELEASES, "v0.1.1"), None, well)


def test_a_host_that_lacks_what_the_others_have_is_named() -> None:
    """A host that had joined hid what was live on all others."""
    two = env({}, "v0.1.1")
    two.hosts.status = lambda: {"h1": SimpleNamespace(releases=RELEASES), "h2": SimpleNamespace(releases={})}
    with pytest.raises(Refused, match=r"0\.1\.1 was never live .* In place are: none\. h2 lacks before, v0\.1\.1\."):
        _target(two, "0.1.1", well)


def test_by_default_it_is_what_was_live_before_the_newest() -> None:
    releases = {"v0.1.2": {"before": "v0.1.1", "since": "tomorrow"}, **RELEASES}
    assert _target(env(releases, "v0.1.1"), None, well) == ("v0.1.1", "In place are: 0.1.2, 0.1.1.")


def test_after_a_hotfix_of_an_older_line_it_is_what_was_live_before_what_is() -> None:
    """It was what was live before the release that was placed last: the one without the fix."""
    placed = {"v0.2.1": ("v0.2.0", "3"), "v0.3.0": ("v0.2.1", "4"), "v0.2.0": ("v0.3.0", "2")}
    releases = {tag: {"before": before, "since": since} for tag, (before, since) in placed.items()}
    assert _target(env(releases, "v0.3.0"), None, well)[0] == "v0.2.1"
    assert _target(env(releases, "v0.3.0"), "v0.2.0", well)[0] == "v0.2.0", "a tag is as good as a version"
    releases = {"v0.3.1": {"before": "v0.3.0", "since": "5"}, "v0.2.2": {"before": "v0.2.1"}, **releases}
    assert _target(env(releases, "v0.3.1"), None, well)[0] == "v0.3.0", "0.2.2 had failed, and is not the newest"


def test_the_same_rollback_once_more_stays_where_it_went() -> None:
    """By default it went one release further on than `--to` had gone."""
    placed = {"v0.1.2": ("v0.1.1", "2"), "v0.1.1": ("v0.1.0", "1"), "v0.1.0": ("v0.1.2", "3")}
    releases = {tag: {"before": before, "since": since} for tag, (before, since) in placed.items()}
    assert _target(env(releases, "v0.1.0"), None, well)[0] == "v0.1.0"


def test_a_rollback_past_a_switch_that_failed_stays_where_it_went() -> None:
    """Once more it went forward, to the release that was just left."""
    releases = {"v0.1.2": {"before": "v0.1.1"}, "v0.1.1": {"before": "v0.1.0", "since": "2"}}
    releases["v0.1.0"] = {"before": "v0.1.1", "since": "5"}
    assert _target(env(releases, "v0.1.0"), None, well)[0] == "v0.1.0"
    assert _target(env(releases, "v0.1.2"), None, well)[0] == "v0.1.1", "the switch is still under way"


def test_where_no_release_says_what_was_before_a_person_does() -> None:
    """It said that there was nothing to go back to, and listed what there was."""
    with pytest.raises(Refused, match=r"is no release in place\. In place are: 0\.1\.1, 0\.1\.0\.") as refused:
        _target(env({"v0.1.1": {"since": "now"}, "v0.1.0": {"since": "earlier"}}, "v0.1.1"), None, well)
    assert refused.value.problems[0].hint.endswith("--to VERSION")


@pytest.mark.parametrize(
    "newest, stamp, to",
    [
        ({}, "0.1.2", "v0.1.1"),  # stamped, and refused before its switch
        ({}, "0.1.1", "v0.1.0"),  # placed alone, or stamped again meanwhile
        ({"before": "v0.1.1"}, "0.1.2", "v0.1.1"),  # its switch failed
        ({"before": "v0.1.1", "since": "tomorrow"}, "0.1.2", "v0.1.1"),
        ({"since": "by another clone"}, "0.1.2", "v0.1.0"),
    ],
)
def test_what_was_stamped_and_was_never_live_is_taken_back_to_what_is(
    newest: dict[str, str], stamp: str, to: str
) -> None:
    """Users got the release before the one that was live and well."""
    older = {"v0.1.1": {"before": "v0.1.0", "since": "now"}, "v0.1.0": {"before": "", "since": "earlier"}}
    here = env({"v0.1.2": newest, **older}, "v0.1.2" if "since" in newest else "v0.1.1")
    here.last_stamp = lambda: (stamp, None)
    assert _target(here, None, well)[0] == to


def test_a_withdrawn_release_is_gone_back_to_only_by_its_name() -> None:
    """It was the default, also with --yes: staging got the release that nobody could order with."""
    older = {"v0.1.1": {"before": "v0.1.0", "since": "now"}, "v0.1.0": {"before": "", "since": "earlier"}}
    here = env({"v0.1.2": {"before": "v0.1.1", "since": "tomorrow"}, **older}, "v0.1.2")
    with pytest.raises(Refused, match=r"v0\.1\.1 was live before, but: Withdrawn\. In place are: ") as refused:
        _target(here, None, lambda _: "Withdrawn.")
    assert refused.value.problems[0].hint.endswith("--to VERSION")
    assert _target(here, "0.1.1", lambda _: "Withdrawn.")[0] == "v0.1.1"


def test_a_withdrawn_release_is_gone_back_to_with_a_word_and_without_the_remote(work: Work) -> None:
    """It is the default after a newer release, and the question said nothing of the withdrawal."""
    notes = "# App 0.1.1\n\n> Withdrawn on 2026-11-27 by A Captain: it lost rows.\n"
    work.commit({"docs/releases/v0.1.1.md": notes})
    work.git("push", "--quiet", "origin", "HEAD:main")
    work.git("fetch", "--quiet", "origin")
    work.git("remote", "set-url", "origin", str(work.root / "gone"))
    git = Git.open(work.root, "origin")
    warned, *_ = _warnings(env({"v0.1.2": {}}, "v0.1.2"), git, "v0.1.1", "")
    assert warned == "v0.1.1: Withdrawn on 2026-11-27 by A Captain: it lost rows."


def test_it_is_chosen_of_what_is_live_once_nobody_else_changes_that(
    work: Work, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release that ended between the choice and the lock was gone back over, to what was before the one before."""
    releases = {"v0.1.1": {"before": "v0.1.0", "since": "now"}, "v0.1.0": {"before": "", "since": "earlier"}}
    here = env(releases, "v0.1.1")

    def hold(version: str) -> None:
        releases.update({"v0.1.2": {"before": "v0.1.1", "since": "tomorrow"}, "v0.1.1": releases.pop("v0.1.1")})

    here.root, here.lock = work.root, SimpleNamespace(hold=hold)
    here.hosts.releases = lambda: dict(sorted(releases.items(), reverse=True))
    here.is_embedded, here.runs = False, lambda version: version == "0.1.1"
    monkeypatch.setattr(rollback.embedded, "environment_of", lambda *_: nullcontext(here))
    rollback.roll_back(SimpleNamespace(run=SimpleNamespace(dry=False)), "production", None, yes=True)
    assert capsys.readouterr().out.startswith("Production runs 0.1.1 already")


def test_the_traffic_stays_where_the_code_of_the_stamp_is_not_here_and_moves_though_the_stamp_fails(
    work: Work, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traffic had moved, git's own error followed, and no command stamped it any more."""
    switched, commits = list[str](), {"": "f" * 40, "v0.1.1": "0" * 40}

    def stamp(version: str, code: object = None) -> None:
        raise Refused("The stamp's program is away.")

    here = env({"v0.1.2": {"before": "v0.1.1", "since": "tomorrow"}, **RELEASES}, "v0.1.2")
    here.settings = Settings.model_validate({"stamp": {"command": ["stamp"]}})
    here.hosts.facts, here.hosts.switch = lambda tag: {"commit": commits[tag]}, switched.append
    here.root, here.origin, here.is_embedded, here.to_close = work.root, "http://127.0.0.1:1", False, []
    held = [False, False, True, False, False]
    here.lock, here.last_stamp = SimpleNamespace(hold=lambda version: held.pop(0)), lambda: None
    here.runs = lambda version: False
    here.stamp, here.install = stamp, lambda code: None
    here.connect = partial(stamp, "")
    monkeypatch.setattr(rollback.embedded, "environment_of", lambda *_: nullcontext(here))
    config = SimpleNamespace(run=SimpleNamespace(dry=False))
    with pytest.raises(Refused, match=r"The commit 000000000 of v0\.1\.1 is not here") as refused:
        rollback.roll_back(config, "production", None, yes=True)
    assert refused.value.problems[0].hint == "git fetch origin tag v0.1.1" and switched == []
    commits["v0.1.1"] = work.git("rev-parse", "HEAD").strip()
    with pytest.raises(Refused, match=r"The stamp's program is away\."):
        rollback.roll_back(config, "production", None, yes=True)
    assert switched == ["v0.1.1"] and "Production runs 0.1.1." in capsys.readouterr().out
    with pytest.raises(Refused, match=r"The lock of production was lost meanwhile"):  # as a laptop slept
        rollback.roll_back(config, "production", None, yes=True)
    assert switched == ["v0.1.1"] and not held
