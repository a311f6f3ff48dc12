"""The debug views of the DDL pack see every symbol's windows covered, without a gap."""

import pytest


@pytest.mark.wait(20)
def test_every_window_is_covered(run):
    run("node", "scripts/smokes/schema-diagnostics.mts", must_print="^PASS schema-diagnostics")
