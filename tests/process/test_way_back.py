"""The way back: by itself from a flip that fails, and by `inv deploy.rollback` from a release that is finished."""

from __future__ import annotations

import os
import pty

import pytest
from outside import Ran, until
from world import KILLED, World

VIEW = "ddl/03_view.sql"
NEXT = ("release", "--version", "0.1.2", "--yes", "--highlights", "More.")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def released(little: World) -> World:
    """Return a world that has 0.1.1, of which one release stays in place, and a view that 0.1.2 will drop."""
    little.set(("  title: Little", "  title: Little\n  keep_releases: 1"))
    little.settle("feat: a view", {VIEW: "create or replace view app.pairs as select symbol from app.symbols;\n"})
    little.finish()
    little.settle("feat!: no view", {VIEW: "drop view if exists app.pairs;\n"})
    return little


def _releases(little: World, place: str) -> list[str]:
    return sorted(path.name for path in (little.places[place].folder / "releases").iterdir() if path.is_dir())


def test_a_flip_that_fails_goes_back_by_itself_and_a_finished_release_is_gone_back_to(released: World) -> None:
    _a_flip_that_fails_goes_back_by_itself_and_the_same_command_goes_on(released)
    _a_finished_release_is_gone_back_to_and_a_hotfix_goes_through(released)


def _a_flip_that_fails_goes_back_by_itself_and_the_same_command_goes_on(little: World) -> None:
    """F4: production was down, and no way back was named."""
    fast = {"LITTLE_WAIT": "3"}
    little.let_go_wrong("staging", "away-0.1.2")
    ran = little.inv(*NEXT, env=fast)
    assert ran.refuses("Staging: v0.1.2 does not answer within 3 s", "answers 503: away", "Look at the logs in")
    assert ran.refuses("It went back: v0.1.1 is live again.")
    assert little.runs() == {"staging": "0.1.1", "production": "0.1.1"}
    little.let_go_wrong("staging")
    little.let_go_wrong("production", "away-0.1.2")
    for point in ("after the restart on production", "before the restart of 0.1.1 on production"):
        assert little.inv(*NEXT, env={**fast, "LITTLE_KILL": point}).code == KILLED
        assert until(lambda: little.runs() == {"staging": "0.1.2", "production": "0.1.1"})  # it goes back without us
    assert little.inv(*NEXT, env=fast).refuses("It went back: v0.1.1 is live again.")
    assert little.runs()["production"] == "0.1.1"
    little.let_go_wrong("production", "away-0.1.2", "away-0.1.1")
    ran = little.inv(*NEXT, env=fast)
    assert ran.refuses("v0.1.1 does not answer either. v0.1.1 does not answer")
    little.let_go_wrong("production")
    ran = little.inv(*NEXT)
    assert ran.code == 0 and "Released 0.1.2" in ran.output, ran.output
    assert little.runs() == {"staging": "0.1.2", "production": "0.1.2"}
    assert little.stamps() == {name: ["0.1.1", "0.1.2"] for name in ("staging", "production")}


def _a_finished_release_is_gone_back_to_and_a_hotfix_goes_through(little: World) -> None:
    (little.places["production"].folder / "releases" / "of-a-person").mkdir()
    assert little.inv("deploy.rollback").refuses("typed confirmation", "inv deploy.rollback --yes")
    assert little.inv("deploy.rollback", "--to", "0.1.0").refuses(
        "was never live in production", "In place are: 0.1.2, 0.1.1."
    )
    before = little.look()
    assert little.inv("--dry", "deploy.rollback").code == 0
    person, terminal = pty.openpty()
    os.write(person, b"yes\n")
    ran = little.inv("deploy.rollback", stdin=terminal)
    assert ran.refuses("v0.1.2 → v0.1.1; no DDL is undone", "Not confirmed: found 'yes', expected 0.1.1")
    assert little.look() == before

    little.let_go_wrong("production", "away-0.1.1")
    ran = little.inv("deploy.rollback", "--yes", env={"LITTLE_WAIT": "2"})
    assert ran.refuses("v0.1.1 does not answer", "It went back: v0.1.2 is live again.")
    little.let_go_wrong("production")
    assert little.runs()["production"] == "0.1.2"

    killed = little.inv("deploy.rollback", "--yes", env={"LITTLE_KILL": "after the restart on production"})
    assert killed.code == KILLED
    ran = little.inv("deploy.rollback", "--yes")
    assert ran.code == 0 and "Production runs 0.1.1." in ran.output, ran.output
    assert "The DDL of v0.1.2 took away what v0.1.1 may need: view app.pairs is dropped" in ran.flat
    assert little.runs() == {"staging": "0.1.2", "production": "0.1.1"}
    assert little.stamps()["production"] == ["0.1.1", "0.1.2", "0.1.1"]
    before = little.look()
    ran = little.inv("deploy.rollback", "--yes")
    assert ran.code == 0 and "runs 0.1.1 already; nothing was changed. In place are: 0.1.2, 0.1.1." in ran.flat
    ran = little.inv(*NEXT)
    assert ran.code == 0 and "history" in ran.output, ran.output
    assert little.look() == before
    _rows_are_as_they_are(little, little.inv("deploy.running", "--json"))

    ran = little.inv("release", "--version", "0.1.3", "--yes", "--highlights", "Fixed.")
    assert ran.code == 0, ran.output
    assert little.runs() == {"staging": "0.1.3", "production": "0.1.3"}
    assert _releases(little, "production") == ["of-a-person", "v0.1.1", "v0.1.3"]
    assert _releases(little, "staging") == ["v0.1.2", "v0.1.3"]


def _rows_are_as_they_are(little: World, ran: Ran) -> None:
    assert ran.code == 0, ran.output
    found = ran.json
    dev, staging, production = found["environments"]
    assert found["next"] == "" and (staging["drift"], production["drift"]) == (False, False)
    assert "could not be reached" in dev["problem"] and dev["ddl"]
    assert (staging["answers"], staging["ddl"], staging["unapplied"]) == ("0.1.2", "0.1.2", 0)
    assert production["answers"] == "0.1.1" and production["ddl"] == "0.1.2" and production["unapplied"] == 0
    assert " on " in production["by"]
    assert production["commit"] == little.git("rev-parse", "v0.1.1^{}") and production["since"] > staging["since"]
    assert production["stamped"].startswith("0.1.1 at ")
    unreachable = dict.fromkeys(("DEV_DSN", "STAGING_DSN", "PRODUCTION_DSN"), "postgresql://nobody@127.0.0.1:9/none")
    origins = dict.fromkeys(("DEV_ORIGIN", "STAGING_ORIGIN", "PRODUCTION_ORIGIN"), "http://127.0.0.1:9")
    ran = little.inv("deploy.running", env=unreachable | origins)
    assert ran.code == 1 and ran.flat.count("cannot be used") == 3, ran.output
