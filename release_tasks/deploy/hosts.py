"""The hosts of an environment: query all, change all at once or in batches; what one host does is in host.py."""

import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from release_tasks.deploy.host import Host
from release_tasks.errors import Problem, Refused, refuse
from release_tasks.files import file_sha256
from release_tasks.machine import user

HERE = "this machine"
AT_ONCE = 20  # hosts
NGINX = re.compile(r"nginx/(\d+)\.(\d+)\.(\d+)")


@dataclass
class HostStatus:
    """The status of a host, as `look` returns it; a `problem` where it does not answer."""

    tag: str = ""
    colour: str = ""
    answers: tuple[str, str] = ("", "")
    releases: dict[str, dict[str, Any]] = field(default_factory=dict)
    switches: tuple[dict[str, str], ...] = ()
    problem: str = ""


@dataclass
class Hosts:
    """The hosts of an environment: by default this machine, which does its part in our process."""

    environment: str
    host: Host
    names: Sequence[str] = (HERE,)
    batches: Sequence[int] = (1,)

    @property
    def is_here(self) -> bool:
        return HERE in self.names

    def call(self, name: str, verb: str, **arguments: Any) -> Any:
        """Let the host `name` do something. Raises `Refused`."""
        return self.host.perform(verb, arguments)

    # What is there

    def try_status(self) -> dict[str, HostStatus]:
        """Return host → status; that of one that cannot be reached is a problem."""
        found = dict[str, HostStatus]()
        for name, look in self.try_all(self.names, "look").items():
            failed = isinstance(look, Refused)
            found[name] = HostStatus(problem=f"{name}: {look}") if failed else HostStatus(**look)
        return found

    def status(self) -> dict[str, HostStatus]:
        """Return host → status. Raises `Refused` with those that cannot be reached."""
        return {name: HostStatus(**found) for name, found in self.call_all(self.names, "look").items()}

    def releases(self) -> dict[str, dict[str, Any]]:
        """Return tag → facts of the releases that every host has, at one commit, what was placed last first."""
        placed = [each.releases for each in self.status().values()]
        everywhere = set.intersection(*({(tag, facts["commit"]) for tag, facts in each.items()} for each in placed))
        return {tag: facts for tag, facts in placed[0].items() if (tag, facts["commit"]) in everywhere}

    def facts(self, tag: str) -> dict[str, Any]:
        """Return the facts of the release `tag` once it is in place on every host, {} before."""
        return self.releases().get(tag, {})

    def warnings(self) -> Iterator[str]:
        """Yield which nginx in front of two colours is so old that it may close connections under a request."""
        for name, seen in (self.status() if self.host.colours else {}).items():
            nginx = NGINX.search(seen.answers[1])
            if nginx and tuple(map(int, nginx.groups())) < (1, 27, 4):
                yield f"{name}: {nginx[0]} may lose a request at a flip; 1.27.4 does not"

    def tag(self) -> str:
        """Return which release is live, "" for none; on hosts that disagree, of the first."""
        return next(iter(self.live()))

    def live(self) -> dict[str, str]:
        """Return tag → commit of what is live on the hosts, that of the first one first; "" where it is not ours."""
        found = dict[str, str]()
        for each in self.status().values():
            found.setdefault(each.tag, each.releases.get(each.tag, {}).get("commit", ""))
        return found

    def is_live(self, tag: str, version: str) -> bool:
        """Tell whether every host has finished its switch to the release `tag`, and answers with its version."""
        return all(
            each.tag == tag and each.releases.get(tag, {}).get("since") and each.answers[0] in (version, "any")
            for each in self.status().values()
        )

    # What changes it

    def place(self, tag: str, facts: dict[str, Any], tree: Path) -> None:
        """Put the release `tag` on all hosts, from the tar `tree`. Raises `Refused` with each that does not take it."""
        self.call_all(self.names, "place", tag=tag, facts=facts, tree=str(tree), sha256=file_sha256(tree))

    def switch(self, tag: str) -> None:
        """Make the release `tag` live on all hosts, in batches. Raises `Refused`: a bad batch is the last."""
        left, sizes, size = self.names, iter(self.batches), 0
        while left:
            size = next(sizes, size)
            self.call_all(left[:size], "switch", tag=tag, by=f"{user()} on {platform.node()}")
            left = left[size:]

    @contextmanager
    def idle(self, tag: str) -> Iterator[str]:
        """Run the release `tag` in the idle colour, for the block; yield its origin."""
        name = self.names[0]
        origin = self.call_all([name], "start", tag=tag)[name]  # after Ctrl-C a host ends what it has begun
        try:
            with self.tunnel(name, origin) as reached:
                yield reached
        except BaseException:
            with suppress(Refused):
                self.call_all([name], "stop")
            raise

    @contextmanager
    def tunnel(self, name: str, origin: str) -> Iterator[str]:
        """Yield the local address that reaches `origin` on the host."""
        yield origin

    def call_all(self, names: Sequence[str], verb: str, **arguments: Any) -> dict[str, Any]:
        """Let the hosts `names` do something; return their answers. Raises `Refused` with all that failed."""
        found = self.try_all(names, verb, **arguments)
        where = self.environment.capitalize() + ("" if self.is_here else ", {}")
        failed = [(where.format(name), answer) for name, answer in found.items() if isinstance(answer, Refused)]
        refuse(Problem(f"{host}: {no}", no.problems[0].hint) for host, no in failed)
        return found

    def try_all(self, names: Sequence[str], verb: str, **arguments: Any) -> dict[str, Any]:
        """Let the hosts `names` do something, at once; return what each has answered, or was `Refused`."""

        def one(name: str) -> Any:
            try:
                return self.call(name, verb, **arguments)
            except Refused as no:
                return no

        with ThreadPool(min(len(names), AT_ONCE)) as pool:  # an executor would keep Ctrl-C waiting
            return dict(zip(names, pool.map(one, names, chunksize=1), strict=True))
