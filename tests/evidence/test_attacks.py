"""Every hostile or damaged pack is refused, by the check that it is meant for, with the reason."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.evidence.attacks import ATTACKS, Attack, Good
from tests.evidence.conftest import Verify


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_with_its_reason(attack: Attack, copied: Good, verified: Verify) -> None:
    found = verified(copied, attack.change(copied))[attack.check]
    assert found.outcome == "failed"
    assert re.search(attack.reason, found.message), found.message
    assert not list(copied.folder.parent.glob("**/evil")), "it writes nowhere"


def test_there_are_enough_attacks_each_with_a_name_of_its_own() -> None:
    assert len(ATTACKS) >= 40
    assert [name for name, count in Counter(each.name for each in ATTACKS).items() if count > 1] == []


def test_the_good_pack_passes_every_check(good: Good, verified: Verify) -> None:
    assert {name: result.message for name, result in verified(good).items() if not result.is_pass} == {}
