"""How hosts get their part: a process of its own on this machine, OpenSSH, or the programs of Ansible (GPL-3.0)."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from release_tasks import process, screen
from release_tasks.deploy.host import LOOKS, Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.errors import Refused, listed
from release_tasks.machine import is_taken, parsed, wait_until

LOOK, CHANGE = 20.0, 1800.0  # seconds for a look, and for what waits for installs and for other releases
SSH = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
PROGRAM = "import json, sys; order = json.loads(sys.stdin.buffer.readline()); exec(order['program']); main(order)"
PLAYBOOK = Path(__file__).with_name("playbook.yml")
ANSWER = re.compile(r"^(\w+): \[([^\]]+?)\](?:: [A-Z]+!)? => (\{.*\})$", re.MULTILINE)
OWN = {"ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
OWN |= {"ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "20", "ANSIBLE_NO_TARGET_SYSLOG": "1", "ANSIBLE_VERBOSITY": "0"}
OWN |= {"ANSIBLE_CALLBACK_FORMAT_PRETTY": "0", "ANSIBLE_DISPLAY_FAILED_STDERR": "0"}
HOW: dict[str, Any] = {"env": OWN, "check": False, "record": False}


@dataclass
class OwnProcess(Hosts):
    """This machine, in a process of its own that ends what it has begun; its commands find the `variables`."""

    variables: Callable[[], dict[str, str]] = dict
    root: Path = Path()  # where programs run, and find what settings name

    @property
    def limit(self) -> float:
        """The seconds for one host's change."""
        return CHANGE + self.host.wait + self.host.drain

    def argv(self, name: str, *command: str) -> list[str]:
        """Return the words by which the host `name` runs a command."""
        return list(command)

    def call(self, name: str, verb: str, **arguments: Any) -> Any:
        if self.is_here and verb in LOOKS:  # quick, and often
            return super().call(name, verb, **arguments)
        tree, timeout = arguments.pop("tree", os.devnull), LOOK if verb in LOOKS else self.limit
        python = [sys.executable, "-I"] if self.is_here else ["python3"]
        hint = shlex.join(self.argv(name, *python, "--version"))
        with TemporaryFile() as stdin, Path(tree).open("rb") as content:
            stdin.write(order_of(self.host, verb, arguments))
            shutil.copyfileobj(content, stdin)
            stdin.seek(0)
            argv = self.argv(name, *python, "-c", PROGRAM)
            how: dict[str, Any] = {"cwd": self.root, "env": self.variables(), "stdin": stdin, "timeout": timeout}
            try:
                done = process.run(argv, **how, check=False, record=False)
            except process.CommandFailed as no:
                raise Refused(f"has not answered within {timeout:g} s. {no.finished.tail(5)}".strip(), hint) from None
        return answer_of(done.stdout, done.tail(5), hint, "" if self.is_here else name)

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
        tunnel = process.Supervised(argv, self.root, os.environ)
        try:
            if not wait_until(lambda: is_taken(port) or tunnel.poll() is not None, LOOK) or tunnel.poll() is not None:
                where = f"{self.environment.capitalize()}, {name}"
                raise Refused(f"{where}: ssh does not forward to {origin}.", shlex.join(argv))
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.stop()


class Ansible(Ssh):
    """The hosts of an `inventory` that the pattern `limit` names: the playbook makes the batches, looks go by ssh."""

    def __init__(
        self, name: str, host: Host, inventory: str, ssh: list[str], batches: list[int], limit: str, root: Path = Path()
    ):
        self.which = ["--inventory", inventory, "--limit", limit]
        said = process.run(["ansible-inventory", *self.which, "--list"], cwd=root, timeout=LOOK, **HOW)
        found = parsed(said.stdout)
        about = found.get("_meta", {}).get("hostvars", {})  # where a host without variables is left out
        names = sorted({host for group in found.values() for host in group.get("hosts", [])})
        self.variables_of: dict[str, dict[str, Any]] = {host: about.get(host, {}) for host in names}
        if not self.variables_of:
            raise Refused(f"Ansible finds no host of {name}: {said.tail(5)}", shlex.join(said.argv))
        self.serial = batches
        super().__init__(name, host, names, batches=[len(names)], root=root, ssh=ssh)

    def argv(self, name: str, *command: str) -> list[str]:
        about = {key: str(value) for key, value in self.variables_of[name].items() if value}
        about |= {key.replace("_ssh_", "_"): value for key, value in about.items() if "_ssh_" in key}  # they win
        options = {"-p": "ansible_port", "-l": "ansible_user", "-i": "ansible_private_key_file"}
        words = [word for option, key in options.items() if key in about for word in (option, about[key])]
        for key in ("ansible_args", "ansible_common_args", "ansible_extra_args"):
            words += shlex.split(about.get(key, ""))
        return [*self.ssh, *SSH, *words, about.get("ansible_host", name), *map(shlex.quote, command)]

    def try_all(self, names: Sequence[str], verb: str, **arguments: Any) -> dict[str, Any]:
        if verb in LOOKS:
            return super().try_all(names, verb, **arguments)
        about = {"names": list(names), "verb": verb, "tag": arguments.get("tag", ""), "program": PROGRAM}
        about |= {"tree": arguments.pop("tree", ""), "batches": self.serial if verb == "switch" else [len(names)]}
        with TemporaryDirectory() as folder:
            order = Path(folder, "order.json")
            order.write_bytes(order_of(self.host, verb, arguments))
            extra = ["--extra-vars", json.dumps({**about, "order": str(order)})]
            argv = ["ansible-playbook", "-v", *self.which, *extra, str(PLAYBOOK)]
            done = process.run(argv, cwd=self.root, timeout=self.limit * len(names), **HOW)
        found = dict[str, Any]()
        for state, name, text in ANSWER.findall(done.stdout):
            answer = parsed(text)
            if state == "fatal" or "stdout" in answer:  # the copying of the tree has none
                said = "\n".join(filter(None, [answer.get("msg"), answer.get("stderr")]))
                try:
                    found[name] = answer_of(answer.get("stdout", ""), said, shlex.join(self.argv(name)), name)
                except Refused as no:
                    found[name] = no
        if not any(isinstance(answer, Refused) for answer in found.values()) and (done.code or len(found) < len(names)):
            hint = shlex.join(["ansible", *self.which, "--module-name", "ping", "all"])
            raise Refused(f"Ansible ended with exit code {done.code}:\n{done.tail()}", hint)
        return found


def order_of(host: Host, verb: str, arguments: dict[str, Any]) -> bytes:
    """Return what `host.main` gets, with the program: some of our modules as one. No variable of ours is sent."""
    names = ("../errors", "../files", "../machine", "releases", "host")
    source = "\n".join((Path(__file__).parent / f"{name}.py").read_text("utf-8") for name in names)
    program = "from __future__ import annotations\n" + re.sub(r"(?m)^from (release_tasks|__future__).*", "", source)
    about = {**asdict(host), "folder": host.folder.as_posix()}
    order = {"program": program, "host": about, "verb": verb, "arguments": arguments}
    return json.dumps(order).encode() + b"\n"


def answer_of(stdout: str, said: str, hint: str, name: str) -> Any:
    """Return the result of `host.main`. Raises `Refused`, with a hint for us, or with one for the host `name`."""
    answer = parsed(stdout.strip().rpartition("\n")[2])
    if not answer:
        raise Refused(f"cannot be reached, or its Python did not answer: {said}", hint)
    if "failed" in answer:
        there = answer["hint"] and f"{answer['hint']}   # on {name}"
        raise Refused(answer["failed"], there if name else answer["hint"])
    return answer["result"]
