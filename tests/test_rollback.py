"""What a rollback goes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from release_tasks.errors import Refused
from release_tasks.rollback import _target
from release_tasks.settings import Settings

RELEASES = {"v0.1.1": {"before": "before", "since": "now"}, "before": {"since": "earlier"}}


def env(releases: dict[str, Any], current: str) -> Any:
    hosts = SimpleNamespace(releases=lambda: releases, tag=lambda: current)
    return SimpleNamespace(name="production", hosts=hosts, settings=Settings())


def test_what_is_no_release_is_not_gone_back_to() -> None:
    """A rehearsal's first code has no version: a rollback to it could not be stamped, and had moved the traffic."""
    with pytest.raises(Refused, match=r"Go back to which\? In place are: 0\.1\.1\."):
        _target(env(RELEASES, "v0.1.1"), None)


def test_by_default_it_is_what_had_the_traffic_before_the_newest() -> None:
    releases = {"v0.1.2": {"before": "v0.1.1", "since": "later"}, **RELEASES}
    assert _target(env(releases, "v0.1.1"), None) == ("v0.1.1", "In place are: 0.1.2, 0.1.1.")
