"""The folder of a host's releases: what is in place there whole, and the journal.

Sent to other hosts with host.py: the standard library alone, of Python 3.8 or newer.

    releases/v0.1.2/        a whole tree: unpacked beside, installed, then renamed
    releases/v0.1.2.json    its commit; what was live `before` it, `since` when it is, and `by` whom
    journal.jsonl           each switch, also one that failed
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from release_tasks.errors import Refused
from release_tasks.files import atomic_write, emptied
from release_tasks.machine import now, parsed, read_link, run, unpack

COMMAND, INSTALL = 120.0, 600.0  # seconds for `restart`, `stop` and nginx; for the application's packages


class Releases:
    """The releases in `folder`; `install` is run in the `subfolder` of each, and each of `colours` links to one."""

    folder: Path
    subfolder: str
    install: list[str]
    colours: dict[str, int]

    def releases(self) -> dict[str, dict[str, Any]]:
        """Return tag → facts of the releases here, what was placed last first."""
        found = {file.stem: facts for file in self.code_of("").glob("*.json") if (facts := self.facts(file.stem))}
        return dict(sorted(found.items(), key=lambda each: float(each[1].get("began_unix") or 0), reverse=True))

    def facts(self, tag: str) -> dict[str, Any]:
        """Return the facts of a release, {} where it is not here whole, or where they are torn."""
        file = self.code_of(f"{tag}.json")
        is_whole = file.is_file() and self.code_of(tag).is_dir()
        found = parsed(file.read_text("utf-8", "replace")) if is_whole else {}
        return found if "commit" in found else {}

    def place(self, tag: str, facts: dict[str, Any], sha256: str, tree: str = "") -> None:
        """Put the release `tag` here, whole: the tar `tree` with that hash, installed. Raises `Refused`.

        The tar is a file, or "" for the rest of standard input. Nothing that runs is touched: torn facts are refused.
        """
        part, file = self.code_of(f".{tag}.part"), self.code_of(f"{tag}.json")
        if file.exists() and self.code_of(tag).is_dir() and not self.facts(tag):
            hint = f"{shlex.join(['mv', str(file), f'{file}.broken'])}   # then its code is put in place again"
            raise Refused(f"{file} is not what a deployment leaves there: it may have been cut short.", hint)
        try:
            emptied(part)
            unpack(Path(tree).read_bytes() if tree else sys.stdin.buffer.read(), sha256, part)
            if self.install:
                self.run(self.install, part / self.subfolder, INSTALL, variables={"CI": "1"})
            if hasattr(os, "sync"):
                os.sync()  # also after a power cut its name has to mean: whole
            self.remove(tag)
            atomic_write(file, json.dumps(facts).encode())
            part.rename(self.code_of(tag))
        finally:
            for left in self.code_of("").glob(".*.part"):  # a full disk gets its space back
                shutil.rmtree(left, ignore_errors=True)

    def remove(self, tag: str) -> None:
        """Remove a release; first its name, so that what has one is whole."""
        for colour in self.colours:  # which may still run it, and is not what gets that name next
            if self.linked(colour) == tag:
                (self.folder / colour).unlink()
        gone = self.code_of(f".{tag}.gone.part")
        if self.code_of(tag).exists():
            self.code_of(tag).rename(gone)
        self.code_of(f"{tag}.json").unlink(missing_ok=True)
        shutil.rmtree(gone, ignore_errors=True)

    def note(self, tag: str, what: str, who: str, **facts: Any) -> None:
        """Add `facts` to those of the release `tag`, and a line to the journal."""
        atomic_write(self.code_of(f"{tag}.json"), json.dumps({**self.facts(tag), **facts}).encode())
        with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": now(), "by": who, "what": what}) + "\n")

    def switches(self) -> list[dict[str, Any]]:
        """Return the last lines of the journal, without those that were cut short."""
        journal = self.folder / "journal.jsonl"
        lines = journal.read_text("utf-8", "replace").splitlines()[-50:] if journal.exists() else []
        return [line for line in map(parsed, lines) if line]

    def code_of(self, tag: str) -> Path:
        return self.folder / "releases" / tag

    def linked(self, name: str) -> str:
        """Return the tag that the link `name` leads to, the path where that is no release of ours, "" for none."""
        path = read_link(self.folder / name)
        return "" if path is None else path.name if path.parent.name == "releases" else str(path)

    def run(self, argv: list[str], cwd: Path | None = None, timeout: float = COMMAND, **how: dict[str, str]) -> None:
        """Run a command with the `variables` of `how` besides our own. Raises `Refused`."""
        run(argv, cwd or self.folder, how.get("variables", {}), timeout)
