"""What the documents quote is what the layer says and takes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from release_tasks.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_readme_shows_the_real_list_of_tasks() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "invoke", "--list"], cwd=ROOT, capture_output=True, text=True, env={"COLUMNS": "80"}
    ).stdout
    assert listed.strip() and listed.strip() in text("README.md")


def key_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the key path of each setting below `model`; `<>` stands for free keys, `[]` for the entries of a list."""
    for name, field in model.model_fields.items():
        yield from paths_of(field.annotation, f"{prefix}{name}")


def paths_of(annotation: Any, path: str) -> Iterator[str]:
    inner = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from key_paths(annotation, f"{path}.")
    elif inner:
        (model,) = inner
        yield from key_paths(model, f"{path}[]." if "list" in str(annotation) else f"{path}.<>.")
    elif "dict[" in str(annotation):
        yield f"{path}.<>"
    else:
        yield path


def test_every_setting_is_documented_and_none_that_is_not_there() -> None:
    rows = re.findall(r"^\| `([a-z][^`]*)` \|", text("docs/SETTINGS.md"), re.MULTILINE)
    documented = {re.sub(r"<[^>]*>", "<>", row) for row in rows}
    set_here = {
        re.sub(r"^environments\.(dev|staging|production)\.", "environments.<>.", p) for p in key_paths(Settings)
    }
    assert documented == set_here


def test_links_between_documents_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "sample" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def texts_in(file: Path) -> Iterator[str]:
    """Yield the texts of a module, docstrings and the parts of f-strings among them."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_text_of_the_layer_points_to_a_file_that_an_adopter_does_not_have() -> None:
    theirs = re.compile(r"(?<![/\w])(?:docs|sample|tests|bench)/[\w./-]*|\b(?:README|CONTRIBUTING|CHANGELOG)\.md")
    brought = {"docs/RELEASE_NOTES_TEMPLATE.md", "CHANGELOG.md"}  # by the adopter
    files = [ROOT / "tasks.py", *(ROOT / "release_tasks").rglob("*.py")]
    found = {word for file in files for text in texts_in(file) for word in theirs.findall(text)}
    assert found <= brought


def test_the_readmes_command_starts_nox_where_nox_is_installed_too() -> None:
    listed = subprocess.run([sys.executable, "noxfile.py", "--list"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0
    for session in ("rehearse", "tests", "smokes(str_aux_sampling)"):
        assert session in listed.stdout
