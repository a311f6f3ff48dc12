"""A query through psycopg, and what it has to give: no rows, some, at least n, or one value in a range."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import Connection, Error, OperationalError, errors

from release_tasks.checks.place import Asked, Place
from release_tasks.checks.verdict import ROWS, Seen, Unknown
from release_tasks.kinds import Check, Keyed, Sql

NOTHING = ("no row", "0", None, "f", "", "{}", "[]")  # as the one value of a query for what was looked at


def look_at_sql(check: Sql, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Ask, and return what is wrong with the answer; raise `Unknown` without one, or when nothing was looked at."""
    try:
        query = seen["query"] = check.query or (Path(place.code) / check.file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        no = f"The file {check.file} cannot be read: {getattr(error, 'strerror', '') or 'it is not UTF-8 text'}."
        raise Unknown(no, f"ls -l {check.file}", definite=True) from None
    with asking(check, place, query, writes=check.changes) as connection:
        if check.between:
            return _outside(*check.between, _answer(connection, query, 2, check.changes)[1], seen)
        least = 0 if check.expect == "none" else check.at_least or 1
        most = max(least, ROWS + 1)
        count, rows = _answer(connection, query, most, check.changes)
        many = "1 row" if count == 1 else f"{'at least ' * (count == most)}{count} rows"
        seen.update(value=count, threshold=f"at least {least} rows" if least else "no rows", in_words=many)
        if least:
            return [] if count >= least else [f"It gives {many}; expected {least} at least."]
        if rows:
            seen["rows"] = rows[:ROWS]
            return [f"It gives {many}; expected none. One of them: {rows[0]}."]
    with asking(check, place, check.over, "query `over`") as connection:
        count, rows = _answer(connection, check.over, ROWS + 1)
    values = list(rows[0].values()) if count == 1 else []
    value = "no row" if not count else values[0] if len(values) == 1 else "a row" if count == 1 else "rows"
    seen["over"] = f"{check.over} → {value}"
    if value in NOTHING:
        raise Unknown(f"Nothing was looked at: over, {check.over!r}, gives {value}.")
    return []


@contextmanager
def asking(check: Check, place: Place, query: str, what: str = "query", writes: bool = False) -> Iterator[Connection]:
    """Yield a connection for `query` within the check's time; what PostgreSQL refuses is raised as `Unknown`."""
    with place.connect(check.timeout, read_only=not writes) as connection:
        try:
            yield connection
        except Error as error:
            said = error.diag.message_primary or " ".join(str(error).split())
            mend, again = "Mend the query in invoke.yaml.", isinstance(error, OperationalError)
            if isinstance(error, errors.QueryCanceled):
                said, mend = f"{said} ({check.timeout:g} s)", "Give it an index, less to do, or a longer timeout."
            elif isinstance(error, errors.SyntaxError):
                said = f"it is not one query that reads: {said}"
                mend = "Write one select; what writes needs `changes: true`."
                if isinstance(check, Keyed):
                    mend = "Mend table, key, keys and time in invoke.yaml: SQL, where a name with capitals is quoted."
            elif isinstance(error, errors.UndefinedFunction | errors.DatatypeMismatch) and isinstance(check, Keyed):
                mend = "Mend key and time in invoke.yaml; a time in milliseconds needs `unit: ms`."
            elif isinstance(error, errors.ReadOnlySqlTransaction):
                mend = "If it has to write, mark it with `changes: true`: it is then rolled back."
            elif isinstance(error, errors.InsufficientPrivilege):
                *_, sort, name = said.split()
                right = {"schema": "usage on schema", "function": "execute on function"}.get(sort, "select on")
                named = re.search(rf'(\w+\.)?"?{re.escape(name)}\b"?', query)
                mend = f"grant {right} {named[0] if named else name} to {connection.info.user}"
            raise Unknown(f"{place.name} does not answer the {what}: {said}.", mend, definite=not again) from None


def _answer(connection: Connection, query: str, most: int, changes: bool = False) -> tuple[int, list[Seen]]:
    """Return how many rows there are, counted by the server and up to `most`, and the first ones as text."""
    how, few = "prepare looked as" if changes else "declare looked no scroll cursor for", min(most, ROWS + 1)
    with connection.transaction(force_rollback=True):
        connection.execute(f"{how}\n{query}".encode(), binary=True)  # by the protocol that takes no second statement
        cursor = connection.execute(b"execute looked" if changes else f"fetch {few} from looked".encode())
        count, result, names = cursor.rowcount, cursor.pgresult, [each.name for each in cursor.description or ()]
        if count == few < most and not changes:
            count += connection.execute(f"move {most - few} from looked".encode()).rowcount
    names = [name if name not in names[:at] else f"{name} {at + 1}" for at, name in enumerate(names)]
    got = [[result.get_value(row, at) for at in range(len(names))] for row in range(min(count, few))] if result else []
    texts = [[value and value[:200].decode(errors="replace") for value in row] for row in got]  # dates of any year
    return count, [dict(zip(names, row, strict=True)) for row in texts]


def _outside(least: float, most: float, rows: list[Seen], seen: Seen) -> list[str]:
    seen["threshold"], values = f"{least:g} to {most:g}", [value for row in rows for value in row.values()]
    if values in ([], [None]):
        raise Unknown(f"Nothing was looked at: it gives {'NULL' if rows else 'no row'}; expected a value.")
    try:
        (value,) = map(float, values)
    except (TypeError, ValueError):
        raise Unknown(f"It gives {values}; expected one number.", "Mend the query.", definite=True) from None
    seen.update(value=value, in_words=f"{value:g}")
    return [] if least <= value <= most else [f"It gives {value:g}; expected {least:g} to {most:g}."]
