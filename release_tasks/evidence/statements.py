"""SBOMs of the tag's lock files, as CycloneDX 1.6; release and provenance, as in-toto statements."""

import json
import re
import tomllib
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import quote

from release_tasks.files import atomic_write, file_sha256
from release_tasks.masks import short
from release_tasks.release import Release

FILES = {"npm": r"(pnpm-lock\.yaml|package-lock\.json)$", "pypi": r"(requirements[^/]*\.txt|pyproject\.toml|uv\.lock)$"}
# name@version as pnpm writes it, below it the resolution, which has a hash unless it is a folder or a repository
PNPM = re.compile(r"(?m)^  '?/?(@?[^@\s']+)@([^'(\s]+?)'?(?:\(.*)?:\n    resolution: \{(?:integrity: ([^,}]+))?")
# A name, its version where it is pinned, and else what is required; a URL or an option is not read.
REQUIRED = re.compile(r"(?m)^(?![\w+]+:)([A-Za-z0-9][\w.-]*)(?:\[.*?\])? *(?:== *([\w.!+]+) *(?=[;#\\]|$))?(.*)$")


def write(release: Release, data: Path) -> None:
    """Write sbom/ and attest/ into a pack, after the source."""
    _write_sboms(release, data / "sbom")
    source: dict[str, Any] = {"name": release.tag_ref, "digest": {"gitCommit": release.commit}}
    made = [*data.glob("source/*.tar"), *data.glob("git/*.bundle")]
    subject = [*({"name": file.name, "digest": {"sha256": file_sha256(file)}} for file in made), source]
    predicates = {
        "https://in-toto.io/attestation/release/v0.1": {
            "purl": f"pkg:generic/{release.settings.app}@{quote(release.version)}"
        },
        "https://slsa.dev/provenance/v1": {
            "buildDefinition": {
                "buildType": "https://git-scm.com/docs/git-archive",
                "externalParameters": {"ref": release.tag_ref},
                "resolvedDependencies": [source],
            },
            "runDetails": {"builder": {"id": f"swh:1:rev:{release.commit};path=/tasks.py"}},
        },
    }
    for kind, predicate in predicates.items():
        statement = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": kind}
        _write(data / "attest" / f"{kind.split('/')[-2]}.intoto.json", {**statement, "predicate": predicate})


def _write_sboms(release: Release, folder: Path) -> None:
    """Write what lock files and requirements name, Node's and Python's apart, where there are any."""
    git, commit = release.git, release.commit
    folders = dict.fromkeys((".", release.settings.folder, Path(__file__).parents[1].name))
    paths = [path for each in folders for path in git.files_in(commit, each)]
    app = {"component": {"type": "application", "name": release.settings.app, "version": release.version}}
    for kind, pattern in FILES.items():
        if files := [path for path in paths if re.match(pattern, path.rpartition("/")[2])]:
            found = {each for path in files for each in _packages(path, git.bytes_at(commit, path) or b"")}
            about = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": app}
            components = [_component(kind, *each) for each in sorted(found)]
            name = "node.cdx.json" if kind == "npm" else "python.cdx.json"
            _write(folder / name, {**about, "components": components})


def _packages(path: str, content: bytes) -> list[tuple[str, ...]]:
    """Return name, version and hash (of requirements, what was required) of what a lock file names."""
    text = content.decode(errors="replace")
    try:
        if path.endswith("pnpm-lock.yaml"):
            return PNPM.findall(text)
        if path.endswith(".json"):
            found = [(at.rpartition("node_modules/")[2], it) for at, it in json.loads(text)["packages"].items() if at]
            return [(it.get("name", at), f"{it.get('version', '')}", f"{it.get('integrity', '')}") for at, it in found]
        if path.endswith("uv.lock"):
            return [(it["name"], it.get("version", ""), "") for it in tomllib.loads(text)["package"]]
        written = tomllib.loads(text).get("project", {}).get("dependencies", ()) if path.endswith(".toml") else [text]
        return REQUIRED.findall("\n".join(written))
    except (ValueError, KeyError, TypeError, AttributeError) as no:  # it was released all the same
        return [(path, "", f"it cannot be read: {short(repr(no))}")]


def _component(kind: str, name: str, version: str, more: str) -> dict[str, Any]:
    plain = re.sub(r"[-_.]+", "-", name).lower() if kind == "pypi" else name  # as PEP 503 and purl have it
    purl = f"pkg:{kind}/{quote(plain)}{'@' if version else ''}{quote(version)}"
    ref = f"{name}@{version}#{more}"
    about: dict[str, Any] = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": ref}
    if sha512 := re.match(r"sha512-([\w+/]{86}==)", more):
        return {**about, "hashes": [{"alg": "SHA-512", "content": b64decode(sha512[1]).hex()}]}
    return {**about, "description": more.strip()}


def _write(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
