"""The house is as docs/ARCHITECTURE.md shows it: every room has its floor, and calls go down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("engine", "sections", "what sections work with", "tools", "ground")


def floors() -> dict[str, int]:
    """Return room → number of its floor, from the top, as the document lists them."""
    listing = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```\ntasks.py")[1].split("```")[0]
    found, floor = {}, -1
    for line in listing.splitlines():
        floor += any(line.startswith(name) for name in FLOORS)
        names, _, words = line.strip().partition("   ")
        rooms = [*names.split(), *re.findall(r"\w+(?=[:,)])", words)] if line.startswith("    ") else []
        found |= {room: floor for room in rooms if (ROOT / "release_tasks" / f"{room}.py").exists()}
    return found


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
            yield from [module] if module else [alias.name for alias in node.names]


def test_every_room_is_in_the_house_and_calls_go_down() -> None:
    rooms, plan = sorted((ROOT / "release_tasks").glob("[!_]*.py")), floors()
    assert {room.stem for room in rooms} == set(plan)
    upwards = [f"{room.stem} -> {to}" for room in rooms for to in imported_by(room) if plan[to] < plan[room.stem]]
    assert upwards == []


def test_only_the_executor_knows_invoke() -> None:
    rooms = (ROOT / "release_tasks").glob("*.py")
    assert [room.stem for room in rooms if "import invoke" in (text := room.read_text()) or "from invoke" in text] == [
        "executor"
    ]
