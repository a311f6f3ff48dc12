"""Section 7.2 of the release process: the release goes on only if these hold on staging."""

import pytest

SYMBOLS = "select symbol from settings.coin_universe where enabled"
MATRICES = """
    select type, base, quote from settings.coin_universe, unnest(array['benchmark', 'delta', 'pct24h']) as type
    where enabled"""


def test_api_ok(api, target):
    api.expect("/api/health", {"ok": True, "database": {"ok": True}, "version": target.version})


@pytest.mark.parametrize("path", ["/", "/sampling", "/matrices", "/cycles", "/klines"])
def test_ui_renders_all_views(view, path):
    view(path, shows="main[data-state=ready]", must_not_show=["cannot be drawn"])


def test_sampling_and_matrices_are_fresh(series):
    series("str_aux.samples_5s", keys=SYMBOLS).is_fresh(within=20)
    matrices = series("matrices.dyn_values", MATRICES, key=["matrix_type", "base", "quote"], time="ts_ms", unit="ms")
    matrices.is_fresh(within=30)


def test_no_gaps_in_ingest(series):
    series("str_aux.samples_5s", keys=SYMBOLS).has_no_gaps(every=5, window=900)


def test_no_sql_warnings_in_server_logs(log):
    log.has_no_trouble()
