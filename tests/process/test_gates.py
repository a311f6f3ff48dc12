"""What must hold on staging before production is touched, and the smokes that must speak."""

from __future__ import annotations

import pytest
from outside import ended, processes_of, until
from world import World

BULLETS = {
    "unhealthy": '/api/health says {"ok": false}',
    "broken-view": "/samples answered 500",
    "stale": "the newest row of BTC",
    "hole": "ETH has a gap of",
    "warning": "WARNING: the little app is worried",
}


def test_what_fails_on_staging_stops_before_production_until_it_is_fixed_and_another_stamp_is_no_dead_end(
    little: World,
) -> None:
    """C10"""
    little.let_go_wrong("staging", "stale")
    ran = little.release(env={"LITTLE_WAIT": "3"})
    assert ran.refuses("7. Deploy to Staging", BULLETS["stale"])
    assert little.runs() == {"staging": "0.1.1", "production": None}
    assert not little.places["production"].folder.joinpath("releases").exists()
    deployed = little.places["staging"].folder.joinpath("current").stat()
    insert = "insert into ops.session_log (app_name, app_version) values ('little', '0.1.0')"
    little.places["staging"].rows(insert)
    little.let_go_wrong("staging")
    ran = little.inv("deploy.staging", "--version", "0.1.1", env={"LITTLE_WAIT": "3"})
    assert ran.code == 0 and "changed  Stamp the ops session" in ran.output
    assert little.places["staging"].folder.joinpath("current").stat() == deployed
    assert little.stamps() == {"staging": ["0.1.1", "0.1.0", "0.1.1"], "production": []}


def test_all_that_fails_on_staging_is_told_at_once_when_it_is_looked_at_again(little: World) -> None:
    faults = set(BULLETS) - {"stale"}  # which would be a hole as well
    little.let_go_wrong("staging", *faults)
    assert little.release(env={"LITTLE_WAIT": "3"}).code == 1
    assert little.release(env={"LITTLE_WAIT": "0"}).refuses(*(BULLETS[fault] for fault in faults))
    little.let_go_wrong("staging")
    ran = little.inv("deploy.staging", "--version", "0.1.1", env={"LITTLE_WAIT": "3"})
    # It stays in the log, and the test that judges it is part of what was tagged.
    assert ran.refuses(BULLETS["warning"], "inv withdraw --version 0.1.1 ")
    assert BULLETS["broken-view"] not in ran.flat


@pytest.mark.parametrize(
    "fault, said",
    [
        ("hangs", "did not end within 5 s"),
        pytest.param("fails", "the smoke saw smoke", marks=pytest.mark.faults),
        pytest.param("says nothing", "did not print", marks=pytest.mark.faults),
    ],
)
def test_a_smoke_that_does_not_pass_stops_the_release(little: World, fault: str, said: str) -> None:
    if fault == "hangs":
        file = "smokes/test_writing.py"
        little.settle("test: wait less", {file: (little.repo / file).read_text().replace("timeout=60", "timeout=5")})
    assert little.inv("ddl.apply", "--env", "dev").code == 0
    little.let_smoke("writing", fault)
    before = little.look()
    ran = little.release()
    assert ran.refuses("Smoke writing: a sample can be stored: failed on dev", said)
    assert until(lambda: not processes_of(little.folder))
    after = little.look()
    for look in (before, after):
        look["schemas"].pop("dev")  # it gets the pack, before the smokes are judged there
    assert after == before


def test_the_smokes_alone_pass_and_fail_as_they_are(little: World) -> None:
    ran = little.inv("smokes", "--env", "dev")
    assert ran.code == 0 and "PASS writing" in ran.output
    little.let_smoke("writing", "fails")
    assert little.inv("smokes", "--env", "dev", "--only", "writing").refuses("the smoke saw smoke")
    assert little.inv("smokes", "--env", "dev", "--only", "schema").code == 0
    assert little.inv("smokes", "--env", "staging").refuses("Nothing has been deployed to staging yet")


def test_a_dry_run_does_not_run_smokes_before_the_ddl_pack_is_on_dev(little: World) -> None:
    """C12: it ran them on an empty dev, where they left views, and their refusals hid the real ones."""
    little.let_smoke("writing", "fails")
    before = little.look()
    ran = little.inv("--dry", "release", "--version", "0.1.1", "--yes")
    assert ran.code == 0 and "pending  The smokes pass on dev.  after the DDL pack is applied there" in ran.output
    assert little.look() == before


def test_a_command_that_names_what_is_not_there_is_found_in_section_2(little: World) -> None:
    """C1: it was found in section 7, after the tag."""
    little.set(('command: ["${PYTHON}", stamp.py]', 'command: ["${PYTHON}", stampp.py]'))
    little.set(('web: ["${PYTHON}", web.py]', "web: [pythonn, web.py]"))
    before = little.look()
    ran = little.release()
    assert ran.refuses("release.stamp.command needs stampp.py, and stampp.py is not committed")
    assert ran.refuses("release.services.web runs pythonn, and there is no such program")
    assert little.look() == before


def test_a_smoke_that_fails_on_staging_stops_before_the_stamp(little: World) -> None:
    with little.paused("after the restart on staging") as release:
        little.let_smoke("writing", "fails")
        little.go_on()
        ran = ended(release)
        assert ran.refuses("Smoke writing: a sample can be stored: failed on staging", "the smoke saw smoke")
        assert ran.refuses('inv withdraw --version 0.1.1 --reason "…"')
    assert little.stamps() == {"staging": [], "production": []}
    little.let_smoke("writing", "")
    assert little.inv("deploy.staging", "--version", "0.1.1").code == 0
    assert little.stamps() == {"staging": ["0.1.1"], "production": []}
