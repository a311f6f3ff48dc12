"""Other hosts by the programs of Ansible (GPL-3.0) and the team's inventory; looks go by ssh, which is quicker."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from release_tasks import process
from release_tasks.deploy.host import LOOKS, Host
from release_tasks.deploy.ssh import CHANGE, LOOK, PROGRAM, SSH, Ssh, answer_of, order_of
from release_tasks.errors import Refused
from release_tasks.machine import parsed

PLAYBOOK = Path(__file__).with_name("playbook.yml")
ANSWER = re.compile(r"^(\w+): \[([^\]]+?)(?: -> [^\]]+)?\](?:: [A-Z]+!)? => (\{.*\})$", re.MULTILINE)
OWN = {"ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
OWN |= {"ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "20", "ANSIBLE_NO_TARGET_SYSLOG": "1"}
HOW: dict[str, Any] = {"env": OWN, "check": False, "record": False}


class Ansible(Ssh):
    """The hosts of an `inventory` that the pattern `limit` names; the playbook makes the `batches`."""

    def __init__(self, name: str, host: Host, inventory: str, ssh: list[str], batches: list[int], limit: str):
        self.which = ["--inventory", inventory, "--limit", limit]
        said = process.run(["ansible-inventory", *self.which, "--list"], timeout=LOOK, **HOW)
        self.variables_of: dict[str, dict[str, Any]] = parsed(said.stdout).get("_meta", {}).get("hostvars", {})
        if not self.variables_of:
            raise Refused(f"Ansible finds no host of {name}: {said.tail(5)}", shlex.join(said.argv))
        names, self.serial = sorted(self.variables_of), batches
        super().__init__(name, host, names, batches=[len(names)], ssh=ssh)

    def argv(self, name: str, *command: str) -> list[str]:
        about = self.variables_of[name]
        given = {"-p": "ansible_port", "-l": "ansible_user", "-i": "ansible_ssh_private_key_file"}
        words = [word for option, key in given.items() if key in about for word in (option, str(about[key]))]
        for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
            words += shlex.split(about.get(key, ""))
        return [*self.ssh, *SSH, *words, about.get("ansible_host", name), *map(shlex.quote, command)]

    def try_all(self, names: Sequence[str], verb: str, **arguments: Any) -> dict[str, Any]:
        if verb in LOOKS:
            return super().try_all(names, verb, **arguments)
        found = self.play(names, verb, **arguments)
        return {name: answer if isinstance(answer, Refused) else answer["result"] for name, answer in found.items()}

    def play(self, names: Sequence[str], verb: str, *options: str, **arguments: Any) -> dict[str, Any]:
        """Run the playbook; return what `host.main` has answered on each host, or how that `Refused`."""
        about = {"names": list(names), "verb": verb, "tag": arguments.get("tag", ""), "program": PROGRAM}
        about |= {"tree": arguments.pop("tree", ""), "batches": self.serial if verb == "switch" else [len(names)]}
        with TemporaryDirectory() as folder:
            order = Path(folder, "order.json")
            order.write_bytes(order_of(self.host, verb, arguments))
            extra = ["--extra-vars", json.dumps({**about, "order": str(order)})]
            argv = ["ansible-playbook", "-v", *self.which, *extra, *options, str(PLAYBOOK)]
            done = process.run(argv, timeout=CHANGE * len(names), **HOW)
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
            raise Refused(f"Ansible ended with exit code {done.code}:\n{done.tail()}", shlex.join(done.argv))
        return found
