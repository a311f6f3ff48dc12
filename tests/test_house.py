"""The house is as docs/ARCHITECTURE.md shows it: every room has its floor, and calls go down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("engine", "sections", "what sections work with", "checks", "tools", "ground")


def floors() -> dict[str, int]:
    """Return room → number of its floor, from the top, as the document lists them, as `freeze` or `schema.ddl`."""
    listing = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```\ntasks.py")[1].split("```")[0]
    found, floor, inside = {}, -1, ""
    for line in listing.splitlines():
        floor += any(line.startswith(name) for name in FLOORS)
        names, _, words = line.strip().partition("   ")
        depth = len(line) - len(line.lstrip())
        if depth <= 4:
            inside = names.replace("/", ".") if names.endswith("/") else ""
        rooms = [*names.split(), *re.findall(r"\w+(?=[:,)])", words)] if depth else []
        found |= {inside + room: floor for room in rooms if path_of(inside + room).exists()}
    return found


def path_of(room: str) -> Path:
    return ROOT / "release_tasks" / f"{room.replace('.', '/')}.py"


def rooms() -> dict[str, Path]:
    """Return every room there is, with its file."""
    files = sorted((ROOT / "release_tasks").rglob("[!_]*.py"))
    return {".".join(file.relative_to(ROOT / "release_tasks").with_suffix("").parts): file for file in files}


def imported_by(room: Path) -> Iterator[str]:
    """Yield the rooms that `room` imports when it runs, at the top or inside its functions."""
    tree = ast.parse(room.read_text(encoding="utf-8"))
    for_types = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    ]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node not in for_types
            and (node.module or "").startswith("release_tasks")
        ):
            module = (node.module or "").partition(".")[2]
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            yield from [name for name in names if path_of(name).exists()] or [module]


def test_every_room_is_in_the_house_and_calls_go_down() -> None:
    plan = floors()
    assert set(rooms()) == set(plan)
    upwards = [
        f"{room} -> {to}"
        for room, file in rooms().items()
        for to in imported_by(file)
        if plan.get(to, plan[room]) < plan[room]
    ]
    assert upwards == []


def test_only_the_executor_knows_invoke() -> None:
    knows = re.compile(r"(?m)^ *(import|from) invoke\b")
    assert [room for room, file in rooms().items() if knows.search(file.read_text())] == ["executor"]
