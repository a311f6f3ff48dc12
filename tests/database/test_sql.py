"""SQL text taken apart as psql and PostgreSQL do it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from release_tasks.database import postgres, sql

# Pieces of SQL

names = st.from_regex(r"[a-z_é][a-z0-9_$é]{0,6}", fullmatch=True).filter(lambda name: name not in ("copy", "create"))
numbers = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,2})?", fullmatch=True)
operators = st.sampled_from(["=", "+", "-", "*", "/", "<=", "->", "@>", "||", "::", ":=", ",", ".", "[", "]"])
identifiers = st.text(min_size=1).map(lambda text: '"' + text.replace('"', '""') + '"')
plain = st.text().map(lambda text: "'" + text.replace("'", "''") + "'")
escaped = st.text().map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")
dollars = st.tuples(st.sampled_from(["$$", "$é_1$", "$body$"]), st.text(st.sampled_from("a$'\";\\\n-/*"))).map(
    lambda pair: pair[0] + pair[1].replace("$", "") + pair[0]
)
strings = plain | escaped | dollars
tokens = names | numbers | operators | identifiers | strings
words = st.text(st.sampled_from("a;'\"$\\ é(")).map(lambda text: text + " ")
nested = st.recursive(words, lambda inner: st.tuples(words, inner).map(lambda two: f"{two[0]}/* {two[1]}*/ "))
comments = words.map(lambda text: f"--{text}\n") | nested.map(lambda text: f"/* {text}*/")
gaps = st.tuples(st.sampled_from([" ", "\n", "\r\n", "\t"]), st.lists(comments, max_size=2)).map(
    lambda pair: pair[0] + pair[0].join([*pair[1], ""])
)
in_parentheses = st.lists(tokens | st.just(";"), max_size=4).map(lambda inner: ["(", *inner, ")"])
some_statements = st.lists(
    st.tuples(names, st.lists(tokens.map(lambda token: [token]) | in_parentheses, max_size=5)).map(
        lambda pair: [pair[0], *(token for several in pair[1] for token in several)]
    ),
    max_size=4,
)


def written(pieces: list[list[str]], data: st.DataObject) -> str:
    """Return statements as a person may write them: with spaces and comments in every gap."""
    return "".join(data.draw(gaps) + token for statement in pieces for token in [*statement, ";"]) + data.draw(gaps)


def bare(token: str) -> str:
    return "''" if token.startswith(("'", "E'", "$")) else token


@given(some_statements, st.data())
def test_statements_are_parted_where_they_were_joined(pieces: list[list[str]], data: st.DataObject) -> None:
    text = written(pieces, data)
    found = list(sql.statements(text))
    assert [each.bare for each in found] == [" ".join(map(bare, statement)) for statement in pieces]
    for each in found:
        assert text[each.start : each.end] == each.source
        assert each.source.endswith(";")
        assert each.line == text[: each.start].count("\n") + 1


@given(some_statements, st.data())
def test_reformatted_text_is_the_same_code(pieces: list[list[str]], data: st.DataObject) -> None:
    assert sql.code(written(pieces, data)) == sql.code(written(pieces, data))


@given(some_statements, st.data())
def test_code_of_code_is_the_same_code(pieces: list[list[str]], data: st.DataObject) -> None:
    once = sql.code(written(pieces, data))
    assert sql.code(once) == once


@given(st.text() | st.text(st.sampled_from("abE;'\"$\\()-/*+@:.1 \n\r\t\x1c\xa0")))
def test_wild_text_is_taken_apart_too(text: str) -> None:
    end = 0
    for each in sql.statements(text):
        assert end <= each.start < each.end <= len(text)
        assert text.startswith(each.source, each.start)
        end = each.end
    if "\\" not in text:  # a metacommand takes its line, and code is one line
        assert sql.code(sql.code(text)) == sql.code(text)


# What PostgreSQL and psql have of their own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ;; -- nothing\n;", []),
        ("select 1", ["select 1"]),
        ("select 1 -- ; '\n; select 2", ["select 1", "select 2"]),
        ("select /* ; /* ; */ ' */ 1; select 2", ["select 1", "select 2"]),
        ("select 'a;''b', E'\\';', \"c;\"\"\", $x$;$$;$x$ ; b", ["select '' , '' , \"c;\"\"\" , ''", "b"]),
        ("select a$$b; c$$d", ["select a$$b", "c$$d"]),
        ("select 'not closed; select 2", ["select ''"]),
        ("select /* not closed; select 2", ["select"]),
        (
            "create function f() returns int begin atomic select case when true then 1 end; select 2; end; select 3",
            [
                "create function f ( ) returns int begin atomic select case when true then 1 end ; select 2 ; end",
                "select 3",
            ],
        ),
        ("begin; select case when true then 1 end; end; x", ["begin", "select case when true then 1 end", "end", "x"]),
        ("create table atomic (a int); b", ["create table atomic ( a int )", "b"]),
        (
            "create rule r as on insert to t do also (delete from a; delete from b); c",
            ["create rule r as on insert to t do also ( delete from a ; delete from b )", "c"],
        ),
        ("select a=-1+ +2, b->-1,c@-d", ["select a = - 1 + + 2 , b -> - 1 , c @- d"]),
        ("select 1.5::int[1:2]", ["select 1.5 :: int [ 1 : 2 ]"]),
    ],
)
def test_statements_end_where_psql_ends_them(text: str, expected: list[str]) -> None:
    assert [each.bare for each in sql.statements(text)] == expected


def test_metacommands_are_statements_of_their_own() -> None:
    text = "\\set x 1\nselect 1\\gset\r\nselect '\\no';\n \\i other file.sql"
    assert [(each.line, each.text) for each in sql.statements(text)] == [
        (1, "\\set x 1"),
        (2, "select 1"),
        (2, "\\gset"),
        (3, "select '\\no'"),
        (4, "\\i other file.sql"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_the_data_of_a_copy_is_no_sql(end: str) -> None:
    text = end.join(["copy t (a) from stdin with (null ';');", "it's; (", "\\N;", "\\.", "select 1;"])
    assert [(each.line, each.bare) for each in sql.statements(text)] == [
        (1, "copy t ( a ) from stdin with ( null '' )"),
        (4, "\\."),
        (5, "select 1"),
    ]


def test_a_statement_is_shown_without_its_comments_and_with_the_gaps_it_has() -> None:
    text = "\n-- before\ncreate  table app.t( -- a column\n\tn numeric(20,8)\n) ; -- after"
    (found,) = sql.statements(text)
    assert (found.line, found.text) == (3, "create table app.t( n numeric(20,8) )")
    assert found.source == "create  table app.t( -- a column\n\tn numeric(20,8)\n) ;"


@pytest.mark.parametrize("one", ["select 12", "select a<=b", "select 1.5", "select 'a b'", "select a::int", "a.b"])
@pytest.mark.parametrize("other", ["select 1 2", "select a< =b", "select 1 .5", "select 'a  b'", "select a: :int"])
def test_what_postgresql_reads_differently_is_other_code(one: str, other: str) -> None:
    assert sql.code(one) != sql.code(other)


@pytest.fixture(scope="module")
def connection(server: postgres.Running) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.dsn("app"), autocommit=True) as connection:
        yield connection


@given(st.lists(strings.filter(lambda text: "\0" not in text), min_size=1), st.data())
def test_postgresql_finds_as_many_statements(
    connection: psycopg.Connection, literals: list[str], data: st.DataObject
) -> None:
    text = written([["select", literal] for literal in literals], data)
    cursor = connection.execute(text.encode())
    found = 1
    while cursor.nextset():
        found += 1
    assert found == len(literals) == len(list(sql.statements(text)))
