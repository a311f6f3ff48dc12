"""The proof of a DDL pack on a scratch server (section 2, `inv ddl.validate`): made, remembered, shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from release_tasks import screen, versions
from release_tasks.errors import Problem, refuse
from release_tasks.files import write_aside
from release_tasks.git import Git
from release_tasks.release import project_root, settings_of
from release_tasks.schema import ddl, findings, scratch
from release_tasks.schema.proving import FileProof, Proof, Proving

if TYPE_CHECKING:
    from release_tasks.schema.ddl import DdlFile
    from release_tasks.settings import Settings


def proof_of(pack: list[DdlFile], last: list[DdlFile], root: Path, settings: Settings) -> Proof:
    """Return the proof of `pack`, which lies in `root`, over `last` (empty: there is none), made once for these files.

    One with problems is not remembered.
    """
    more = (str(len(pack)), settings.ddl.model_dump_json())
    remembered = scratch.memory("proof", [*pack, *last], root, settings, scratch.major_like(None), *more)
    if remembered.exists():
        found = json.loads(remembered.read_text(encoding="utf-8"))
        return Proof(**{**found, "files": [FileProof(**file) for file in found["files"]]})
    proof = prove(pack, last, root, settings)
    if not proof.problems:
        write_aside(remembered, json.dumps(asdict(proof)).encode())
    return proof


def prove(pack: list[DdlFile], last: list[DdlFile], root: Path, settings: Settings) -> Proof:
    """Prove `pack` with the runner of the settings, on a server that is thrown away."""
    proof = Proof([FileProof(file.path) for file in pack])
    for found in findings.findings_in(pack):
        mend = found.mend or f"Mend {found.path}, or give a reason in release.ddl.exceptions."
        proof.add(Problem(f"{found}.", mend), settings.ddl.exceptions, found.blocks)
    times = 3 + bool(settings.ddl.command) + 2 * bool(last)
    with (
        scratch.server(root) as running,
        screen.progress("Proving the DDL pack", times * len(pack) + 2 * len(last)) as advance,
    ):
        Proving(proof, pack, last, root, settings, running, advance).prove()
    return proof


def report(config: Any, as_json: bool) -> None:
    """Prove the DDL pack as it lies here, over that of the last released version; show a table. Raises `Refused`."""
    screen.for_machines(as_json)
    root, settings = project_root(config), settings_of(config)
    pack = ddl.pack_in(root, root, settings)
    since, last = _last_released(root, settings)
    if problems := ddl.pack_problems(pack, settings.ddl):
        proof = Proof([FileProof(file.path) for file in pack], problems=problems)
    else:
        proof = prove(pack, last, root, settings)
        proof.told += ddl.order_disagreements([file.name for file in pack], root, settings)
    if as_json:
        screen.as_json({"over": since, **asdict(proof)})
    else:
        _show(proof, since)
    refuse(proof.problems)


def _last_released(root: Path, settings: Settings) -> tuple[str | None, list[DdlFile]]:
    git = Git.open(root, settings.remote)
    try:
        found = [version for tag in git.tagged_on("HEAD") if (version := versions.version_named(tag))]
        newest = versions.highest(found)
        return (f"v{newest}", ddl.pack_at(git, f"refs/tags/v{newest}", settings)) if newest else (None, [])
    finally:
        git.close()


def _show(proof: Proof, since: str | None) -> None:
    cells = [
        (
            PurePosixPath(file.path).name,
            "not reached" if file.seconds is None else f"{file.seconds * 1000:.0f} ms",
            file.notices,
            file.warnings,
            ", ".join(file.locks),
        )
        for file in proof.files
    ]
    screen.table("The DDL pack from empty", ["file", "took", "notices", "warnings", "locks on old tables"], cells)
    screen.say(f"\n{proof}")
    screen.say(f"Over {since}." if since else "No release came before: there is no upgrade to prove.")
    screen.say(f"Made-up rows: {sum(proof.rows.values())}; tables that got some: {len(proof.rows)}.")
    for line in proof.told:
        screen.say(f"  {line}")
    for line, reason in proof.excepted.items():
        screen.say(f"  {line} Excepted: {reason}")
    if not proof.problems:
        screen.say("Proved.", "bold green")
