"""A backup is whole and readable, or it is not there; its password is on no command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from release_tasks import backup, postgres, shell
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.settings import Settings


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> Environment:
    with psycopg.connect(dsn) as connection:
        connection.execute("create table coins as select 'BTC' as symbol")
    return Environment("production", Settings(), tmp_path, dsn, "", tmp_path, None)


@pytest.fixture
def major(environment: Environment) -> int:
    with environment.connect() as connection:
        return connection.info.server_version // 10000


@pytest.fixture
def commands() -> Iterator[list[shell.Finished]]:
    """Collect the commands that are run meanwhile."""
    heard: list[shell.Finished] = []
    shell.listeners.append(heard.append)
    yield heard
    shell.listeners.pop()


def test_a_dump_is_whole_and_can_be_restored(
    environment: Environment, major: int, tmp_path: Path, server: postgres.Running, dsn: str
) -> None:
    path = backup.dump(environment, tmp_path / "backups", major)
    assert backup.is_whole(path) and backup.is_recent(path)
    assert backup.newest(path.parent, "production") == path and backup.newest(path.parent, "staging") is None
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.name}.sha256"]
    restore = postgres.client_tool("pg_restore", major)
    said = shell.run([restore, "--data-only", "--file=-", path]).stdout
    assert "COPY public.coins" in said and "BTC" in said


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: b"", lambda content: content + b"x"])
def test_a_damaged_dump_is_found(environment: Environment, major: int, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    path = backup.dump(environment, tmp_path, major)
    path.write_bytes(damage(path.read_bytes()))
    assert not backup.is_whole(path)


def test_a_dump_whose_checksum_is_gone_is_not_taken_for_whole(
    environment: Environment, major: int, tmp_path: Path
) -> None:
    path = backup.dump(environment, tmp_path, major)
    checksum = path.with_name(f"{path.name}.sha256")
    checksum.write_text("")
    assert not backup.is_whole(path)
    checksum.unlink()
    assert not backup.is_whole(path)


def test_the_password_is_on_no_command_line(
    environment: Environment, major: int, tmp_path: Path, commands: list[shell.Finished]
) -> None:
    backup.dump(environment, tmp_path, major)
    password = urlsplit(environment.dsn).password
    argvs = [command.argv for command in commands]
    assert password and [Path(argv[0]).name for argv in argvs if len(argv) > 2] == ["pg_dump", "pg_restore"]
    assert not any(password in word for argv in argvs for word in argv)


def test_a_dump_that_fails_leaves_nothing(environment: Environment, major: int, tmp_path: Path) -> None:
    environment.dsn = environment.dsn.rsplit("/", 1)[0] + "/nowhere"
    with pytest.raises(Refused, match='database "nowhere" does not exist'):
        backup.dump(environment, tmp_path / "backups", major)
    assert list((tmp_path / "backups").iterdir()) == []


def test_the_newest_dump_is_the_last_in_time_and_an_hour_makes_it_old(tmp_path: Path) -> None:
    names = ["production-20260101T000000Z.dump", "production-20261122T080000Z.dump", "staging-20271122T080000Z.dump"]
    for name in [*names, "production-20991122T080000Z.aside"]:
        (tmp_path / name).touch()
    newest = backup.newest(tmp_path, "production")
    assert newest and newest.name == names[1]
    assert backup.is_recent(newest)
    long_ago = newest.stat().st_mtime - backup.RECENT - 1
    os.utime(newest, (long_ago, long_ago))
    assert not backup.is_recent(newest)


def test_a_dump_of_a_newer_server_than_any_pg_dump_is_refused(environment: Environment, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pg_dump 99 or newer is needed"):
        backup.dump(environment, tmp_path, 99)
