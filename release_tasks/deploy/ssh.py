"""Hosts that get a program over standard input, with what it has to do: this machine, and others by OpenSSH."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from release_tasks import process, screen
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.errors import Refused, listed
from release_tasks.machine import is_taken, parsed, wait_until

LOOK, CHANGE = 20.0, 1800.0  # seconds for a look, and for what waits for installs and for other releases
SSH = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
PROGRAM = "import json, sys; order = json.loads(sys.stdin.buffer.readline()); exec(order['program']); main(order)"
CHANGED = re.compile(r"Offending \S+ key in (?P<file>.+):\d+(?s:.*)Host key for (?P<name>\S+) has changed")


class OwnProcess(Hosts):
    """Hosts that do their part in a process of its own, which ends what it has begun, whatever becomes of us.

    That is this machine, whose commands find the `variables` of the application.
    """

    def __init__(self, name: str, host: Host, variables: Callable[[], dict[str, str]] = dict, **how: Any) -> None:
        super().__init__(name, host, **how)
        self.variables = variables

    def argv(self, name: str, *command: str) -> list[str]:
        """Return the words by which the host `name` runs a command."""
        return list(command)

    def call(self, name: str, verb: str, **arguments: Any) -> Any:
        if self.is_here and verb == "look":  # quick, and often
            return super().call(name, verb, **arguments)
        tree = arguments.get("tree", os.devnull)
        python = [sys.executable, "-I"] if self.is_here else ["python3"]
        with TemporaryFile() as stdin, Path(tree).open("rb") as content:
            stdin.write(order_of(self.host, verb, {**arguments, "tree": ""} if "tree" in arguments else arguments))
            shutil.copyfileobj(content, stdin)
            stdin.seek(0)
            env, timeout = self.variables(), LOOK if verb == "look" else CHANGE
            argv = self.argv(name, *python, "-c", PROGRAM)
            hint = shlex.join(self.argv(name, *python, "--version"))
            try:
                done = process.run(argv, env=env, stdin=stdin, timeout=timeout, check=False, record=False)
            except process.CommandFailed as no:
                raise Refused(f"has not answered within {timeout:g} s. {no.finished.tail(5)}".strip(), hint) from None
        if changed := CHANGED.search(done.output):
            forget = ["ssh-keygen", "-f", changed["file"], "-R", changed["name"]]
            hint = f"{shlex.join(forget)}   # once whoever runs the host has confirmed its new fingerprint"
        return answer_of(done.stdout, done.tail(5), hint, "" if self.is_here else name)["result"]

    def call_all(self, names: Sequence[str], verb: str, **arguments: Any) -> dict[str, Any]:
        try:
            return super().call_all(names, verb, **arguments)
        except KeyboardInterrupt:
            if verb != "look":
                screen.say(f"What has begun on {listed(names)} goes on there to its end.")
            raise


class Ssh(OwnProcess):
    """Other hosts by OpenSSH; `ssh` is its command with options of its own, as a configuration file."""

    def __init__(self, name: str, host: Host, names: list[str], ssh: list[str], batches: list[int]) -> None:
        super().__init__(name, host, names=names, batches=batches)
        self.ssh = ssh

    def argv(self, name: str, *command: str) -> list[str]:
        return [*self.ssh, *SSH, name, *map(shlex.quote, command)]

    @contextmanager
    def tunnel(self, name: str, origin: str) -> Iterator[str]:
        port = process.free_port()
        own = ["-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", "-N"]
        argv = [*self.argv(name), *own, "-L", f"127.0.0.1:{port}:{origin.removeprefix('http://')}"]
        tunnel = process.Supervised(argv, Path(), os.environ)
        try:
            if not wait_until(lambda: is_taken(port) or tunnel.poll() is not None, LOOK) or tunnel.poll() is not None:
                where = f"{self.environment.capitalize()}, {name}"
                raise Refused(f"{where}: ssh does not forward to {origin}.", shlex.join(argv))
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.stop()


def order_of(host: Host, verb: str, arguments: dict[str, Any]) -> bytes:
    """Return what remote.py reads, with the program: some of our modules as one.

    The environment of this machine, its secrets included, is not sent.
    """
    names = ("../errors", "../files", "../machine", "releases", "host", "remote")
    parts = [(Path(__file__).parent / f"{name}.py").read_text("utf-8") for name in names]
    lines = [line for part in parts for line in part.splitlines()]
    own = [line for line in lines if not line.startswith(("from release_tasks", "from __future__"))]
    program = "\n".join(["from __future__ import annotations", *own])
    about = {field.name: getattr(host, field.name) for field in fields(Host)}
    about["folder"] = host.folder.as_posix()
    order = {"program": program, "host": about, "verb": verb, "arguments": arguments}
    return json.dumps(order).encode() + b"\n"


def answer_of(stdout: str, said: str, hint: str, name: str) -> dict[str, Any]:
    """Return the answer of remote.py. Raises `Refused`, with a hint for us, or one that belongs on the host `name`."""
    answer = parsed(stdout.strip().rpartition("\n")[2])
    if not answer:
        raise Refused(f"cannot be reached, or its Python did not answer: {said}", hint)
    if "failed" in answer:
        there = answer["hint"] and f"{answer['hint']}   # on {name}"
        raise Refused(answer["failed"], there if name else answer["hint"])
    return answer
