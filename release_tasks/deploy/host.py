"""One host's releases: `look`, `place`, `start`, `switch`, `stop`; the same on this machine as on others.

A host gets this file and what it imports as they are: the standard library alone, of Python 3.8 or newer. A switch that
has begun finishes even if the connection is lost: the new release is live, or the previous one is again.

    current -> …            what is live; or, with colours behind nginx:
    blue, green -> …        what each colour starts from
    traffic.conf            included by nginx; its first line says which release and which colour are live
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from release_tasks.deploy.releases import Releases
from release_tasks.errors import Refused
from release_tasks.files import atomic_write, readable_by_all
from release_tasks.machine import failing_in, is_busy, is_taken, locked, now, point_link, probe, wait_until

LOCK = 600.0  # seconds for another release on this host; whoever sent us waits longer
FRONT = 10.0  # seconds until a flip is seen through nginx
TRAFFIC = """# {tag} {colour}
upstream app {{ server 127.0.0.1:{port} max_fails=0; server 127.0.0.1:{other} max_fails=0 backup; keepalive 16; }}
"""
RECORD = re.compile(r"# (?P<tag>[^ \n]*) (?P<colour>[^ \n]+)")


@dataclass
class Host(Releases):
    """One host, as the settings of its environment describe it; `services` are web, then those in one colour only.

    `front` is where nginx answers on this host, or without colours the web app; `colours` has the port of each.
    """

    folder: Path
    front: str
    version_path: str = ""
    wait: float = 60
    drain: float = 30
    keep: int = 5
    subfolder: str = "."
    install: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=lambda: ["web"])
    restart: list[str] = field(default_factory=list)
    halt: list[str] = field(default_factory=list)
    colours: dict[str, int] = field(default_factory=dict)
    nginx: list[str] = field(default_factory=list)

    def perform(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Do what `verb` names, one change at a time; return its result. Raises `Refused`."""
        lock = nullcontext() if verb == "look" else locked(self.folder / ".lock", "release", LOCK)
        with failing_in(self.folder), readable_by_all(), lock:
            return getattr(self, verb)(**arguments)

    def look(self) -> dict[str, Any]:
        """Return which release is live in which colour, what answers, the releases here, and the switches."""
        tag, colour = self.record()
        found = {"tag": tag, "colour": colour, "releases": self.releases(), "switches": self.switches()}
        return {**found, "answers": probe(self.front, self.version_path)}

    def record(self) -> tuple[str, str]:
        """Return the tag and the colour that are live, "" for none. Raises `Refused` where that is torn."""
        if not self.colours:
            return self.linked("current"), ""
        if not self.traffic.exists():
            return "", ""
        found = RECORD.match(self.traffic.read_text("utf-8", "replace"))
        if not found or found["colour"] not in self.colours:
            what = f"{self.traffic} does not say which release is live, as does a first line '# v0.1.2 blue'."
            raise Refused(what, shlex.join(["ls", "-l", *(str(self.folder / each) for each in self.colours)]))
        return (found["tag"], found["colour"]) if found["tag"] else ("", "")

    def answers(self, tag: str, origin: str = "", seconds: float = 0) -> bool:
        """Tell whether `origin`, by default the front, answers as the release `tag`, at the latest in some seconds."""
        expected = self.facts(tag).get("version") if self.version_path else "any"
        origin = origin or self.front  # of what was there before us no version is known: any will do
        return wait_until(lambda: bool(got := probe(origin, self.version_path)[0]) and expected in (got, None), seconds)

    def place(self, tag: str, facts: dict[str, Any], sha256: str, tree: str = "") -> None:
        """Put the release `tag` here, unless it is. Raises `Refused`, also where nginx refuses its configuration."""
        if self.colours:
            live = self.folder / "current"
            is_left = self.record()[0] and live.is_symlink() and live.lstat().st_mtime < self.traffic.stat().st_mtime
            # From before the colours: its jobs would run beside those of a colour.
            if self.linked("current") and not is_left:
                hint = f"stop what `current` runs, then: mv {self.folder}/current {self.folder}/current.before"
                raise Refused(f"{self.folder} has a release live without colours, in `current`.", hint)
            if not self.traffic.exists():  # nginx has to start before the first release
                self.write_traffic("", next(iter(self.colours)))
            self.run([*self.nginx, "-t", "-q"])
        if self.facts(tag).get("commit") != facts["commit"]:
            super().place(tag, facts, sha256, tree)

    def start(self, tag: str) -> str:
        """Start the release `tag` in its colour, or in the idle one, until it answers; return its origin."""
        live = self.record()[1]
        colour = self.colour_of(tag) or self.other(live)
        origin = f"http://127.0.0.1:{self.colours[colour]}"
        if self.linked(colour) != tag or not self.answers(tag, origin):
            self.stop(colour)
            if is_taken(self.colours[colour]):
                what = f"Port {self.colours[colour]} ({colour}) is taken by something that `stop` does not stop."
                what += "" if live else f" In {self.folder} nothing is live: is that the right folder?"
                raise Refused(what, f"ss --listening --tcp --processes 'sport = :{self.colours[colour]}'")
            point_link(self.folder / colour, self.code_of(tag))
            for service in self.services[:1] if live else self.services:  # where nothing ran, nobody has the jobs
                self.call(self.restart, colour, service)
            try:
                self.expect(tag, self.wait, origin)
            except Refused:
                with suppress(Refused):
                    self.stop(colour)
                raise
        return origin

    def stop(self, colour: str = "") -> None:
        """Stop a colour, by default the idle one, where there are any."""
        colour = colour or (self.other(self.record()[1]) if self.colours else "")
        is_ours = colour and (self.record()[1] or self.linked(colour))  # else it may run from another folder
        for service in reversed(self.services if is_ours else []):
            self.call(self.halt, colour, service)

    def switch(self, tag: str, by: str) -> None:
        """Make the release `tag` live. Raises `Refused` where it does not answer; then what was live is live again."""
        found, had = self.releases(), self.record()[0]
        if tag not in found:
            raise Refused(f"{tag} is not in place here.")
        is_again = had == tag and found[tag].get("since")
        if is_again and self.answers(tag):
            return
        before = (found[tag].get("before") if had == tag else had) or ""
        self.note(tag, f"{had or 'nothing'} → {tag}", by, **({} if is_again else {"before": before, "since": None}))
        old = "" if is_again else before  # what was live before what is live would be one too many
        try:
            with failing_in(self.folder):
                self.make_live(tag)
        except Refused as failed:
            state = f"{tag} stays, as it is live." if is_again else "There is nothing to go back to."
            try:
                if old and self.record()[0] == old and self.answers(old):
                    state = f"{old} is still live."
                elif old and self.code_of(old).is_dir():
                    self.make_live(old)
                    state = f"It went back: {old} is live again."
            except (Refused, OSError) as no:
                state = f"{old} does not answer either. {no}"
            with suppress(Refused, OSError):  # what went wrong matters more than that it cannot be recorded
                self.note(tag, f"{failed} {state}", by, since=found[tag].get("since"))
                self.stop()
            raise Refused(f"{failed}\n{state}", failed.problems[0].hint) from None
        self.stop()
        for each in found.keys() - {tag, before, *list(found)[: self.keep]}:
            self.remove(each)
        self.note(tag, f"{tag} is live", by, since=now(), by=by)

    def make_live(self, tag: str) -> None:
        """Make `tag` live, by nginx or by a restart. Raises `Refused` where it does not answer then."""
        if not self.colours:
            point_link(self.folder / "current", self.code_of(tag))
            for service in self.services:
                self.call(self.restart, "current", service)
            return self.expect(tag, self.wait)
        self.reload()  # where nginx is away, or refuses its configuration, nothing is touched
        self.start(tag)
        new, was = self.colour_of(tag), self.traffic.read_bytes()
        self.write_traffic(tag, new)
        try:
            self.reload()
        except Refused:  # nginx goes on as before, and so does the record
            atomic_write(self.traffic, was)
            raise
        self.expect(tag, FRONT)
        for service in self.services[1:]:  # handed over: two of a job could do harm
            self.call(self.halt, self.other(new), service)
            self.call(self.restart, new, service)
        wait_until(lambda: not is_busy(self.colours[self.other(new)]), self.drain)
        self.expect(tag, 1)  # so long the other colour could have taken over

    @property
    def traffic(self) -> Path:
        return self.folder / "traffic.conf"

    def other(self, colour: str) -> str:
        return next(each for each in self.colours if each != colour)

    def colour_of(self, tag: str) -> str:
        """Return the colour that starts from `tag`: where both do, the one that is live; "" for none."""
        return next((each for each in (self.record()[1], *self.colours) if each and self.linked(each) == tag), "")

    def write_traffic(self, tag: str, colour: str) -> None:
        """Write the record, and where nginx sends requests: the other colour is the backup."""
        about = {"tag": tag, "colour": colour, "port": self.colours[colour], "other": self.colours[self.other(colour)]}
        atomic_write(self.traffic, TRAFFIC.format_map(about).encode())

    def reload(self) -> None:
        """Let nginx read its configuration anew. Raises `Refused` where it refuses it, or does not run."""
        self.run([*self.nginx, "-t", "-q"])
        try:
            self.run([*self.nginx, "-s", "reload"])
        except Refused as no:
            when = f"nginx has to run before a release goes live; {self.traffic}, which it includes, is there."
            raise Refused(f"{no}\n{when}", f"{shlex.join(self.nginx)}   # or by the service manager") from None

    def expect(self, tag: str, seconds: float, origin: str = "") -> None:
        """Wait until the release `tag` answers, by default through the front. Raises `Refused` with what answers."""
        if not self.answers(tag, origin, seconds):
            logs = f"Look at the logs in {self.folder}, or of what `restart` starts; fix it, and run again."
            said = probe(origin or self.front, self.version_path)[1]
            raise Refused(f"{tag} does not answer within {seconds:g} s: {said}", logs)

    def call(self, command: list[str], colour: str, service: str) -> None:
        """Run `restart` or `stop`, which find COLOUR, SERVICE, PORT and APP_VERSION in their environment."""
        about = {"COLOUR": colour, "SERVICE": service, "PORT": str(self.colours.get(colour, ""))}
        about["APP_VERSION"] = self.facts(self.linked(colour)).get("version", "")
        words = [word.replace("{colour}", colour).replace("{service}", service) for word in command]
        if words:
            self.run(words, variables={name: value for name, value in about.items() if value})


def main(order: dict[str, Any]) -> None:
    """Do what another process or machine orders; answer in JSON with its `result`, or what `failed` and a `hint`."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, lambda *_: None)  # the connection is lost; what we start gets its own handler
    host = Host(**{**order["host"], "folder": Path(order["host"]["folder"])})
    try:
        answer = {"result": host.perform(order["verb"], order["arguments"])}
    except Refused as no:
        answer = {"failed": str(no), "hint": no.problems[0].hint}
    with suppress(OSError):
        print(json.dumps(answer), flush=True)
    os._exit("failed" in answer)  # quietly, also where nobody listens any more
