"""SBOMs and statements: of what the tag says, valid, and the same each time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from release_tasks.evidence import statements
from tests.conftest import Work
from tests.evidence.attacks import Good

ROOT = Path(__file__).resolve().parents[2]
ZEROS = f"sha512-{'A' * 86}=="
PACKAGE_LOCK = {
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "app"},
        "node_modules/@scope/a": {"version": "1.0.0", "integrity": ZEROS},
        "node_modules/b": {"version": "2.0.0", "integrity": "sha512-torn"},
        "node_modules/b/node_modules/@scope/a": {"version": "0.9.0"},
        "node_modules/alias": {"name": "real", "version": "3.0.0-rc.1+x"},
    },
}
PNPM_LOCK = """lockfileVersion: '9.0'

packages:

  '@types/node@22.18.0':
    resolution: {integrity: @}

  'a@1.0.0(b@2.0.0)':
    resolution: {tarball: https://host.example/a.tgz}

  c@file:../c:
    resolution: {directory: ../c, type: directory}

snapshots:

  'a@1.0.0(b@2.0.0)(d@4.0.0)': {}
""".replace("{integrity: @}", f"{{integrity: {ZEROS}}}")
REQUIREMENTS = """# The tools
--index-url https://host.example/simple
-r others.txt
psycopg[binary] >=3.2,<4
rich==14.1.0
exact[extra] == 1.0 ; python_version < "3.12"  # why
wild ==1.*
both ==1.0,!=1.1
https://host.example/x.whl
git+https://host.example/y.git
plain
"""
PYPROJECT = '[project]\nname = "app"\ndependencies = ["httpx ~=0.27", "attrs==25.1.0"]\n'
UV_LOCK = '[[package]]\nname = "attrs"\nversion = "25.1.0"\n\n[[package]]\nname = "app"\nsource = { virtual = "." }\n'


def purls(work: Work, tmp_path: Path, kind: str) -> list[str]:
    statements.write(work.release(), tmp_path)
    return [each["purl"] for each in sbom(tmp_path / "sbom" / f"{kind}.cdx.json")["components"]]


def sbom(path: Path) -> dict[str, Any]:
    """Return an SBOM that the library's strict schema of CycloneDX 1.6 takes."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = path.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


def test_packages_of_npm_are_those_of_its_lock_file_each_version_once(work: Work, tmp_path: Path) -> None:
    work.commit({"package-lock.json": json.dumps(PACKAGE_LOCK)})
    assert purls(work, tmp_path, "node") == [
        "pkg:npm/%40scope/a@0.9.0",
        "pkg:npm/%40scope/a@1.0.0",
        "pkg:npm/b@2.0.0",
        "pkg:npm/real@3.0.0-rc.1%2Bx",
    ]
    assert not (tmp_path / "sbom" / "python.cdx.json").exists()


def test_packages_of_pnpm_are_those_of_its_lock_file_with_their_hashes(work: Work, tmp_path: Path) -> None:
    work.commit({"pnpm-lock.yaml": PNPM_LOCK})
    assert purls(work, tmp_path, "node")[:2] == ["pkg:npm/%40types/node@22.18.0", "pkg:npm/a@1.0.0"]
    first, second, _ = sbom(tmp_path / "sbom" / "node.cdx.json")["components"]
    assert first["hashes"] == [{"alg": "SHA-512", "content": "00" * 64}] and "hashes" not in second


def test_the_samples_own_lock_file_is_read_whole(work: Work, tmp_path: Path) -> None:
    text = (ROOT / "sample" / "pnpm-lock.yaml").read_text(encoding="utf-8")
    work.commit({"pnpm-lock.yaml": text})
    found = purls(work, tmp_path, "node")
    assert len(found) == text.count("    resolution: {") and "pkg:npm/postgres@3.4.9" in found


def test_packages_of_python_are_pinned_ones_with_versions_and_others_with_what_is_required(
    work: Work, tmp_path: Path
) -> None:
    layer = {"release_tasks/requirements.txt": "invoke >=2.2,<4\n", "uv.lock": UV_LOCK, "pyproject.toml": PYPROJECT}
    work.commit({"requirements-dev.txt": REQUIREMENTS, **layer})
    assert purls(work, tmp_path, "python") == [
        "pkg:pypi/app",
        "pkg:pypi/attrs@25.1.0",
        "pkg:pypi/both",
        "pkg:pypi/exact@1.0",
        "pkg:pypi/httpx",
        "pkg:pypi/invoke",
        "pkg:pypi/plain",
        "pkg:pypi/psycopg",
        "pkg:pypi/rich@14.1.0",
        "pkg:pypi/wild",
    ]
    components = {it["name"]: it for it in sbom(tmp_path / "sbom" / "python.cdx.json")["components"]}
    assert components["psycopg"]["description"] == ">=3.2,<4" and components["wild"]["description"] == "==1.*"


def test_purls_of_python_are_normalised_and_names_are_as_written(work: Work, tmp_path: Path) -> None:
    work.commit({"requirements.txt": "GitPython==3.1.45\nzope_._interface==7\n"})
    work.commit({"requirements-dev.txt": "gitpython==3.1.45\n"})
    python = ["pkg:pypi/gitpython@3.1.45", "pkg:pypi/gitpython@3.1.45", "pkg:pypi/zope-interface@7"]
    assert purls(work, tmp_path, "python") == python
    components = sbom(tmp_path / "sbom" / "python.cdx.json")["components"]
    assert [each["name"] for each in components] == ["GitPython", "gitpython", "zope_._interface"]
    assert len({each["bom-ref"] for each in components}) == 3


def test_a_lock_file_of_nothing_is_an_sbom_of_nothing(work: Work, tmp_path: Path) -> None:
    work.commit({"package-lock.json": '{"packages": {"": {}}}'})
    assert purls(work, tmp_path, "node") == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"packages": 1}', '{"packages": {"a": 1}}', "\ufffe"])
def test_a_lock_file_that_cannot_be_read_is_named_and_holds_up_nothing(work: Work, tmp_path: Path, text: str) -> None:
    work.commit({"package-lock.json": text, "uv.lock": text, "pyproject.toml": text})
    assert purls(work, tmp_path, "node") == ["pkg:npm/package-lock.json"]
    python = sbom(tmp_path / "sbom" / "python.cdx.json")["components"]
    assert {it["name"] for it in python} == {"uv.lock", "pyproject.toml"}
    assert all(it["description"].startswith("it cannot be read: ") for it in python)


def test_statements_name_tar_bundle_and_commit_and_claim_no_level(good: Good) -> None:
    found = {name: good.folder / "data" / "attest" / f"{name}.intoto.json" for name in ("release", "provenance")}
    read = {name: json.loads(path.read_text()) for name, path in found.items()}
    hashes = {it.name: hashlib.sha256(it.read_bytes()).hexdigest() for it in (good.source, good.bundle)}
    commit = json.loads((good.folder / "data" / "ids.json").read_text())["commit"]
    for name, kind in (("release", "in-toto.io/attestation/release/v0.1"), ("provenance", "slsa.dev/provenance/v1")):
        assert (read[name]["_type"], read[name]["predicateType"]) == (
            "https://in-toto.io/Statement/v1",
            f"https://{kind}",
        )
        digests = {it["name"]: it["digest"] for it in read[name]["subject"]}
        assert {it: digests[it]["sha256"] for it in hashes} == hashes
        assert digests["refs/tags/v0.1.1"] == {"gitCommit": commit}
    assert read["release"]["predicate"] == {"purl": "pkg:generic/app@0.1.1"}
    predicate = read["provenance"]["predicate"]
    assert predicate["buildDefinition"].keys() == {"buildType", "externalParameters", "resolvedDependencies"}
    assert predicate["runDetails"]["builder"]["id"] == f"swh:1:rev:{commit};path=/tasks.py"
    assert "level" not in json.dumps(read).lower()
