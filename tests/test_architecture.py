"""The architecture is as docs/ARCHITECTURE.md shows it: every module has its layer, and imports go down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("engine", "sections", "what sections work with", "an environment", "tools", "foundation")


def layers() -> dict[str, int]:
    """Return module → number of its layer, from the top, as the document lists them, as `freeze` or `schema.ddl`."""
    listing = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```\ntasks.py")[1].split("```")[0]
    found, layer, inside = {}, -1, ""
    for line in listing.splitlines():
        layer += any(line.startswith(name) for name in LAYERS)
        names, _, words = line.strip().partition("   ")
        depth = len(line) - len(line.lstrip())
        if depth <= 4:
            inside = names.replace("/", ".") if names.endswith("/") else ""
        modules = [*names.split(), *re.findall(r"\w+(?=[:,)])", words)] if depth else []
        found |= {inside + module: layer for module in modules if path_of(inside + module).exists()}
    return found


def path_of(module: str) -> Path:
    return ROOT / "release_tasks" / f"{module.replace('.', '/')}.py"


def modules() -> dict[str, Path]:
    """Return every module there is, with its file."""
    files = sorted((ROOT / "release_tasks").rglob("[!_]*.py"))
    return {".".join(file.relative_to(ROOT / "release_tasks").with_suffix("").parts): file for file in files}


def imported_by(module: Path) -> Iterator[str]:
    """Yield the modules that `module` imports, at the top, inside its functions or for types alone."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("release_tasks"):
            module = (node.module or "").partition(".")[2]
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            yield from [name for name in names if path_of(name).exists()] or [module]


def test_every_module_has_its_layer_and_imports_go_down() -> None:
    plan = layers()
    assert set(modules()) == set(plan)
    upwards = [
        f"{module} -> {to}"
        for module, file in modules().items()
        for to in imported_by(file)
        if plan.get(to, plan[module]) < plan[module]
    ]
    assert upwards == []


def test_no_imports_go_in_a_circle_not_even_for_types() -> None:
    graph = {module: {to for to in imported_by(file) if to in modules()} for module, file in modules().items()}
    assert set(TopologicalSorter(graph).static_order()) == set(modules())  # which raises CycleError


def test_only_the_engine_knows_invoke() -> None:
    knows = re.compile(r"(?m)^ *(import|from) invoke\b")
    assert [module for module, file in modules().items() if knows.search(file.read_text())] == ["engine"]
