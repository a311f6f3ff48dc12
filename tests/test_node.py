"""Node and pnpm of the right versions come first on PATH."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from release_tasks import node
from release_tasks.errors import Refused
from release_tasks.process import run

PNPM = "12.21.0"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "package.json").write_text(json.dumps({"packageManager": f"pnpm@{PNPM}"}))
    return tmp_path


def fake(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
    (folder / name).chmod(0o755)
    return folder


def test_node_npm_and_npx_work_and_run_typescript(tmp_path: Path, cache: Path) -> None:
    environment = node.runtime(tmp_path, cache)
    for program in ("npm", "npx"):
        assert run([program, "--version"], env=environment).stdout[0].isdigit()
    (tmp_path / "x.mts").write_text("const n: number = 2; console.log(n)")
    assert run(["node", "x.mts"], cwd=tmp_path, env=environment).stdout == "2\n"


def test_pnpm_is_of_exactly_the_wanted_version_and_made_once(app: Path, cache: Path) -> None:
    environment = node.runtime(app, cache)
    assert run(["pnpm", "--version"], cwd=app, env=environment).output.strip() == PNPM
    run(["pnpm", "install"], cwd=app, env=environment)  # where it would look for itself in the registry
    made = [path.stat().st_mtime_ns for path in cache.rglob("*")]
    assert node.runtime(app, cache) == environment
    assert [path.stat().st_mtime_ns for path in cache.rglob("*")] == made
    assert [path.name for path in cache.iterdir() if "pnpm" in path.name] == [f"pnpm-{PNPM}"]


@pytest.mark.skipif(sys.platform == "win32", reason="stands in with shell scripts")
def test_the_system_s_programs_are_used_when_they_are_right(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = fake(fake(tmp_path / "bin", "node", "v22.18.0"), "pnpm", PNPM)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    assert node.runtime(app, tmp_path / "unused")["PATH"] == path
    assert not (tmp_path / "unused").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="stands in with shell scripts")
def test_an_old_node_without_a_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake(tmp_path / "old", "node", "v22.17.1")))
    monkeypatch.setattr(node, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"Node 22\.18 or newer is needed, found: 22\.17\.1") as refused:
        node.runtime(tmp_path, tmp_path)
    assert "pip install" in refused.value.problems[0].hint


@pytest.mark.parametrize(
    ("package", "lock", "version"),
    [
        ({"packageManager": "pnpm@12.21.0+sha512.ab"}, True, "12.21.0"),
        ({"packageManager": "pnpm@9.0.0-rc.1"}, True, "9.0.0-rc.1"),
        ({"packageManager": "npm@11.0.0"}, False, None),
        ({}, False, None),
        (None, False, None),
    ],
)
def test_the_wanted_pnpm(tmp_path: Path, package: dict[str, str] | None, lock: bool, version: str | None) -> None:
    if package is not None:
        (tmp_path / "package.json").write_text(json.dumps(package))
    if lock:
        (tmp_path / "pnpm-lock.yaml").touch()
    assert node.pnpm_version(tmp_path) == version


@pytest.mark.parametrize("manager", ["pnpm", "pnpm@latest", "pnpm@^12.0.0", ""])
def test_a_pnpm_without_an_exact_version_is_refused(tmp_path: Path, manager: str) -> None:
    (tmp_path / "package.json").write_text(json.dumps({"packageManager": manager}))
    (tmp_path / "pnpm-lock.yaml").touch()
    with pytest.raises(Refused, match="exact version"):
        node.pnpm_version(tmp_path)


@pytest.mark.parametrize("package", [b"[]", b"{", b"\xff"])
def test_a_package_json_that_cannot_be_read_is_named(tmp_path: Path, package: bytes) -> None:
    (tmp_path / "package.json").write_bytes(package)
    with pytest.raises(Refused, match=r"package\.json (is no JSON object|cannot be read as UTF-8)"):
        node.pnpm_version(tmp_path)
