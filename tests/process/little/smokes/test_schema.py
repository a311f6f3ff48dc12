"""The schema has its symbols."""


def test_symbols_are_there(db):
    assert db.execute("select from app.symbols").fetchall()
