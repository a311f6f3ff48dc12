"""How hosts get their part: by a process of ours, OpenSSH, the programs of Ansible (GPL-3.0), or a tool as Kamal."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from release_tasks import process, temporary
from release_tasks.deploy.host import Host
from release_tasks.deploy.hosts import Hosts
from release_tasks.deploy.settings import Tool
from release_tasks.errors import Refused
from release_tasks.files import RECORDS, atomic_write
from release_tasks.machine import is_taken, parsed, probe, wait_until
from release_tasks.masks import short
from release_tasks.settings import Settings

LOOK, CHANGE = 20.0, 7200.0  # seconds for one host; what a change waits for has limits of its own, or comes on top
ALIVE = ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]  # else who waits for a host that is gone waits on
SSH = ["-o", "BatchMode=yes", *ALIVE]
PROGRAM = "import json, sys; order = json.loads(sys.stdin.buffer.readline()); exec(order['program']); main(order)"
PLAYBOOK = Path(__file__).with_name("playbook.yml")
ANSWER = re.compile(r"^(\w+): \[([^\]]+?)\](?:: [A-Z]+!)? => (\{.*\})$", re.MULTILINE)
OWN = {"ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
OWN |= {"ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "20", "ANSIBLE_NO_TARGET_SYSLOG": "1", "ANSIBLE_VERBOSITY": "0"}
OWN |= {"ANSIBLE_CALLBACK_FORMAT_PRETTY": "0", "ANSIBLE_DISPLAY_FAILED_STDERR": "0"}
HOW: dict[str, Any] = {"env": OWN, "check": False, "record": False}


def hosts_of(name: str, root: Path, settings: Settings, variables: Callable[[str], dict[str, str]]) -> Hosts:
    """Return the hosts of the environment `name`; on this machine commands find the application's `variables`."""
    own = settings.environments.named(name)
    named = any("{service}" in word for word in own.restart)  # else it is run once, for all
    services = ["web", *(name for name in settings.services if name != "web" and named)]
    about = {**host_settings(settings), "services": services, "halt": own.stop}
    about |= own.model_dump(include={"restart", "colours", "nginx", "drain"})
    if own.tool.deploy:
        facts = folder_of(name, root)
        return Hosts(name, ToolHost(facts, own.origin, **about, tool=own.tool, root=root), own.tool.deploy[:1])
    if own.inventory or own.hosts:
        host = Host(Path(own.folder), own.front or "http://127.0.0.1", **about)
        if own.inventory:
            return Ansible(name, host, str(root / own.inventory), own.ssh, own.batches, own.limit, root)
        return Processes(name, host, own.hosts, own.batches, own.ssh, root=root)
    host = Host(root / own.folder, own.front or own.origin, **about)
    return Processes(name, host, variables=lambda: {**variables(""), **temporary.original_variables()})


def folder_of(name: str, root: Path) -> Path:
    """Return the folder on this machine for what an environment leaves here: all of an embedded one."""
    return root / RECORDS / "environments" / name


def host_settings(settings: Settings) -> dict[str, Any]:
    """Return what every host knows."""
    about = {"version_path": settings.acceptance.version, "wait": max(settings.acceptance.wait, 1)}
    return about | {"keep": settings.keep_releases, "subfolder": settings.folder, "install": settings.install}


@dataclass
class Processes(Hosts):
    """Hosts that do their part in a process of its own, which ends what it has begun: by `ssh`, or on this machine."""

    ssh: Sequence[str] = ("ssh",)  # perhaps with options, as a configuration file
    variables: Callable[[], dict[str, str]] = dict  # what commands find on this machine
    root: Path = Path()  # where programs run, and find what settings name

    @property
    def limit(self) -> float:
        return CHANGE + self.host.wait + self.host.drain

    def argv(self, name: str, *command: str) -> list[str]:
        """Return the words by which the host `name` runs a command."""
        return list(command) if self.is_here else [*self.ssh, *SSH, name, *map(shlex.quote, command)]

    def call(self, name: str, verb: str, **arguments: Any) -> Any:
        if self.is_here and verb == "look":  # quick, and often
            return super().call(name, verb, **arguments)
        tree, timeout = arguments.pop("tree", os.devnull), LOOK if verb == "look" else self.limit
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

    @contextmanager
    def tunnel(self, name: str, origin: str) -> Iterator[str]:
        if self.is_here:
            yield origin
            return
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


class Ansible(Processes):
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
            raise Refused(f"Ansible finds no host of {name}: {short(said.stderr, 400)}", shlex.join(said.argv))
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
        if verb == "look":
            return super().try_all(names, verb, **arguments)
        about = {"names": list(names), "verb": verb, "tag": arguments.get("tag", ""), "program": PROGRAM}
        about |= {"tree": arguments.pop("tree", ""), "batches": self.serial if verb == "switch" else [len(names)]}
        with TemporaryDirectory() as folder:
            order = Path(folder, "order.json")
            order.write_bytes(order_of(self.host, verb, arguments))
            extra = ["--extra-vars", json.dumps({**about, "order_file": str(order)})]
            alive = ["--ssh-extra-args", shlex.join(ALIVE)]
            argv = ["ansible-playbook", "-v", *self.which, *alive, *extra, str(PLAYBOOK)]
            done = process.run(argv, cwd=self.root, timeout=self.limit * len(names), **HOW)
        found = dict[str, Any]()
        for state, name, text in ANSWER.findall(done.stdout):
            answer = parsed(text)
            if state == "fatal" or "stdout" in answer:  # the copying of the tree has none
                said = "\n".join(filter(None, [answer.get("msg"), answer.get("stderr")]))
                hint = shlex.join(self.argv(name, "python3", "--version"))
                try:
                    found[name] = answer_of(answer.get("stdout", ""), said, hint, name)
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
        where = f"   # on {name}" if name and answer["hint"] else ""
        raise Refused(answer["failed"], f"{answer['hint']}{where}")
    return answer["result"]


@dataclass
class ToolHost(Host):
    """All that a tool deploys to, as one host; here are only facts and the journal, in `root` its configuration."""

    tool: Tool = field(kw_only=True)
    root: Path = field(kw_only=True)

    def place(self, tag: str, facts: dict[str, Any], sha256: str, tree: str = "") -> None:
        self.code_of(tag).mkdir(parents=True, exist_ok=True)
        if self.facts(tag).get("commit") != facts["commit"]:
            atomic_write(self.code_of(f"{tag}.json"), json.dumps(facts).encode())

    def record(self) -> tuple[str, str]:
        """Return the newest release whose version, tag, commit or image `running` prints, and no colour."""
        printed = re.findall(r"[\w.:/@+-]+", self.say(self.tool.running))
        return next((tag for tag in self.releases() if {*printed} & {*self.names_of(tag).values()}), ""), ""

    def make_live(self, tag: str) -> None:
        """Let the tool deploy `tag`, or roll back to it where it was live before, and see that it runs then."""

        def runs() -> bool:
            return self.record()[0] == tag and self.answers(tag)

        if runs():  # by another clone, of which no facts are here
            return
        was_live = self.facts(tag).get("by") and self.tool.rollback  # written by its first switch
        names = self.names_of(tag)
        self.say([word.format_map(names) for word in (self.tool.rollback if was_live else self.tool.deploy)], CHANGE)
        if not wait_until(runs, self.wait):
            said = f"{short(self.say(self.tool.running))}; {probe(self.front, self.version_path)[1]}"
            raise Refused(f"{tag} was deployed, and does not run within {self.wait:g} s; running: {said}")

    def names_of(self, tag: str) -> dict[str, str]:
        """Return what the placeholders stand for, by which `running` may name the release `tag`."""
        facts = self.facts(tag)
        names = {"version": facts.get("version", ""), "tag": tag, "commit": facts["commit"]}
        return {**names, "image": self.tool.image.format(**names)}

    def say(self, argv: list[str], timeout: float = 60) -> str:
        """Run a command of the tool, at most some seconds, and return what it printed. Raises `Refused`."""
        return process.run(argv, cwd=self.root, timeout=timeout, supervised=True).stdout
