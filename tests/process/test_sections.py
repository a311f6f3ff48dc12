"""The sections one by one: each task brings the sections before it along, and together they are the release."""

from __future__ import annotations

import pytest
from world import World

SECTIONS = {
    "preconditions": [],
    "freeze": [],
    "docs-pack": [],
    "tag": [],
    "notes": [],
    "deploy.staging": [],
    "deploy.production": ["--yes"],
    "archive": [],
    "post-release": [],
}


@pytest.mark.slow
def test_the_sections_one_after_the_other_are_the_release(little: World) -> None:
    for section, options in SECTIONS.items():
        ran = little.inv(section, "--version", "0.1.1", *options)
        assert ran.code == 0, ran.output
    assert little.is_released()
    before = little.look()
    little.finish()
    assert little.look() == before


def test_the_smokes_alone_pass_and_fail_as_they_are(little: World) -> None:
    ran = little.inv("smokes", "--env", "dev")
    assert ran.code == 0 and "PASS writing" in ran.output
    little.let_smoke("writing", "fails")
    assert little.inv("smokes", "--env", "dev", "--only", "writing").refuses("the smoke saw smoke")
    assert little.inv("smokes", "--env", "dev", "--only", "schema").code == 0
    assert little.inv("smokes", "--env", "staging").refuses("Nothing has been deployed to staging yet")
