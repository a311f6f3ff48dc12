"""Kamal and kubectl as docs/DEPLOYING.md shows them, against a stand-in that writes down what it is called with."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from release_tasks.deploy.hosts import Hosts
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Web

STAND_IN = Path(__file__).with_name("stand_in.py")
COMMITS = {"0.1.1": "a" * 40, "0.1.2": "b" * 40}
KAMAL = {
    "deploy": ["kamal", "deploy", "--version", "{commit}"],
    "running": ["kamal", "app", "version", "--quiet"],
    "rollback": ["kamal", "rollback", "{commit}"],
}
KUBECTL = {
    "image": "registry.example/app:{version}",
    "deploy": ["kubectl", "set", "image", "deployment/web", "web={image}"],
    "running": ["kubectl", "get", "deployment/web", "--output", "jsonpath={.spec.template.spec.containers[0].image}"],
}


@pytest.fixture
def hosts_of(tmp_path: Path, web: Web) -> Callable[[dict[str, Any]], Hosts]:
    """Return what makes the hosts of production, which a stand-in for the tool deploys to."""

    def hosts_of(tool: dict[str, Any]) -> Hosts:
        begin = [sys.executable, str(STAND_IN), str(tmp_path)]
        own = {key: value if key == "image" else [*begin, *value] for key, value in tool.items()}
        about = {"dsn": "dbname=none", "origin": web.origin, "log": "none", "tool": own}
        settings = Settings.model_validate({"environments": {"production": about}, "acceptance": {"wait": 1}})
        return Environment("production", settings, tmp_path, "dbname=none", web.origin, tmp_path, None).hosts

    return hosts_of


def release(hosts: Hosts, version: str, web: Web) -> None:
    facts = {"commit": COMMITS[version], "version": version, "began_unix": int(version[-1])}
    hosts.place(f"v{version}", facts, STAND_IN)
    web.be(version)
    hosts.switch(f"v{version}")
    assert hosts.is_live(f"v{version}", version) and hosts.tag() == f"v{version}"


def calls(folder: Path) -> list[str]:
    """Return what changed something, once each in a row."""
    words = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [" ".join(each) for each in words if each[1] not in ("app", "get")]


def test_kamal_deploys_and_rolls_back_by_commit(hosts_of: Any, tmp_path: Path, web: Web) -> None:
    hosts = hosts_of(KAMAL)
    assert hosts.tag() == "" and not hosts.is_here
    for version in ("0.1.1", "0.1.2"):
        release(hosts, version, web)
    web.be("0.1.1")
    hosts.switch("v0.1.1")
    assert calls(tmp_path) == [
        f"kamal deploy --version {COMMITS['0.1.1']}",
        f"kamal deploy --version {COMMITS['0.1.2']}",
        f"kamal rollback {COMMITS['0.1.1']}",
    ]


def test_kubectl_deploys_and_rolls_back_by_image(hosts_of: Any, tmp_path: Path, web: Web) -> None:
    hosts = hosts_of(KUBECTL)
    for version in ("0.1.1", "0.1.2"):
        release(hosts, version, web)
    web.be("0.1.1")
    hosts.switch("v0.1.1")
    images = [f"kubectl set image deployment/web web=registry.example/app:{each}" for each in ("0.1.1", "0.1.2")]
    assert calls(tmp_path) == [*images, images[0]]


def test_another_clone_lets_the_tool_deploy_nothing_again(hosts_of: Any, tmp_path: Path, web: Web) -> None:
    """Its facts are in the clone that deployed, which may be lost."""
    release(hosts_of(KAMAL), "0.1.1", web)
    shutil.rmtree(tmp_path / ".release")
    release(hosts_of(KAMAL), "0.1.1", web)
    assert calls(tmp_path) == [f"kamal deploy --version {COMMITS['0.1.1']}"]


def test_a_release_that_does_not_answer_is_rolled_back_by_the_tool(hosts_of: Any, tmp_path: Path, web: Web) -> None:
    hosts = hosts_of(KAMAL)
    release(hosts, "0.1.1", web)
    facts = {"commit": COMMITS["0.1.2"], "version": "0.1.2", "began_unix": 2}
    hosts.place("v0.1.2", facts, STAND_IN)
    with pytest.raises(
        Refused, match=r"v0\.1\.2 was deployed, and does not run within 1 s; running: b+; http.* answers 200"
    ):
        hosts.switch("v0.1.2")
    assert hosts.is_live("v0.1.1", "0.1.1")
    assert calls(tmp_path)[-1] == f"kamal rollback {COMMITS['0.1.1']}"


def test_a_tool_that_fails_is_shown_with_what_it_said(hosts_of: Any, tmp_path: Path, web: Web) -> None:
    hosts = hosts_of(KAMAL)
    (tmp_path / "broken").touch()
    with pytest.raises(Refused, match="the registry does not answer"):
        hosts.tag()
