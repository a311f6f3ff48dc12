"""The coin universe is whole, in the database and by the API."""


def test_every_enabled_symbol_is_its_base_and_its_quote(db):
    rows = db.execute("select symbol, base || quote from settings.coin_universe where enabled").fetchall()
    assert rows, "no symbol is enabled"
    assert [symbol for symbol, pair in rows if symbol != pair] == []


def test_the_api_lists_what_the_database_enables(db, api):
    enabled = {symbol for (symbol,) in db.execute("select symbol from settings.coin_universe where enabled")}
    listed = {coin["symbol"] for coin in api.get("/api/universe").json()["coins"] if coin["enabled"]}
    assert listed == enabled
