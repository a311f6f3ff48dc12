"""What any machine does with its own means."""

from __future__ import annotations

import os
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from release_tasks import process
from release_tasks.checks.web import Api
from release_tasks.database import programs
from release_tasks.errors import Refused
from release_tasks.journal import Journal
from release_tasks.machine import probe, run, user


@contextmanager
def answering(
    answers: Callable[[str], tuple[int, bytes]], user: str | None = None, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Answer each path with what `answers` returns: a status, and a body, for `user` alone; yield the origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == user
            status, body = answers(self.path) if allowed else (401, b"Who are you?")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "status, body, version",
    [
        (200, b'{"version": "0.1.1"}', "0.1.1"),
        (404, b'{"version": "0.1.1"}', "0.1.1"),
        (302, b'{"version": "0.1.1"}', ""),
        (503, b'{"version": "0.1.1"}', ""),
        (200, b'{"version": null}', ""),
        (200, b'{"version": "0.1', ""),
        (200, b"[]", ""),
    ],
)
def test_a_version_is_what_a_route_that_works_says(status: int, body: bytes, version: str) -> None:
    with answering(lambda _: (status, body)) as origin:
        assert probe(origin, "/api/version")[0] == version


def test_an_origin_may_have_a_path() -> None:
    """It was left out, so that another app was asked."""
    with answering(lambda path: (200, b'{"version": "%b"}' % path.encode())) as origin:
        assert probe(f"{origin}/base", "/api/version")[0] == "/base/api/version"
        assert probe(f"{origin}/base/", "")[0] == "any"


def test_an_origin_may_have_a_user_and_a_password_which_are_not_shown() -> None:
    """All of it was the name of a host, so that no deployment went well."""
    user = f"Basic {b64encode(b'ada:p@ss word').decode()}"
    with answering(lambda _: (200, b'{"version": "0.1.1"}'), user) as origin:
        version, said = probe(origin.replace("//", "//ada:p%40ss%20word@"), "/api/version")
        assert (version, said) == ("0.1.1", f'{origin}/api/version answers 200: {{"version": "0.1.1"}}')
        assert probe(origin, "/api/version")[0] == ""


def test_a_bundle_of_certificates_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An own authority was believed by the checks, and not by what waits for a version."""
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    how = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    process.run(["openssl", "req", *how, "-keyout", key, "-out", certificate])
    with answering(lambda _: (200, b'{"version": "0.1.1"}'), certificate=(certificate, key)) as origin:
        assert "CERTIFICATE_VERIFY_FAILED" in probe(origin, "/api/version")[1]
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert probe(origin, "/api/version")[0] == "0.1.1"
        assert Api(origin).get("/api/version").status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="there everybody has a name")
@pytest.mark.parametrize(
    "unknown",
    [KeyError("getpwuid(): uid not found: 4711"), OSError("No username set"), ImportError("No module named 'pwd'")],
)
def test_who_has_no_name_in_a_container_is_a_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unknown: Exception
) -> None:
    """It was a traceback, at the first line of the journal."""

    def getuser() -> str:
        raise unknown

    monkeypatch.setattr("getpass.getuser", getuser)
    Journal(tmp_path / "journal.jsonl").record("run")
    (record,) = Journal(tmp_path / "journal.jsonl").records()
    assert record["who"] == str(os.getuid())
    assert programs.who().startswith(f"release by {os.getuid()} on ")


def test_a_user_without_a_name_or_a_number_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows without USERNAME."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)
    monkeypatch.delattr(os, "getuid")
    assert user() == "unknown"


def test_who_does_not_answer_has_no_version() -> None:
    version, said = probe("http://127.0.0.1:1", "/api/version")
    assert version == "" and "could not be reached" in said


def test_an_answer_that_drips_is_none() -> None:
    """Each byte came in time, so that nothing ended it."""

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # who asked has gone
                for _ in range(100):
                    self.wfile.write(b" ")
                    time.sleep(0.1)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        version, said = probe(f"http://127.0.0.1:{server.server_port}", "/api/version", 0.5)
    assert version == "" and said.endswith("could not be reached: its answer did not end within 0.5 s")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups")
def test_a_command_that_may_not_be_ended_has_not_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `restart: [sudo, …]` it was said that the folder cannot be used."""

    def killpg(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", killpg)
    with pytest.raises(Refused, match=r"^sleep 2: no end within 0\.1 s"):
        run(["sleep", "2"], tmp_path, {}, 0.1)
