"""A host keeps the old version or gets the new one whole, whatever goes wrong; the same call then finishes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import NGINX, Hosts, HostStatus
from release_tasks.errors import Refused
from release_tasks.machine import wait_until
from tests.deploy.servers import Server, facts, lives, put, tree, version_at


def running(server: Server, version: str = "0.1.1", **about: object) -> Hosts:
    """Return the host with a release that is live, behind nginx."""
    hosts = Hosts("production", server.behind_nginx(**about))
    put(hosts, version)
    hosts.switch(f"v{version}")
    assert server.version() == version
    return hosts


def look(hosts: Hosts) -> tuple[str, str, str]:
    """Return which release is live in which colour, and what answers."""
    (seen,) = hosts.status().values()
    return seen.tag, seen.colour, seen.answers[0]


def refusal(hosts: Hosts, tag: str = "v0.1.2") -> str:
    with pytest.raises(Refused) as refused:
        hosts.switch(tag)
    return str(refused.value)


# In place


def test_a_tree_with_another_hash_or_cut_short_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    hosts, file = Hosts("production", server.plain()), tree(tmp_path, "0.1.1")
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(Refused) as failed:
        hosts.host.place("v0.1.1", facts("0.1.1"), "0" * 64, str(file))
    assert str(failed.value) == (
        f"The tree arrived with the SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}; expected {'0' * 64}."
    )
    assert hosts.facts("v0.1.1") == {} and list((server.folder / "releases").iterdir()) == []
    put(hosts, "0.1.1")
    assert hosts.facts("v0.1.1")["version"] == "0.1.1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_gets_its_space_back(tmp_path: Path, small_disk: Path) -> None:
    server = Server(small_disk / "shop")
    hosts = Hosts("production", server.plain())
    put(hosts, "0.1.1", tmp_path)
    large = tree(tmp_path, "0.1.2", {"large": "x" * 400_000})
    full = rf"^Production: {small_disk}/\S+ cannot be used: No space left on device\.$"
    with pytest.raises(Refused, match=full) as refused:
        hosts.place("v0.1.2", facts("0.1.2"), large)
    assert refused.value.problems[0].hint == f"df -h {server.folder}; ls -ld {server.folder}"
    assert [each.name for each in (server.folder / "releases").iterdir() if each.is_dir()] == ["v0.1.1"]
    assert shutil.disk_usage(small_disk).free > 150_000
    put(hosts, "0.1.2", tmp_path)
    assert hosts.facts("v0.1.2")


def test_packages_are_installed_before_the_release_has_its_name(server: Server) -> None:
    refuses = ["sh", "-c", "pwd; echo No such package, CI=$CI; exit 7"]
    hosts = Hosts("production", server.plain(install=refuses, subfolder="web"))
    with pytest.raises(Refused, match="exit code 7") as refused:
        put(hosts, "0.1.1")
    assert ".v0.1.1.part/web\nNo such package, CI=1" in str(refused.value)
    assert hosts.facts("v0.1.1") == {}
    hosts.host.install = ["touch", "installed"]
    put(hosts, "0.1.1")
    assert (hosts.host.code_of("v0.1.1") / "web" / "installed").exists()


def test_a_release_in_place_is_not_unpacked_again_and_a_killed_attempt_is_removed(server: Server) -> None:
    hosts = Hosts("production", server.plain())
    put(hosts, "0.1.1")
    mark = hosts.host.code_of("v0.1.1") / "made-here"
    mark.touch()
    hosts.host.code_of(".v0.1.0.part").mkdir()
    hosts.host.place("v0.1.1", facts("0.1.1"), "0" * 64, "not even read")
    assert mark.exists()
    put(hosts, "0.1.2")
    assert not hosts.host.code_of(".v0.1.0.part").exists()


def test_a_tag_that_was_made_anew_is_put_in_place_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old commit was taken for it: "It was done, but it did not hold", for good."""
    hosts = Hosts("production", server.plain())
    put(hosts, "0.1.1")
    anew = {**facts("0.1.1"), "commit": "a" * 40}
    hosts.place("v0.1.1", anew, tree(server.folder, "0.1.1", {"anew": ""}))
    assert hosts.facts("v0.1.1")["commit"] == "a" * 40
    assert (hosts.host.code_of("v0.1.1") / "anew").exists()
    looks = {"h1": HostStatus(releases={"v0.1.1": anew}), "h2": HostStatus(releases={"v0.1.1": anew})}
    monkeypatch.setattr(hosts, "status", lambda: looks)
    assert hosts.releases() == {"v0.1.1": anew}
    looks["h2"].releases = {"v0.1.1": facts("0.1.1")}
    assert hosts.releases() == {}, "h2 still has the old commit"


def test_a_tag_that_was_made_anew_is_started_again_where_a_colour_ran_the_old_one(server: Server) -> None:
    """The old process answered as the same version: it went live, and was recorded as the new commit."""
    hosts = running(server)
    put(hosts, "0.1.2")
    with hosts.idle("v0.1.2"):
        old = server.pids()["green-web"]
    hosts.place("v0.1.2", {**facts("0.1.2"), "commit": "a" * 40}, tree(server.folder, "0.1.2", {"anew": ""}))
    hosts.switch("v0.1.2")
    assert look(hosts) == ("v0.1.2", "green", "0.1.2") and server.pids()["green-web"] != old


def test_a_live_tag_that_was_made_anew_is_started_in_the_other_colour(server: Server) -> None:
    hosts = running(server)
    old = server.pids()["blue-web"]
    hosts.place("v0.1.1", {**facts("0.1.1"), "commit": "a" * 40}, tree(server.folder, "0.1.1", {"anew": ""}))
    hosts.switch("v0.1.1")
    assert look(hosts) == ("v0.1.1", "green", "0.1.1") and old not in server.pids().values()


def test_what_is_live_without_colours_is_stopped_by_a_person_before_there_are_any(server: Server) -> None:
    """Its jobs ran beside those of the new colour."""
    hosts = Hosts("production", server.plain())
    put(hosts, "0.1.1")
    hosts.switch("v0.1.1")
    colours = {"blue": server.blue, "green": server.green}
    coloured = Hosts("production", server.plain(colours=colours, nginx=["true"]))
    with pytest.raises(Refused, match="has a release live without colours, in `current`") as refused:
        put(coloured, "0.1.2")
    assert f"mv {server.folder}/current {server.folder}/current.before" in refused.value.problems[0].hint
    assert not coloured.facts("v0.1.2")
    (server.folder / "current").rename(server.folder / "current.before")
    put(coloured, "0.1.2")
    assert coloured.facts("v0.1.2")
    (server.folder / "current.before").rename(server.folder / "current")
    coloured.host.write_traffic("v0.1.2", "blue")  # that is what is live now, and the link is only left
    put(coloured, "0.1.3")
    assert coloured.facts("v0.1.3")
    hosts.switch("v0.1.3")  # without colours once more, whose record is left now
    with pytest.raises(Refused, match="has a release live without colours, in `current`"):
        put(coloured, "0.1.4")


def test_others_can_read_a_release_whatever_the_umask(server: Server) -> None:
    server.behind_nginx()
    before = os.umask(0o077)
    try:
        hosts = running(server, install=["touch", "installed"])
    finally:
        os.umask(before)
    code = hosts.host.code_of("v0.1.1")
    paths = [code, code.parent, code.with_name("v0.1.1.json"), server.folder / "traffic.conf", *code.rglob("*")]
    assert {path.name for path in paths if not path.stat().st_mode & 0o004} == set()
    assert {path.name for path in paths if path.stat().st_mode & 0o022} == set()


def test_nginx_that_refuses_the_flip_itself_leaves_the_old_colour_live(server: Server) -> None:
    """The record named the new one, so that the old one was stopped, to which nginx still sent."""
    hosts = running(server)
    put(hosts, "0.1.2")
    nginx, broken = server.folder / "nginx-once", server.folder / "broken"
    real = " ".join(map(str, hosts.host.nginx))
    flips = f"grep -q 'v0.1.2 ' {server.folder}/traffic.conf"
    nginx.write_text(
        f'#!/bin/sh\n[ -e {broken} ] || {flips} && touch {broken}\n[ ! -e {broken} ] && exec {real} "$@"\n'
    )
    nginx.chmod(0o755)
    hosts.host.nginx = [str(nginx)]
    assert refusal(hosts).endswith("v0.1.1 is still live.")
    assert look(hosts) == ("v0.1.1", "blue", "0.1.1") and list(server.pids()) == ["blue-web"]


def test_nginx_that_refuses_its_configuration_is_known_before_anything_is_touched(server: Server) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")
    good = (server.folder / "nginx.conf").read_text()
    (server.folder / "nginx.conf").write_text(good + "by hand\n")
    with pytest.raises(Refused, match="unexpected end of file"):
        put(hosts, "0.1.3")
    said = refusal(hosts)
    assert "unexpected end of file" in said and said.endswith("v0.1.1 is still live.")
    assert (server.version(), list(server.pids())) == ("0.1.1", ["blue-web"])
    (server.folder / "nginx.conf").write_text(good)
    hosts.switch("v0.1.2")
    assert server.version() == "0.1.2"


# Which goes live


def test_the_next_release_is_started_idle_and_goes_live_in_the_other_colour(server: Server) -> None:
    hosts = running(server)
    assert look(hosts) == ("v0.1.1", "blue", "0.1.1")
    put(hosts, "0.1.2")
    with hosts.idle("v0.1.2") as origin:
        assert origin.endswith(str(server.green)) and server.version() == "0.1.1"
    with pytest.raises(KeyError), hosts.idle("v0.1.2"):
        raise KeyError("a smoke failed")
    assert list(server.pids()) == ["blue-web"]
    hosts.switch("v0.1.2")
    assert look(hosts) == ("v0.1.2", "green", "0.1.2")
    assert hosts.is_live("v0.1.2", "0.1.2") and not hosts.is_live("v0.1.1", "0.1.1")
    assert (list(server.pids()), hosts.facts("v0.1.2")["before"]) == (["green-web"], "v0.1.1")


def test_an_idle_colour_that_cannot_be_reached_is_stopped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")

    def tunnel(name: str, origin: str) -> None:
        raise Refused("ssh does not forward")

    monkeypatch.setattr(hosts, "tunnel", tunnel)
    with pytest.raises(Refused, match="ssh does not forward"), hosts.idle("v0.1.2"):
        raise AssertionError
    assert list(server.pids()) == ["blue-web"]
    server.fault("0.1.2", "mute")
    hosts.host.wait = 1
    with pytest.raises(Refused, match=r"v0\.1\.2 does not answer within 1 s"), hosts.idle("v0.1.2"):
        raise AssertionError
    assert list(server.pids()) == ["blue-web"]


def test_without_a_route_for_the_version_what_the_idle_colour_still_runs_is_not_taken_for_the_next(
    server: Server,
) -> None:
    """Whatever answered there was: it was never linked, and the switch was a KeyError."""
    hosts = running(server, version_path="")
    put(hosts, "0.1.2")
    hosts.switch("v0.1.2")
    hosts.host.call(hosts.host.restart, "blue", "web")  # 0.1.1, which nobody stopped
    assert hosts.host.answers("v0.1.1", f"http://127.0.0.1:{server.blue}", 5)
    put(hosts, "0.1.3")
    with hosts.idle("v0.1.3") as origin:
        assert version_at(origin) == "0.1.3"
    hosts.switch("v0.1.3")
    assert server.version() == "0.1.3" and look(hosts)[:2] == ("v0.1.3", "blue")


def test_a_switch_that_is_done_changes_nothing_and_one_that_no_longer_answers_is_done_again(server: Server) -> None:
    hosts = running(server)
    before = server.pids(), hosts.status()["this machine"].switches
    hosts.switch("v0.1.1")
    assert (server.pids(), hosts.status()["this machine"].switches) == before
    os.kill(server.pids()["blue-web"], 9)
    assert server.version().startswith("HTTPError 502")
    hosts.switch("v0.1.1")
    assert look(hosts) == ("v0.1.1", "blue", "0.1.1")


def test_without_colours_a_switch_is_a_restart_and_a_bad_one_goes_back(server: Server) -> None:
    hosts = Hosts("production", server.plain(services=["web", "jobs"]))
    for version in ("0.1.1", "0.1.2"):
        put(hosts, version)
        hosts.switch(f"v{version}")
        assert look(hosts) == (f"v{version}", "", version)
    server.fault("0.1.3", "unwell")
    put(hosts, "0.1.3")
    said = refusal(hosts, "v0.1.3")
    assert said.startswith("Production: v0.1.3 does not answer within 3 s: ") and "answers 503" in said
    assert said.endswith("It went back: v0.1.2 is live again.")
    assert (server.version(), sorted(server.pids())) == ("0.1.2", ["current-jobs", "current-web"])
    server.fault("0.1.3")
    hosts.switch("v0.1.3")
    assert hosts.is_live("v0.1.3", "0.1.3") and hosts.facts("v0.1.3")["before"] == "v0.1.2"
    os.kill(server.pids()["current-web"], 9)
    server.fault("0.1.3", "unwell")
    assert "\nv0.1.3 stays, as it is live." in refusal(hosts, "v0.1.3"), "it went back, each time by one more"
    assert hosts.tag() == "v0.1.3" and hosts.facts("v0.1.3")["before"] == "v0.1.2"
    assert not (server.folder / "two-at-once").exists()


def test_a_start_that_was_stopped_is_waited_for_by_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C the idle colour was to be stopped, which waited for its start."""
    hosts, called = running(server), list[str]()

    def call_all(names: object, verb: str, **_: object) -> object:
        called.append(verb)
        raise KeyboardInterrupt

    monkeypatch.setattr(hosts, "call_all", call_all)
    with pytest.raises(KeyboardInterrupt), hosts.idle("v0.1.2"):
        pass
    assert called == ["start"]


def test_what_is_live_is_of_the_first_host_that_has_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose facts were torn hid the commit, and the smokes on a restored backup passed without running."""
    hosts = running(server)
    whole = HostStatus("v0.1.1", releases={"v0.1.1": {"commit": "c0ffee"}})
    monkeypatch.setattr(hosts, "status", lambda: {"h1": whole, "h2": HostStatus("v0.1.1")})
    assert hosts.live() == {"v0.1.1": "c0ffee"}


def test_a_release_that_was_started_again_and_cut_off_stays_the_finished_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try that failed went back to the release before, by itself."""
    hosts = running(server)
    put(hosts, "0.1.2")
    hosts.switch("v0.1.2")
    server.fault("0.1.2", "unwell")

    def cut_off(tag: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hosts.host, "make_live", cut_off)
        hosts.host.switch("v0.1.2", "Rita")
    assert "v0.1.2 stays, as it is live." in refusal(hosts)


def test_a_wrong_folder_stops_nothing_that_runs_from_the_right_one(server: Server, tmp_path: Path) -> None:
    """Its colours looked idle: production was down, by a check before the flip."""
    hosts = running(server)
    assert look(hosts) == ("v0.1.1", "blue", "0.1.1")
    (tmp_path / "typo").mkdir()
    wrong = Hosts("production", replace(hosts.host, folder=tmp_path / "typo", nginx=["true"]))
    put(wrong, "0.1.2")
    for call in (lambda: wrong.switch("v0.1.2"), lambda: wrong.idle("v0.1.2").__enter__()):
        with pytest.raises(Refused, match=r"Port \d+ \(blue\) is taken.* In .*typo nothing is live: is that the right"):
            call()
        assert server.version() == "0.1.1" and "blue-web" in server.pids()


def test_a_port_that_something_else_has_taken_is_named_and_the_old_release_stays(server: Server) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")
    with socket.create_server(("127.0.0.1", server.green)):
        said = refusal(hosts)
    assert f"Port {server.green} (green) is taken by something that `stop` does not stop." in said
    assert said.endswith("v0.1.1 is still live.") and server.version() == "0.1.1"
    hosts.switch("v0.1.2")
    assert server.version() == "0.1.2"


@pytest.mark.parametrize(
    ("fault", "said", "state"),
    [
        ("mute", "v0.1.2 does not answer within 2 s", "v0.1.1 is still live."),
        ("exits", "v0.1.2 does not answer within 2 s", "v0.1.1 is still live."),
        ("old", 'answers 200: {"version": "0.0.1"}', "v0.1.1 is still live."),
        ("unwell", 'answers 503: {"version": "0.1.2"}', "v0.1.1 is still live."),
        ("sick", "v0.1.2 does not answer within 2 s", "It went back: v0.1.1 is live again."),
        ("dies", "v0.1.2 does not answer within 2 s", "It went back: v0.1.1 is live again."),
    ],
)
def test_a_release_that_is_not_well_leaves_the_old_one_live(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: str, said: str, state: str
) -> None:
    monkeypatch.setattr("release_tasks.deploy.host.FRONT", 2)
    hosts = running(server, wait=2)
    put(hosts, "0.1.2")
    server.fault("0.1.2", fault)
    refused = refusal(hosts)
    assert said in refused and refused.endswith(f"\n{state}")
    assert (look(hosts), list(server.pids())) == (("v0.1.1", "blue", "0.1.1"), ["blue-web"])
    assert hosts.status()["this machine"].switches[-1]["what"].endswith(state)
    server.fault("0.1.2")
    hosts.switch("v0.1.2")
    assert (look(hosts), list(server.pids())) == (("v0.1.2", "green", "0.1.2"), ["green-web"])


def test_a_release_that_dies_while_the_old_one_finishes_its_requests_is_taken_back(server: Server) -> None:
    hosts = running(server, drain=10)
    put(hosts, "0.1.2")
    with socket.create_connection(("127.0.0.1", server.blue)) as request:
        kill_it = 'kill -9 "$(cat green-web.pid)"'
        script = f'while ! grep -q "v0.1.2 green" traffic.conf; do sleep 0.05; done; sleep 1; {kill_it}'
        killer = subprocess.Popen(["sh", "-c", script], cwd=server.folder)
        closer = subprocess.Popen(["sh", "-c", "sleep 3"])
        request.settimeout(None)
        host = hosts.host
        host.drain = 2.5
        said = refusal(hosts)
        killer.wait()
        closer.wait()
    assert said.endswith("It went back: v0.1.1 is live again.")
    assert (server.version(), list(server.pids())) == ("0.1.1", ["blue-web"])


def test_a_failed_switch_goes_back_to_no_folder_that_is_gone(server: Server) -> None:
    """It said that the old release was still live, where its code had been removed by hand."""
    hosts = Hosts("production", server.plain())
    put(hosts, "0.1.1")
    hosts.switch("v0.1.1")
    put(hosts, "0.1.2")
    server.fault("0.1.2", "unwell")
    shutil.rmtree(hosts.host.code_of("v0.1.1"))
    assert refusal(hosts).endswith("There is nothing to go back to.")


def test_where_nginx_is_away_nothing_is_touched(server: Server) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")
    server.stop_nginx()
    said = refusal(hosts)
    assert "-s reload: exit code 1:" in said and "nginx.pid" in said and "v0.1.1 does not answer either" in said
    assert (hosts.host.record(), list(server.pids())) == (("v0.1.1", "blue"), ["blue-web"])
    server.start_nginx()
    assert server.version() == "0.1.1"
    hosts.switch("v0.1.2")
    assert server.version() == "0.1.2"


def test_a_first_release_without_nginx_says_when_to_start_it_and_the_hint_starts_it(server: Server) -> None:
    hosts = Hosts("production", server.behind_nginx())
    server.stop_nginx()
    put(hosts, "0.1.1")
    with pytest.raises(Refused) as refused:
        hosts.switch("v0.1.1")
    assert "nginx has to run before a release goes live; " in str(refused.value)
    assert f"{server.folder}/traffic.conf, which it includes, is there." in str(refused.value)
    assert server.pids() == {}
    first, last = hosts.host.switches()
    assert first["what"] == "nothing → v0.1.1" and "nginx has to run before a release goes live" in last["what"]
    subprocess.run(["sh", "-c", refused.value.problems[0].hint], check=True, cwd=server.folder)
    hosts.switch("v0.1.1")
    assert server.version() == "0.1.1"


def test_a_host_whose_front_leads_elsewhere_does_not_answer_for_the_release(server: Server) -> None:
    """A redirect was followed: to where another host, or a page, answers with the version."""
    hosts, conf = running(server), server.folder / "nginx.conf"
    good = conf.read_text()
    conf.write_text(
        good.replace("location / {", "location = /api/version { return 302 /elsewhere; }\n    location / {")
    )
    subprocess.run([*server.nginx, "-s", "reload"], check=True)
    assert wait_until(lambda: not look(hosts)[2], 5)
    conf.write_text(good)


def test_a_stop_that_fails_is_said_while_the_new_release_stays_live(server: Server) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")
    with hosts.idle("v0.1.2"):
        good, hosts.host.halt = hosts.host.halt, ["sh", "-c", "echo Not now; exit 4"]
        assert "exit code 4:\nNot now" in refusal(hosts)
        assert look(hosts) == ("v0.1.2", "green", "0.1.2") and not hosts.is_live("v0.1.2", "0.1.2")
        hosts.host.halt = good
    hosts.switch("v0.1.2")
    assert hosts.is_live("v0.1.2", "0.1.2") and list(server.pids()) == ["green-web"]
    assert hosts.facts("v0.1.2")["before"] == "v0.1.1"


def test_jobs_are_handed_over_and_never_run_twice(server: Server) -> None:
    hosts = running(server, services=["web", "jobs"])
    assert sorted(server.pids()) == ["blue-jobs", "blue-web"]
    for version, colour in (("0.1.2", "green"), ("0.1.1", "blue"), ("0.1.3", "green")):
        put(hosts, version)
        with hosts.idle(f"v{version}"):
            other = {"green": "blue", "blue": "green"}[colour]
            assert sorted(server.pids()) == sorted([f"{other}-jobs", "blue-web", "green-web"])
        hosts.switch(f"v{version}")
        assert sorted(server.pids()) == [f"{colour}-jobs", f"{colour}-web"]
    assert not (server.folder / "two-at-once").exists()


# What is kept, and what is found again


def test_finished_releases_are_kept_by_number_and_never_the_current_one_or_the_one_before(server: Server) -> None:
    hosts = Hosts("production", server.plain(keep=2))
    for version in ("0.1.1", "0.1.2", "0.1.3", "0.1.4"):
        put(hosts, version)
    hosts.switch("v0.1.2")
    assert sorted(hosts.releases()) == ["v0.1.2", "v0.1.3", "v0.1.4"]
    hosts.host.code_of("notes.txt").write_text("not ours")
    hosts.switch("v0.1.4")
    put(hosts, "0.1.5")
    hosts.switch("v0.1.2")
    hosts.host.keep = 1
    hosts.switch("v0.1.4")
    assert sorted(hosts.releases()) == ["v0.1.2", "v0.1.4", "v0.1.5"]
    assert hosts.host.code_of("notes.txt").exists()


def test_a_release_that_was_removed_in_part_is_not_in_place(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts("production", server.plain(keep=1))
    for version in ("0.1.1", "0.1.2", "0.1.3"):
        put(hosts, version)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **_: (Path(path) / "app.py").unlink(missing_ok=True))
        hosts.switch("v0.1.3")
    assert list(hosts.releases()) == ["v0.1.3"]
    put(hosts, "0.1.1")
    assert sorted(path.name for path in hosts.host.code_of("").iterdir() if path.is_dir()) == ["v0.1.1", "v0.1.3"]
    assert (hosts.host.code_of("v0.1.1") / "app.py").exists()


def test_torn_facts_are_named_and_the_other_releases_go_on(server: Server) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")
    file = hosts.host.code_of("v0.1.2.json")
    file.write_text('{"commit": "01')
    assert hosts.facts("v0.1.2") == {}
    with pytest.raises(Refused) as refused:
        put(hosts, "0.1.2")
    assert f"{file} is not what a deployment leaves there: it may have been cut short." in str(refused.value)
    subprocess.run(["sh", "-c", refused.value.problems[0].hint], check=True)
    put(hosts, "0.1.2")
    hosts.host.code_of("v0.1.1.json").write_text("")
    hosts.switch("v0.1.2")
    assert look(hosts) == ("v0.1.2", "green", "0.1.2") and list(server.pids()) == ["green-web"]


def test_a_torn_record_is_named_and_nothing_is_touched(server: Server) -> None:
    hosts = running(server)
    put(hosts, "0.1.2")
    good = (server.folder / "traffic.conf").read_text()
    for torn in ("", "\0\0\0\0", "# v0.1.1 bl", good.partition("\n")[2]):
        (server.folder / "traffic.conf").write_text(torn)
        said = refusal(hosts)
        assert "traffic.conf does not say which release is live, as does a first line '# v0.1.2 blue'." in said
        assert hosts.try_status()["this machine"].problem == f"this machine: {said.removeprefix('Production: ')}"
        assert (server.version(), list(server.pids())) == ("0.1.1", ["blue-web"])
    (server.folder / "traffic.conf").write_text(good)
    with (server.folder / "journal.jsonl").open("a") as file:
        file.write('{"at": "20')
    hosts.switch("v0.1.2")
    assert [each["what"] for each in hosts.status()["this machine"].switches][-1] == "v0.1.2 is live"


def test_after_a_reboot_the_services_come_back_from_the_links(server: Server) -> None:
    hosts = running(server, services=["web", "jobs"])
    put(hosts, "0.1.2")
    hosts.switch("v0.1.2")
    server.power_off()
    (seen,) = hosts.status().values()
    assert (seen.tag, seen.colour, seen.answers[0]) == ("v0.1.2", "green", "")
    assert "could not be reached" in seen.answers[1]
    server.start_nginx()
    for service in ("web", "jobs"):
        hosts.host.call(hosts.host.restart, "green", service)
    assert hosts.host.answers("v0.1.2", seconds=5) and hosts.is_live("v0.1.2", "0.1.2")
    put(hosts, "0.1.3")
    hosts.switch("v0.1.3")
    assert look(hosts) == ("v0.1.3", "blue", "0.1.3") and sorted(server.pids()) == ["blue-jobs", "blue-web"]


def test_a_host_without_a_version_route_is_well_unless_it_answers_with_an_error_of_its_own(server: Server) -> None:
    hosts = running(server, version_path="")
    put(hosts, "0.1.2")
    hosts.switch("v0.1.2")
    assert look(hosts) == ("v0.1.2", "green", "any") and server.version() == "0.1.2"
    os.kill(server.pids()["green-web"], 9)
    assert look(hosts) == ("v0.1.2", "green", "")


def test_commands_find_colour_service_port_and_version(server: Server) -> None:
    hosts = running(server)
    hosts.host.call(
        ["sh", "-c", 'echo "$COLOUR $SERVICE $PORT $APP_VERSION {colour}-{service}" > found'], "blue", "web"
    )
    assert (server.folder / "found").read_text() == f"blue web {server.blue} 0.1.1 blue-web\n"


def test_a_command_without_an_end_is_ended_with_what_it_has_started(server: Server) -> None:
    host: Host = server.plain()
    with pytest.raises(Refused, match=r"no end within 0\.5 s:\nbegun"):
        host.run(["sh", "-c", "echo begun; sleep 100 & echo $! > child; wait"], timeout=0.5)
    child = int((server.folder / "child").read_text())
    assert wait_until(lambda: not lives(child), 10)
    with pytest.raises(Refused, match=r"no-such-program cannot be started"):
        host.run(["no-such-program"])


def test_the_facts_of_a_release_are_json(server: Server) -> None:
    hosts = running(server)
    found = json.loads(hosts.host.code_of("v0.1.1.json").read_text())
    assert found["commit"].startswith("011c") and found["version"] == "0.1.1" and found["since"] and found["by"]


def test_an_nginx_that_may_lose_a_request_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, answers = Hosts("production", server.behind_nginx()), ["nginx/1.22.1"]
    (seen,) = hosts.status().values()
    assert NGINX.search(seen.answers[1]) and [*hosts.warnings()] == []
    monkeypatch.setattr(hosts.host, "look", lambda: {"answers": ("", f"http://a answers 502: Bad ({answers[0]})")})
    assert [*hosts.warnings()] == ["this machine: nginx/1.22.1 may lose a request at a flip; 1.27.4 does not"]
    answers[0] = "nginx"
    assert [*hosts.warnings()] == []


def test_a_colour_that_was_away_once_serves_as_soon_as_it_is_back(server: Server) -> None:
    """nginx shuts out for 10 s what has failed once: so was the backup, and requests got a 502 though it was back."""
    hosts = running(server)
    host = hosts.host
    put(hosts, "0.1.2")
    hosts.switch("v0.1.2")
    for colour in host.colours:
        host.stop(colour)
    assert server.version() == "HTTPError 502"
    host.call(host.restart, "blue", "web")  # 0.1.1, which is the backup now
    assert host.answers("v0.1.1", f"http://127.0.0.1:{server.blue}", 5)
    assert server.version() == "0.1.1"
