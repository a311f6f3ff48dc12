"""What must hold on staging before production is touched, and the smokes that must speak."""

from __future__ import annotations

import pytest
from outside import ended, processes_of, until
from world import World

BULLETS = {
    "unhealthy": "/api/health says that ok is false",
    "broken-view": "/samples answered with status 500",
    "stale": "the newest row of BTC",
    "hole": "ETH has a hole of",
    "warning": "WARNING: the little app is worried",
}


@pytest.mark.parametrize("fault", ["stale", "warning"])
def test_what_fails_on_staging_stops_before_production_until_it_is_mended(little: World, fault: str) -> None:
    little.let_go_wrong("staging", fault)
    ran = little.release(env={"LITTLE_WAIT": "12"})
    assert ran.refuses("7. Deploy to Staging", BULLETS[fault])
    assert little.runs() == {"staging": "0.1.1", "production": None}
    assert not little.places["production"].folder.joinpath("releases").exists()
    deployed = little.places["staging"].folder.joinpath("current").stat()
    little.let_go_wrong("staging")
    if fault == "warning":  # it stays in the log
        little.set(("    wait:", "    log: [{exceptions: {little app is worried: it always is}}]\n    wait:"))
    ran = little.inv("deploy.staging", "--version", "0.1.1", env={"LITTLE_WAIT": "12"})
    assert ran.code == 0, ran.output
    assert little.places["staging"].folder.joinpath("current").stat() == deployed
    assert little.stamps() == {"staging": ["0.1.1"], "production": []}


def test_all_that_fails_on_staging_is_told_at_once_when_it_is_looked_at_again(little: World) -> None:
    faults = set(BULLETS) - {"stale"}  # which would be a hole as well
    little.let_go_wrong("staging", *faults)
    assert little.release(env={"LITTLE_WAIT": "12"}).code == 1
    assert little.release(env={"LITTLE_WAIT": "0"}).refuses(*(BULLETS[fault] for fault in faults))


@pytest.mark.parametrize(
    "fault, said",
    [("fails", "the smoke saw smoke"), ("hangs", "did not end within 5 s"), ("says nothing", "did not print")],
)
def test_a_smoke_that_does_not_pass_stops_the_release(little: World, fault: str, said: str) -> None:
    if fault == "hangs":
        little.set(('writing$", timeout: 60', 'writing$", timeout: 5'))
    little.let_smoke("writing", fault)
    before = little.look()
    ran = little.release()
    assert ran.refuses("The smoke writing fails on dev", said)
    assert until(lambda: not processes_of(little.folder))
    after = little.look()
    for look in (before, after):
        look["schemas"].pop("dev")  # it gets the pack, before the smokes are judged there
    assert after == before


def test_a_smoke_that_fails_on_staging_stops_before_the_stamp(little: World) -> None:
    with little.paused("after the restart on staging") as release:
        little.let_smoke("writing", "fails")
        little.go_on()
        assert ended(release).refuses("The smoke writing fails on staging", "the smoke saw smoke")
    assert little.stamps() == {"staging": [], "production": []}
    little.let_smoke("writing", "")
    little.finish()
    assert little.is_released()
