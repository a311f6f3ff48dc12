"""No request is lost while the traffic moves, as far as a short run shows; `nox -s load` is the long one."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from release_tasks.deploy.host import Host
from tests.deploy import load


@pytest.mark.parametrize("kind", [Host, load.Killing], ids=["drained", "killed"])
def test_no_request_is_lost_in_two_flips(kind: type[Host]) -> None:
    found = load.measure(kind, flips=2, requests=1_000)
    assert found.sent >= 1_000 and len(found.answers) == found.sent and found.lost == {}
    assert {version for _, version in found.answers} == set(load.VERSIONS) and found.gap < load.ANSWER
    assert f"{found.sent:,} requests, 0 failed; 2 flips" in ElementTree.fromstring(load.drawn(found)).findtext("*", "")
