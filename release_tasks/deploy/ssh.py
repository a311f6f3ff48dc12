"""Hosts that get a program over standard input, with what it has to do: this machine, and others by OpenSSH."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from release_tasks import process, screen
from release_tasks.deploy.host import LOOKS, Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.errors import Refused, listed
from release_tasks.machine import is_taken, parsed, wait_until

LOOK, CHANGE = 20.0, 1800.0  # seconds for a look, and for what waits for installs and for other releases
SSH = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
PROGRAM = "import json, sys; order = json.loads(sys.stdin.buffer.readline()); exec(order['program']); main(order)"


@dataclass
class OwnProcess(Hosts):
    """This machine, in a process of its own that ends what it has begun; its commands find the `variables`."""

    variables: Callable[[], dict[str, str]] = dict

    def argv(self, name: str, *command: str) -> list[str]:
        """Return the words by which the host `name` runs a command."""
        return list(command)

    def call(self, name: str, verb: str, **arguments: Any) -> Any:
        if self.is_here and verb in LOOKS:  # quick, and often
            return super().call(name, verb, **arguments)
        tree, timeout = arguments.pop("tree", os.devnull), LOOK if verb in LOOKS else CHANGE
        python = [sys.executable, "-I"] if self.is_here else ["python3"]
        hint = shlex.join(self.argv(name, *python, "--version"))
        with TemporaryFile() as stdin, Path(tree).open("rb") as content:
            stdin.write(order_of(self.host, verb, arguments))
            shutil.copyfileobj(content, stdin)
            stdin.seek(0)
            argv = self.argv(name, *python, "-c", PROGRAM)
            how: dict[str, Any] = {"env": self.variables(), "stdin": stdin, "timeout": timeout}
            try:
                done = process.run(argv, **how, check=False, record=False)
            except process.CommandFailed as no:
                raise Refused(f"has not answered within {timeout:g} s. {no.finished.tail(5)}".strip(), hint) from None
        return answer_of(done.stdout, done.tail(5), hint, "" if self.is_here else name)["result"]

    def call_all(self, names: Sequence[str], verb: str, **arguments: Any) -> dict[str, Any]:
        try:
            return super().call_all(names, verb, **arguments)
        except KeyboardInterrupt:
            if verb not in LOOKS:
                screen.say(f"What has begun on {listed(names)} goes on there to its end.")
            raise


@dataclass
class Ssh(OwnProcess):
    """Other hosts by OpenSSH; `ssh` is its command with options of its own, as a configuration file."""

    ssh: Sequence[str] = ("ssh",)

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
    """Return what `host.main` gets, with the program: some of our modules as one. No variable of ours is sent."""
    names = ("../errors", "../files", "../machine", "releases", "host")
    parts = [(Path(__file__).parent / f"{name}.py").read_text("utf-8") for name in names]
    lines = [line for part in parts for line in part.splitlines()]
    own = [line for line in lines if not line.startswith(("from release_tasks", "from __future__"))]
    program = "\n".join(["from __future__ import annotations", *own])
    about = {field.name: getattr(host, field.name) for field in fields(Host)}
    about["folder"] = host.folder.as_posix()
    order = {"program": program, "host": about, "verb": verb, "arguments": arguments}
    return json.dumps(order).encode() + b"\n"


def answer_of(stdout: str, said: str, hint: str, name: str) -> dict[str, Any]:
    """Return the answer of `host.main`. Raises `Refused`, with a hint for us, or with one for the host `name`."""
    answer = parsed(stdout.strip().rpartition("\n")[2])
    if not answer:
        raise Refused(f"cannot be reached, or its Python did not answer: {said}", hint)
    if "failed" in answer:
        there = answer["hint"] and f"{answer['hint']}   # on {name}"
        raise Refused(answer["failed"], there if name else answer["hint"])
    return answer
