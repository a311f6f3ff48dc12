"""An environment: its variables all from one DSN, its web app asked without being led elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from release_tasks import embedded, process
from release_tasks.database.server import start
from release_tasks.deploy.drivers import folder_of
from release_tasks.deploy.hosts import Hosts
from release_tasks.embedded import open_environment, serve
from release_tasks.environments import Environment, shared_problems
from release_tasks.errors import Refused
from release_tasks.machine import locked, point_link, wait_until
from release_tasks.settings import Settings
from tests.test_process import alive, until

if TYPE_CHECKING:
    from tests.conftest import Web, Work

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def environment(tmp_path: Path) -> Callable[..., Environment]:
    def environment(dsn: str = "", origin: str = NOBODY, name: str = "staging") -> Environment:
        settings = Settings(app="pill", services={"web": ["node", "web.mts"]})
        return Environment(name, settings, tmp_path, dsn, origin, tmp_path / name, None)

    return environment


@pytest.fixture
def says() -> Iterator[Callable[[bytes], str]]:
    """Return what starts a server that answers one request with these very bytes, and returns its origin."""
    listening = socket.create_server(("127.0.0.1", 0))

    def says(reply: bytes) -> str:
        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield says
    listening.close()


# Variables


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:p%40ss%20word@db.example.org:6432/pill",
        "host=db.example.org port=6432 user=app password='p@ss word' dbname=pill",
    ],
)
def test_all_variables_come_from_the_one_dsn(environment: Callable[..., Environment], dsn: str) -> None:
    variables = environment(dsn, "https://pill.example.org:8443").variables("0.1.1")
    assert {name: value for name, value in variables.items() if name.startswith("PG")} == {
        "PGHOST": "db.example.org",
        "PGPORT": "6432",
        "PGUSER": "app",
        "PGPASSWORD": "p@ss word",
        "PGDATABASE": "pill",
        "PGHOSTADDR": "",
        "PGOPTIONS": "",
    }
    names = ("DATABASE_URL", "APP_NAME", "APP_VERSION", "ORIGIN", "PORT")
    assert [variables[name] for name in names] == [dsn, "pill", "0.1.1", "https://pill.example.org:8443", "8443"]


def test_what_the_dsn_leaves_out_is_blank_whatever_the_shell_says(
    environment: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "of another database")
    monkeypatch.setenv("PGHOST", "another.example.org")
    variables = environment("dbname=pill sslmode=require").variables("0.1.1")
    assert {name: variables[name] for name in ("PGHOST", "PGPASSWORD", "PGDATABASE", "PGSSLMODE")} == {
        "PGHOST": "",
        "PGPASSWORD": "",
        "PGDATABASE": "pill",
        "PGSSLMODE": "require",
    }


def test_another_origin_changes_origin_and_port_only(environment: Callable[..., Environment]) -> None:
    here = environment("postgresql://db/pill", "http://127.0.0.1:8001")
    usual, other = here.variables("0.1.1"), here.variables("0.1.1", "http://127.0.0.1:8002")
    changed = {"ORIGIN": "http://127.0.0.1:8002", "PORT": "8002"}
    assert other == {**usual, **changed} != usual


def test_the_applications_commands_find_node_on_path(environment: Callable[..., Environment]) -> None:
    variables = environment("postgresql://db/pill").variables("")
    assert process.run(["node", "--version"], env=variables).stdout.startswith("v")
    assert variables["PATH"].endswith(os.environ["PATH"])


# The database


def test_a_connection_is_ours_and_in_autocommit(environment: Callable[..., Environment], dsn: str) -> None:
    with environment(dsn).connect() as connection:
        assert connection.autocommit
        (name,) = connection.execute("show application_name").fetchone() or ("",)
        assert name.startswith("release by ")


def test_a_wrong_password_is_refused_and_not_repeated(environment: Callable[..., Environment], dsn: str) -> None:
    wrong = environment(dsn.replace(f":{urlsplit(dsn).password}@", ":wr0ng-w0rd@"))
    with pytest.raises(Refused, match="password authentication failed") as refused, wrong.connect():
        pass
    (problem,) = refused.value.problems
    assert problem.hint == "Check release.environments.staging.dsn in invoke.yaml, and its variable."
    assert "wr0ng-w0rd" not in str(problem)


def test_a_server_that_is_down_is_to_be_started_first(environment: Callable[..., Environment], dsn: str) -> None:
    """Where the DSN had just worked, the hint was to check it."""
    hint = "Start the server, if it is down. Check release.environments.staging.dsn in invoke.yaml, and its variable."
    with pytest.raises(Refused, match="refused") as refused, environment("host=127.0.0.1 port=1").connect():
        pass
    assert refused.value.problems[0].hint == hint
    with pytest.raises(Refused) as refused, environment(dsn).connect() as connection:
        os.close(connection.fileno())
        connection.execute("select 1")
    assert refused.value.problems[0].hint == hint


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:s3cret@127.0.0.1:1/pill",
        "postgresql://app:s3cret@db:port/pill",
        "host=db password s3cret",
        "mysql://app:s3cret@db/pill",
    ],
)
def test_a_dsn_that_leads_nowhere_is_refused_without_its_password(
    environment: Callable[..., Environment], dsn: str
) -> None:
    connect = environment(dsn).connect()
    with pytest.raises(Refused, match=r"^The database of staging cannot be used: ") as refused, connect:
        pass
    assert "s3cret" not in str(refused.value.problems)


STAMPS = "create schema ops; create table ops.session_log (app_name text, app_version text, opened_at {}); "
STAMPS += "insert into ops.session_log values ('app', '0.1.0', '2026-11-26 12:00'), ('app', '0.0.9', {})"


@pytest.mark.parametrize("kind, other", [("timestamptz", "null"), ("timestamp", "'2026-11-25 12:00'")])
def test_the_newest_stamp_has_a_time_and_a_zone(tmp_path: Path, dsn: str, kind: str, other: str) -> None:
    """A stamp without a time was the newest, and comparing it, or a time without a zone, was a traceback."""
    here = Environment("staging", Settings(), tmp_path, dsn, NOBODY, tmp_path, None)
    with here.connect() as connection:
        connection.execute(STAMPS.format(kind, other).encode())
    version, at = here.last_stamp() or ("", datetime.max)
    assert version == "0.1.0" and at < datetime.now(UTC)


@pytest.mark.parametrize("tags", [("v0.1.1", "v0.2.0"), ("v0.2.0", "v0.1.1")])
def test_a_later_release_on_any_host_is_a_problem(
    environment: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch, tags: tuple[str, str]
) -> None:
    """It was seen on the first host alone."""
    here = environment()
    here.hosts = Hosts("staging", embedded.EmbeddedHost(here), ["a", "b"])
    placed = {f"v{each}": {"commit": each} for each in ("0.2.0", "0.1.1", "0.1.0")}
    found = {"a": {"tag": tags[0], "releases": placed}, "b": {"tag": tags[1], "releases": placed}}
    monkeypatch.setattr(here.hosts, "call", lambda name, verb, **arguments: found[name])
    monkeypatch.setattr(here, "stamps", lambda most: [])
    (problem,) = here.later_problems("0.1.1")
    assert problem.what == "Staging has the code of 0.2.0, later than 0.1.1."
    assert problem.hint.startswith("inv deploy.rollback --env staging --to 0.1.0 ")
    assert here.later_problems("0.2.0") == []


@pytest.mark.parametrize(
    "staging, production, is_shared",
    [
        ({"hosts": ["deploy@app1"]}, {"hosts": ["app2", "app3"]}, False),
        ({"hosts": ["deploy@app1"]}, {"hosts": ["app2", "other@app1"]}, True),
        ({"hosts": ["deploy@app1"]}, {"hosts": ["ssh://app1:22"]}, True),
        ({"hosts": ["ssh://app1:22"]}, {"hosts": ["ssh://app1:2222"]}, False),
        ({"inventory": "i", "limit": "staging"}, {"inventory": "i", "limit": "production"}, False),
        ({"inventory": "hosts.ini"}, {"hosts": ["app1"]}, False),
        ({"inventory": "hosts.ini"}, {"inventory": "hosts.ini"}, True),
    ],
)
def test_a_folder_is_shared_where_it_is_on_one_host(
    tmp_path: Path, staging: dict[str, Any], production: dict[str, Any], is_shared: bool
) -> None:
    """Staging had to get another folder than production, though it was on another host."""
    both = {"staging": staging, "production": production}
    for name, own in both.items():
        own |= {"dsn": f"postgresql://127.0.0.1:1/{name}", "origin": f"http://{name}", "folder": "/srv/app"}
        own |= {"restart": ["true"], "log": "l"}
    settings = Settings.model_validate({"environments": both})
    assert bool(shared_problems(tmp_path, settings)[0]) == is_shared


def test_localhost_is_this_machine_by_each_of_its_names(tmp_path: Path) -> None:
    """Staging answered for production: a withdrawal said that that ran there."""
    own = {"folder": "a", "restart": ["true"], "log": "l", "dsn": "postgresql://127.0.0.1:1/a"}
    other = {**own, "folder": "b", "dsn": "postgresql://127.0.0.1:1/b", "origin": "http://LocalHost:1/"}
    settings = {"environments": {"staging": {**own, "origin": "http://127.0.0.1:1"}, "production": other}}
    (problem,) = shared_problems(tmp_path, Settings.model_validate(settings))[0]
    assert "have the origin http://127.0.0.1:1 in common" in problem.what


def test_a_physical_copy_of_a_server_is_another_one(tmp_path: Path) -> None:
    """It keeps the system identifier: a staging made by pg_basebackup was refused for good."""
    start(tmp_path / "one", ["app"], durable=False).services.stop()
    process.run(["cp", "--archive", tmp_path / "one", tmp_path / "two"])
    with ExitStack() as ended:
        dsns = []
        for name in ("one", "two"):
            running = start(tmp_path / name, ["app"], durable=False)
            ended.callback(running.services.stop)
            dsns.append(running.dsn("app"))
        for production, shared in ((dsns[1], False), (dsns[0].replace("127.0.0.1", "localhost"), True)):
            about = {"staging": dsns[0], "production": production}
            own = {name: {"dsn": dsn, "origin": f"http://{name}", "folder": name} for name, dsn in about.items()}
            settings = {name: {**each, "restart": ["true"], "log": "l"} for name, each in own.items()}
            problems, _ = shared_problems(tmp_path, Settings.model_validate({"environments": settings}))
            assert ["system identifier" in problem.what for problem in problems if "app of" in problem.what] == (
                [True] * shared
            )


# What the application needs


@pytest.mark.parametrize("lock", ["package.json", "pnpm-lock.yaml", "package-lock.json", "yarn.lock"])
def test_packages_are_installed_again_when_one_of_their_files_has_changed(tmp_path: Path, lock: str) -> None:
    code = "from pathlib import Path; Path('node_modules').mkdir(exist_ok=True); open('installed', 'a').write('x')"
    settings = Settings.model_validate({"install": [sys.executable, "-c", code]})
    here = Environment("dev", settings, tmp_path, "host=h dbname=d", "", tmp_path, None)
    for content, times in (("one", 1), ("one", 1), ("two", 2)):
        (tmp_path / lock).write_text(content)
        here.install(tmp_path)
        assert (tmp_path / "installed").read_text() == "x" * times


def test_an_install_that_failed_is_tried_again_for_the_package_files_of_before(tmp_path: Path) -> None:
    code = "from pathlib import Path; Path('node_modules').mkdir(exist_ok=True)\n"
    code += "open('installed', 'a').write('x'); assert Path('package.json').read_text() == 'one'"
    settings = Settings.model_validate({"install": [sys.executable, "-c", code]})
    here = Environment("dev", settings, tmp_path, "host=h dbname=d", "", tmp_path, None)
    for content in ("one", "two", "one"):
        (tmp_path / "package.json").write_text(content)
        with nullcontext() if content == "one" else pytest.raises(Refused):
            here.install(tmp_path)
    assert (tmp_path / "installed").read_text() == "xxx"


# The web app


def test_the_web_app_says_its_version_while_it_is_well(environment: Callable[..., Environment], web: Web) -> None:
    """With a 503 it ran for the environment, and did not for its hosts."""
    here = environment(origin=web.origin)
    web.be("0.1.1")
    assert here.probe()[0] == environment().probe(web.origin)[0] == "0.1.1"
    web.answers["/api/version"] = (503, '{"version": "0.1.1"}')
    assert here.probe()[0] == ""


def test_what_is_not_ready_is_shown_by_a_command_that_works_there(
    environment: Callable[..., Environment], web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a log of it only where the web app is a child of ours."""
    monkeypatch.setattr("release_tasks.environments.READY", 0)
    here, hints = environment(origin=web.origin), list[str]()
    for _ in range(2):
        with pytest.raises(Refused, match="The web app of staging is not ready") as refused:
            here.wait_until_ready()
        hints.append(refused.value.problems[0].hint)
        here.folder.mkdir(exist_ok=True)
        (here.folder / "current-web.log").touch()
    assert hints == [f"curl -i {web.origin}/api/version", shlex.join(["cat", str(here.folder / "current-web.log")])]


def test_a_redirect_is_not_followed(environment: Callable[..., Environment], web: Web) -> None:
    web.answers |= {"/api/version": (302, ""), "/login": (200, '{"version": "0.1.1"}')}
    web.headers["Location"] = "/login"
    assert environment(origin=web.origin).probe()[0] == ""


@pytest.mark.parametrize("origin", [NOBODY, "", "no-origin", "http://[", "http://127.0.0.1:99999"])
def test_where_nobody_can_answer_there_is_no_version(environment: Callable[..., Environment], origin: str) -> None:
    assert environment(origin=origin).probe()[0] == ""


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"version": "0.1.1"}',
        b"HTTP/1.1 nonsense\r\n\r\n",
    ],
    ids=["closed", "another protocol", "cut off", "no status"],
)
def test_what_is_no_whole_answer_is_no_version(
    environment: Callable[..., Environment], says: Callable[[bytes], str], reply: bytes
) -> None:
    assert environment(origin=says(reply)).probe()[0] == ""


def test_an_answer_that_takes_too_long_is_none(
    environment: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("release_tasks.environments.ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert environment(origin=f"http://127.0.0.1:{silent.getsockname()[1]}").probe()[0] == ""


@pytest.mark.parametrize("body", ["", "<html>", '["version"]', "null", '{"version": ', '{"version": null}'])
def test_what_is_no_json_object_with_a_version_is_none(
    environment: Callable[..., Environment], web: Web, body: str
) -> None:
    web.answers["/api/version"] = (200, body)
    assert environment(origin=web.origin).probe()[0] == ""


def test_a_release_runs_when_current_names_it_and_the_web_app_says_so(
    environment: Callable[..., Environment], work: Work, web: Web
) -> None:
    here = environment(origin=web.origin)
    here.hosts = Hosts("staging", embedded.EmbeddedHost(here))
    assert not here.runs("0.1.1")
    web.be("0.1.1")
    facts = {"commit": work.git("rev-parse", "HEAD"), "version": "0.1.1", "since": "now"}
    (here.folder / "releases" / "v0.1.0").mkdir(parents=True)
    (here.folder / "releases" / "v0.1.1").mkdir()
    (here.folder / "releases" / "v0.1.1.json").write_text(json.dumps(facts))
    point_link(here.folder / "current", here.folder / "releases" / "v0.1.0")
    assert not here.runs("0.1.1")
    point_link(here.folder / "current", here.folder / "releases" / "v0.1.1")
    assert here.runs("0.1.1")
    web.be("0.1.0")
    assert not here.runs("0.1.1")


def test_the_code_of_dev_is_the_working_tree_and_elsewhere_what_was_deployed(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    assert environment(name="dev").code == tmp_path
    with pytest.raises(Refused, match="Nothing has been deployed to staging yet"):
        _ = environment().code


def test_an_environment_with_a_dsn_is_as_its_settings_say(tmp_path: Path) -> None:
    own = {"dsn": "postgresql://db/pill", "origin": "https://pill.example.org/", "folder": "srv", "restart": ["true"]}
    settings = Settings.model_validate({"environments": {"production": {**own, "log": "/var/log/pg.log"}}})
    here = open_environment("production", tmp_path, settings)
    assert (here.name, here.dsn, here.origin) == ("production", own["dsn"], "https://pill.example.org")
    assert (here.folder, here.log) == (tmp_path / "srv", Path("/var/log/pg.log"))
    assert (here.hosts.host.folder, here.hosts.host.restart) == (tmp_path / "srv", ["true"])


def test_closing_stops_what_is_held_in_reverse_and_once(environment: Callable[..., Environment]) -> None:
    here, stopped = environment(), []
    here.to_close.callback(stopped.append, "database")
    here.to_close.callback(stopped.append, "services")
    here.close()
    here.close()
    assert stopped == ["services", "database"]


def test_what_cannot_be_stopped_keeps_nothing_else_from_being_stopped(environment: Callable[..., Environment]) -> None:
    here, stopped = environment(), list[str]()

    def fail() -> None:
        raise OSError("no answer")

    here.to_close.callback(stopped.append, "database")
    here.to_close.callback(fail)
    with pytest.raises(OSError, match="no answer"):
        here.close()
    assert stopped == ["database"]


def test_waiting_ends_with_the_first_yes_or_after_the_deadline_with_the_last_no() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), 120, every=0)
    began = time.monotonic()
    assert not wait_until(lambda: False, 0.05, every=0.01)
    assert time.monotonic() >= began + 0.05
    assert wait_until(lambda: True, -1)


def test_a_switch_starts_the_services_of_an_embedded_environment_from_the_new_folder(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), os.getcwd(), flush=True); time.sleep(600)"
    settings = Settings(folder="api", services={"jobs": [sys.executable, "-c", code]})
    log, serves = tmp_path / "current-jobs.log", Environment("staging", settings, tmp_path, "", "", tmp_path, None)
    host = embedded.EmbeddedHost(serves)
    serves.hosts, host.version_path, host.answers = Hosts("staging", host), "", lambda *_, **__: True

    def starts() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    serve(serves)
    assert not host.running  # nothing is deployed yet
    for number, tag in enumerate(("v0.1.0", "v0.1.1"), start=1):
        (host.code_of(tag) / "api").mkdir(parents=True)
        host.code_of(f"{tag}.json").write_text('{"commit": "c0ffee"}')
        serves.hosts.switch(tag)
        serve(serves)
        assert until(lambda number=number: len(starts()) == number)
        assert starts()[-1].endswith(str(host.code_of(tag) / "api"))
    (old, new) = (int(line.split()[0]) for line in starts())
    assert not alive(old) and alive(new)
    serves.close()
    assert not alive(new)


def test_two_commands_use_an_embedded_environment_one_after_the_other(tmp_path: Path) -> None:
    settings, order = Settings(), list[str]()

    def use() -> None:
        with closing(open_environment("dev", tmp_path, settings)):
            order.append("the second has begun")

    with closing(open_environment("dev", tmp_path, settings)):
        second = threading.Thread(target=use)
        second.start()
        time.sleep(0.3)
        order.append("the first has ended")
    second.join(120)
    assert order == ["the first has ended", "the second has begun"]


def test_whoever_waits_for_an_embedded_environment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, other = list[str](), ExitStack()

    def refuse_to_start(*_: object) -> None:
        raise Refused("no server here")

    @contextmanager
    def busy(doing: str) -> Iterator[None]:
        waits.append(doing)
        other.close()
        yield

    monkeypatch.setattr(embedded.screen, "busy", busy)
    monkeypatch.setattr(embedded.server, "start", refuse_to_start)
    other.enter_context(locked(folder_of("dev", tmp_path) / "in-use.lock", "other"))
    with pytest.raises(Refused, match="no server here"):
        open_environment("dev", tmp_path, Settings())
    assert waits == ["Waiting for the embedded dev"]
