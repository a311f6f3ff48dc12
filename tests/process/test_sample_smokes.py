"""The sample's own smokes on a production that stands still: they pass, and leave every byte of its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from invoke.vendor import yaml
from outside import LAYER, git

from release_tasks import process, suites
from release_tasks.checks import runner
from release_tasks.config import load
from release_tasks.database.programs import client
from release_tasks.embedded import open_environment
from release_tasks.environments import Environment
from release_tasks.outcome import FAILED, PASSED
from release_tasks.rehearsal import deploy_previous

FOUR = {f"test_{name}" for name in ("schema_diagnostics", "str_aux_sampling", "idhr", "persistence_auto_smoke")}
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """The sample on an embedded production, its feed stopped after it has filled the tables."""
    monkeypatch.setenv("RELEASE_NOX", str(LAYER / ".nox"))
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(LAYER), str(clone))
    told = yaml.safe_load((clone / "invoke.yaml").read_text())["release"]
    feed = told["services"].pop("jobs")
    environment = open_environment("production", clone, load({**told, "acceptance": {"wait": 0}}))
    try:
        deploy_previous(environment)
        with suppress(process.CommandFailed):
            process.run(feed, cwd=environment.code / "sample", env=environment.variables("0.1.1"), timeout=15)
        yield environment
    finally:
        environment.close()


def dump(environment: Environment) -> str:
    """Return all of the database as pg_dump writes it, without the words that differ at each run."""
    with environment.connect() as connection:
        tool = client("pg_dump", connection.info.server_version // 10000)
    text = process.run([tool, "--dbname", environment.dsn], timeout=120).stdout
    return "\n".join(line for line in text.splitlines() if "restrict " not in line)


def test_the_four_smokes_pass_and_change_nothing(production: Environment) -> None:
    before = dump(production)
    assert before.count("\n") > 10_000
    results = ran(production)
    assert {each.message for each in results if each.outcome != PASSED} == set()
    assert {each.file for each in results} >= FOUR
    assert dump(production) == before

    with production.connect() as connection:
        connection.execute("delete from str_aux.samples_5s where symbol = 'ETHUSDT' and ts > now() - interval '1 hour'")
    assert {each.file for each in ran(production) if each.outcome == FAILED} == FOUR


def ran(environment: Environment) -> list[runner.Result]:
    target = runner.target_of(environment, "0.1.1")
    return runner.run(target, suites.smokes_of(environment.code), environment.root / ".release" / "kept")
