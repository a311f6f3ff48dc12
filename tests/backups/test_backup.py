"""A backup is whole or not there; it counts once restored and compared; the last that counts is never removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from pyrage import x25519

from release_tasks import evidence, production
from release_tasks.backups import backup, sealing, shelf, verification
from release_tasks.backups.shelf import FACTS, SUMS, VERIFIED, Backup
from release_tasks.database import contents, postgres
from release_tasks.environments import Environment
from release_tasks.errors import Refused
from release_tasks.files import file_hashes, file_sha256
from release_tasks.processes import shell
from release_tasks.processes.links import point_link
from release_tasks.processes.shell import wait_until
from release_tasks.schema import ledger
from release_tasks.settings import Settings, load
from release_tasks.steps import CHANGED, DONE, LATER, REFUSED, TO_DO, Outcome

if TYPE_CHECKING:
    from conftest import Web, Work

    from release_tasks.release import Release

KEY = x25519.Identity.generate()
DATABASE = """
create role backup_reader nologin;
create role "Backup Owner" login noinherit connection limit 7;
grant backup_reader to "Backup Owner" with admin option;
alter role "Backup Owner" set work_mem to '64MB';
create schema "Odd Schema" authorization "Backup Owner";
create table "Odd Schema"."Upper Case" (
  id bigint generated always as identity primary key, name text not null, size int check (size > 0),
  twice int generated always as (size * 2) stored, kind varchar(9) check (kind in ('a', 'b')));
insert into "Odd Schema"."Upper Case" (name, size, kind) select 'n' || g, g, 'a' from generate_series(1, 500) g;
alter table "Odd Schema"."Upper Case" owner to "Backup Owner";
grant select on "Odd Schema"."Upper Case" to backup_reader;
create index on "Odd Schema"."Upper Case" (lower(name));
create table parted (at date, n int) partition by range (at);
create table parted_1 partition of parted for values from ('2026-01-01') to ('2027-01-01');
insert into parted select '2026-02-01', g from generate_series(1, 30) g;
create table heir () inherits (parted_1_like);
create view big as select name, case when kind in ('a', 'b') then 1 end as known from "Odd Schema"."Upper Case";
create materialized view sums as select count(*) as n from "Odd Schema"."Upper Case";
create sequence counter start 7;
create function twice(n int) returns int language sql immutable as 'select n * 2';
alter database {database} set search_path to "Odd Schema", public;
alter database {database} set "app.title" to 'it''s {{a}} title';
grant connect on database {database} to backup_reader;
""".replace("create table heir () inherits (parted_1_like);\n", "")
EMPTY: dict[str, Any] = {
    "server": {"major": 15},
    "database": {"encoding": "UTF8", "datcollate": "C", "datctype": "C"},
    **{key: {} for key in ("objects", "roles", "rows", "dump")},
    **{key: [] for key in ("owners", "memberships", "statements")},
    "pg_dump": 15,
}


@contextmanager
def database(server: postgres.Running, name: str = "backup_source") -> Iterator[str]:
    """Make a database with all that is easy to lose, and with roles of its own."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        drop(admin)
        admin.execute(f"create database {name} template template0")
        with psycopg.connect(server.dsn(name), autocommit=True) as connection:
            connection.execute(DATABASE.format(database=name))
        try:
            yield server.dsn(name)
        finally:
            drop(admin)


def drop(admin: Any) -> None:
    """Drop the databases and roles of these tests."""
    kept = ("postgres", "app", "template0", "template1")
    for (name,) in admin.execute("select datname from pg_database where datname <> all(%s)", [list(kept)]).fetchall():
        admin.execute(f'drop database "{name}" with (force)')
    for (role,) in admin.execute("select quote_ident(rolname) from pg_roles where rolname ilike 'backup%'").fetchall():
        admin.execute(f"drop role {role}")


@pytest.fixture
def source(server: postgres.Running) -> Iterator[str]:
    with database(server) as dsn:
        yield dsn


def environment_at(dsn: str, root: Path, **settings: Any) -> Environment:
    return Environment("production", Settings.model_validate(settings), root, dsn, "", root / "production", None)


@pytest.fixture
def environment(source: str, tmp_path: Path) -> Environment:
    return environment_at(source, tmp_path)


def execute(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def make(environment: Environment, day: int, verified: bool = True, damaged: bool = False) -> Backup:
    """Write what looks like a backup of that day of 2026."""
    moment = datetime(2026, 1, 1).astimezone() + timedelta(days=day)
    folder = shelf.folder_of(environment) / f"app-{environment.name}-{moment:%Y%m%dT%H%M%SZ}"
    (folder / "dump").mkdir(parents=True)
    (folder / "dump" / "toc.dat").write_text("toc")
    facts = {**EMPTY, "commit": None, "ended": moment.isoformat()}
    (folder / FACTS).write_text(json.dumps(facts))
    taken = Backup(folder, facts)
    resum(taken)
    if verified:
        (folder / VERIFIED).write_text(json.dumps({FACTS: file_sha256(folder / FACTS)}))
    if damaged:
        (folder / "dump" / "toc.dat").write_text("tic")
    return taken


@pytest.fixture
def keeping_two(tmp_path: Path) -> Environment:
    return environment_at("", tmp_path, backup={"keep": 2})


def newest_server() -> int:
    """Return the newest major version of PostgreSQL that is here."""
    return max(postgres.major(postgres.find_bin(like=major) / "postgres") for major in range(10, 30))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def commands() -> Iterator[list[shell.Finished]]:
    """Collect the commands that are run meanwhile."""
    heard: list[shell.Finished] = []
    shell.listeners.append(heard.append)
    yield heard
    shell.listeners.remove(heard.append)


# Taking


def test_a_backup_is_whole_private_and_checked_by_sha256sum(environment: Environment) -> None:
    taken = backup.take(environment, "0.1.1", "abc")
    assert left_in(shelf.folder_of(environment)) == [taken.name] and taken.name.startswith("app-production-2")
    assert taken.folder.stat().st_mode & 0o777 == 0o700
    checked = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=taken.folder, capture_output=True)
    assert checked.returncode == 0
    assert taken.damages() == [] and taken.is_recent and not taken.verified and not taken.counts
    facts = taken.facts
    assert (facts["app"], facts["environment"], facts["version"], facts["commit"]) == (
        "app",
        "production",
        "0.1.1",
        "abc",
    )
    assert facts["rows"] == {'"Odd Schema"."Upper Case"': 500, "public.parted_1": 30}
    assert set(facts["roles"]) == {'"Backup Owner"', "backup_reader"}
    assert any(name.startswith("function public.twice(") for name in facts["objects"])


def test_what_it_counts_is_what_was_dumped_while_others_write(environment: Environment, source: str) -> None:
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(source, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute("insert into parted_1 select '2026-03-01', 1 from generate_series(1, 100)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken = backup.take(environment, "0.1.1")
    finally:
        ended.set()
        writer.join()
    assert verification.verify(taken, environment)
    assert taken.facts["rows"]["public.parted_1"] < execute(source, "select count(*) from parted_1")[0][0]


def test_a_dump_that_fails_leaves_nothing_and_no_count_goes_on(environment: Environment, source: str) -> None:
    execute(source, "create role backup_poor login password 'poor'; grant select on parted, parted_1 to backup_poor")
    parts = psycopg.conninfo.conninfo_to_dict(source)
    environment.dsn = psycopg.conninfo.make_conninfo(**{**parts, "user": "backup_poor", "password": "poor"})
    with pytest.raises(Refused, match="permission denied for"):
        backup.take(environment, "")
    assert left_in(shelf.folder_of(environment)) == []
    theirs = "select 1 from pg_stat_activity where usename = 'backup_poor'"
    assert wait_until(lambda: not execute(source, theirs), time.monotonic() + 120)


def test_a_dump_that_takes_too_long_is_ended_and_leaves_nothing(source: str, tmp_path: Path) -> None:
    environment = environment_at(source, tmp_path, backup={"timeout": 2})
    with psycopg.connect(source) as other:
        other.execute("lock table parted_1 in access exclusive mode")
        with pytest.raises(Refused, match=r"did not end within 2 s|canceling statement due to statement timeout"):
            backup.take(environment, "")
    assert left_in(shelf.folder_of(environment)) == []


def test_a_dump_of_a_newer_server_than_any_pg_dump_is_refused() -> None:
    with pytest.raises(Refused, match="pg_dump 99 or newer is needed"):
        postgres.client_tool("pg_dump", 99)


TAKEN = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.backups.test_backup import backup, environment_at
print(backup.take(environment_at({dsn!r}, Path({folder!r})), "").name)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_dump_that_is_stopped_in_the_middle_leaves_no_backup_and_the_same_command_makes_one(
    environment: Environment, source: str, tmp_path: Path, sent: signal.Signals
) -> None:
    program = TAKEN.format(root=str(Path(__file__).parents[2]), dsn=source, folder=str(tmp_path))
    dumping = "select pid from pg_stat_activity where application_name = 'pg_dump'"
    argv = [sys.executable, "-c", program]
    execute(source, "create table plain (n int)")
    with psycopg.connect(source) as other:
        other.execute("lock table plain in access exclusive mode")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as stopped:
            seen = wait_until(lambda: bool(execute(source, dumping)), time.monotonic() + 120, every=0.05)
            stopped.send_signal(sent)
        assert seen
        assert shelf.backups_of(environment) == []
        assert wait_until(lambda: not execute(source, dumping), time.monotonic() + 120, every=0.05)
    name = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert left_in(shelf.folder_of(environment)) == [name]


FULL = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.backups.test_backup import backup, environment_at, left_in, shelf
from release_tasks.errors import Refused
environment = environment_at({dsn!r}, Path({folder!r}), backup={{"folder": "full"}})
try:
    backup.take(environment, "")
except Refused as no:
    print(no, left_in(shelf.folder_of(environment)))
"""


def test_a_full_disk_is_a_sentence_and_leaves_nothing(environment: Environment, source: str, tmp_path: Path) -> None:
    execute(source, "insert into parted_1 select '2026-03-01', (random() * 1e9)::int from generate_series(1, 200000)")
    program = FULL.format(root=str(Path(__file__).parents[2]), dsn=source, folder=str(tmp_path))
    mount = f'mkdir -p {tmp_path}/full && mount -t tmpfs -o size=300k tmpfs {tmp_path}/full && exec "$@"'
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    argv = [*alone, "sh", "-c", mount, "sh", sys.executable, "-c", program]
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert "No space left on device" in ran.stdout and ran.stdout.strip().endswith("[]"), ran.stdout + ran.stderr


def test_two_at_once_are_refused_in_a_sentence(environment: Environment) -> None:
    with shelf.held(environment), pytest.raises(Refused, match="Another process is writing a backup of production"):
        backup.take(environment, "")


def test_what_a_killed_run_left_is_tidied_by_the_next(environment: Environment) -> None:
    folder = shelf.folder_of(environment)
    (folder / ".app-production-20260101T000000Z.aside" / "dump").mkdir(parents=True)
    (folder / ".app-staging-20260101T000000Z.aside").mkdir()
    taken = backup.take(environment, "")
    assert left_in(folder) == [".app-staging-20260101T000000Z.aside", taken.name]


# Damage


def test_each_kind_of_damage_is_named(environment: Environment) -> None:
    taken = backup.take(environment, "")
    toc, (data, *_) = taken.dump / "toc.dat", sorted(taken.dump.glob("*.dat.*"))
    content = data.read_bytes()

    def damage(act: Callable[[], object]) -> list[str]:
        before = {path: path.read_bytes() for path in taken.folder.rglob("*") if path.is_file()}
        act()
        found = taken.damages()
        for path in [path for path in taken.folder.rglob("*") if path.is_file()]:
            path.unlink()
        for path, held in before.items():
            path.write_bytes(held)
        return found

    changed = bytes([content[0] ^ 1]) + content[1:]
    assert damage(lambda: data.write_bytes(changed)) == [f"dump/{data.name}"]
    assert damage(lambda: data.write_bytes(content[:-3])) == [f"dump/{data.name}"]
    assert damage(lambda: toc.unlink()) == ["dump/toc.dat"]
    assert damage(lambda: (taken.dump / "more.dat").touch()) == ["dump/more.dat"]
    assert damage(lambda: (taken.folder / FACTS).write_text("{}")) == [FACTS]
    for torn in (b"", b"\xff\xfe"):
        assert damage(lambda torn=torn: (taken.folder / SUMS).write_bytes(torn)) == [SUMS]  # type: ignore[misc]
    assert damage(lambda: None) == []


def test_a_damaged_backup_is_not_restored_and_counts_no_more(environment: Environment) -> None:
    taken = make(environment, 1)
    (taken.dump / "toc.dat").write_bytes(b"whole")
    resum(taken)
    assert taken.counts
    (taken.dump / "toc.dat").write_bytes(b"PGDMP")
    assert taken.verified and not taken.counts
    (taken.folder / VERIFIED).unlink()
    with pytest.raises(Refused, match=r"dump/toc\.dat is not what SHA256SUMS says"):
        verification.verify(taken, environment)


@pytest.mark.parametrize("garbage", ["{}", "[]", "{", '{"rows": {"t": "x"}, "server": {"major": "?"}, "ended": 1}'])
def test_a_backup_json_that_is_none_is_a_sentence(
    keeping_two: Environment, garbage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(keeping_two, 1).folder
    (folder / FACTS).write_text(garbage)
    taken = Backup(folder, shelf.read_json(folder / FACTS))
    resum(taken)
    assert taken.damages() == []
    with pytest.raises(Refused, match=r"backup\.json is not of a backup; it lacks, .*server"):
        verification.verify(taken, keeping_two)
    with pytest.raises(Refused, match="Which backup"):
        shelf.choose(folder.parent, None)
    assert taken.name in capsys.readouterr().out


def test_a_program_that_fails_keeps_its_words_and_gets_a_mend_that_works() -> None:
    for said, mend in (("No space left on device", "df -h here"), ("permission denied", "run the same command again")):
        with pytest.raises(Refused, match=said) as no:
            contents.run_program(["sh", "-c", f"echo {said} >&2; exit 1"], {}, 9, "df -h here")
        assert mend in no.value.problems[0].mend


def test_the_word_that_it_was_verified_holds_for_this_backup_alone(environment: Environment) -> None:
    taken = backup.take(environment, "")
    (taken.folder / VERIFIED).write_text(json.dumps({FACTS: "0" * 64, "at": "2026-01-01T00:00:00+00:00"}))
    assert not taken.verified


# Verifying


def test_a_backup_is_verified_by_tools_of_its_version_and_without_a_password_on_a_command_line(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, commands: list[shell.Finished]
) -> None:
    monkeypatch.setenv("PG_BIN", str(postgres.find_bin(like=newest_server())))
    taken = backup.take(environment, "0.1.1")
    said = verification.verify(taken, environment)
    password, major = urlsplit(environment.dsn).password, taken.facts["server"]["major"]
    used = [command.argv for command in commands if "--version" not in command.argv]
    tools = [Path(argv[0]) for argv in used if argv[0].endswith(("pg_dump", "pg_restore"))]
    assert {tool.name for tool in tools} == {"pg_dump", "pg_restore"}
    assert {postgres.major(tool) for tool in tools} == {major}
    assert password and not any(password in word for command in commands for word in command.argv)
    seen = taken.verified
    assert (seen["server"], seen["tables"], seen["rows"], seen["smokes"]) == (str(major), 2, 530, [])
    assert "530 rows are the same; smokes: none ran, for nothing has been deployed there yet" in said and taken.counts


def test_a_backup_that_restores_to_something_else_does_not_count_and_each_difference_is_named(
    environment: Environment,
) -> None:
    taken = backup.take(environment, "")
    facts = json.loads((taken.folder / FACTS).read_text())
    facts["rows"] |= {"public.parted_1": 31, "public.gone": 1}
    facts["objects"] |= {"view public.gone": "select 1"}
    del facts["objects"]["view public.big"]
    facts["statements"].insert(0, "grant temporary on database {database} to backup_reader")
    facts["statements"].append("revoke temporary on database {database} from backup_reader")
    (taken.folder / FACTS).write_text(json.dumps(facts))
    resum(taken)
    with pytest.raises(Refused) as no:
        verification.verify(Backup(taken.folder, facts), environment)
    told = [each.what.partition("restored, is not what was dumped: ")[2] for each in no.value.problems]
    assert told[:4] == [
        "view public.big was made by no file.",
        "view public.gone is missing.",
        "table public.parted_1 has 30 rows; expected 31.",
        "table public.gone has no rows; expected 1.",
    ]
    assert "of the database, it lacks: grant temporary on database {database} to backup_reader." in told
    assert not taken.counts


def resum(taken: Backup) -> None:
    """Write the checksums of `taken` anew."""
    files = sorted(str(path.relative_to(taken.folder)) for path in taken.folder.rglob("*") if path.is_file())
    files = [name for name in files if name not in (SUMS, VERIFIED)]
    ran = subprocess.run(["sha256sum", *files], cwd=taken.folder, capture_output=True, check=True)
    (taken.folder / SUMS).write_bytes(ran.stdout)


READS = """
import pytest

@pytest.mark.on_backup
def test_it(run, target):
    code = "import os, psycopg; c = psycopg.connect(os.environ['DATABASE_URL']); c.execute({statement!r}); c.commit()"
    run({python!r}, "-c", f"{{code}}; print('PASS')", must_print="PASS")
    assert target.is_backup
"""


def test_only_smokes_that_only_read_run_on_it_and_one_that_writes_fails(source: str, tmp_path: Path) -> None:
    environment = environment_at(source, tmp_path)
    taken = backup.take(environment, "")
    code = tmp_path / "production" / "releases" / "v0.1.0"
    (code / "smokes").mkdir(parents=True)
    reads = READS.format(statement="select * from parted", python=sys.executable)
    (code / "smokes" / "test_reads.py").write_text(reads)
    (code / "smokes" / "test_other.py").write_text("def test_it(db): db.execute('select 1 / 0')")
    point_link(environment.current, code)
    assert verification.verify(taken, environment).endswith("smokes: reads")
    writes = READS.format(statement="delete from parted", python=sys.executable)
    (code / "smokes" / "test_writes.py").write_text(writes)
    (taken.folder / VERIFIED).unlink()
    with pytest.raises(Refused, match=r"(?s)The smoke writes: it fails on .* cannot execute DELETE in a read-only"):
        verification.verify(taken, environment)
    assert execute(source, "select count(*) from parted") == [(30,)]


def test_a_locale_this_machine_lacks_is_told_and_no_reason_to_refuse(environment: Environment) -> None:
    taken = backup.take(environment, "")
    facts = {**taken.facts, "database": {**taken.facts["database"], "datcollate": "xx_XX.UTF-8"}}
    (taken.folder / FACTS).write_text(json.dumps(facts))
    resum(taken)
    verification.verify(Backup(taken.folder, facts), environment)
    assert taken.verified["locale"] == "C: this machine does not have xx_XX.UTF-8"


# Encryption


RECIPIENTS = [str(KEY.to_public())]


@pytest.fixture
def sealed(keeping_two: Environment) -> Backup:
    taken = make(keeping_two, 1)
    backup.seal(taken, RECIPIENTS)
    return taken


def test_a_verified_backup_is_kept_as_one_encrypted_file(source: str, tmp_path: Path) -> None:
    environment = environment_at(source, tmp_path, backup={"recipients": RECIPIENTS})
    taken = backup.take(environment, "")
    verification.verify(taken, environment)
    assert left_in(taken.folder) == [SUMS, FACTS, "dump.tar.age", VERIFIED]
    assert taken.counts and taken.is_sealed
    assert subprocess.run(["sha256sum", "--check", SUMS], cwd=taken.folder, capture_output=True).returncode == 0
    (tmp_path / "key").write_text(f"# a key\n{KEY}\n")
    sealing.unseal(taken.folder / "dump.tar.age", tmp_path, tmp_path / "key")
    assert file_hashes(tmp_path / "dump") == taken.facts["dump"]


def test_what_a_killed_encryption_left_is_finished_or_undone(sealed: Backup, keeping_two: Environment) -> None:
    plain = make(keeping_two, 2)
    sealed.dump.mkdir()
    (sealed.dump / "3001.dat.gz").touch()
    (plain.folder / "dump.tar.age").write_bytes(b"half")
    assert sealed.counts and plain.counts
    with shelf.held(keeping_two):
        assert not sealed.dump.exists() and not (plain.folder / "dump.tar.age").exists()
    assert sealed.counts and plain.counts


def test_a_wrong_key_a_file_without_one_and_a_torn_ciphertext_are_sentences(sealed: Backup, tmp_path: Path) -> None:
    file, key = sealed.folder / "dump.tar.age", tmp_path / "key"
    for content, told in (
        (str(x25519.Identity.generate()), "cannot be decrypted .*No matching keys"),
        ("no key", "holds no key of age"),
        ("", "holds no key of age"),
        (b"\xff\xfe", "holds no key of age"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "holds no key of age"),
    ):
        key.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(Refused, match=told):
            sealing.unseal(file, tmp_path / "out", key)
    with pytest.raises(Refused, match=r"holds no key of age: .*No such file"):
        sealing.unseal(file, tmp_path / "out", tmp_path / "nowhere")
    key.write_text(str(KEY))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(Refused, match="cannot be decrypted"):
        sealing.unseal(file, tmp_path / "out", key)


def test_an_ssh_key_is_a_recipient_too(tmp_path: Path) -> None:
    key, folder = tmp_path / "id", tmp_path / "dump"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    folder.mkdir()
    (folder / "toc.dat").write_bytes(os.urandom(300_000))
    recipients = [" ".join(key.with_suffix(".pub").read_text().split()[:2])]
    assert Settings.model_validate({"backup": {"recipients": recipients}})
    sealing.seal(folder, tmp_path / "sealed", recipients)
    sealing.unseal(tmp_path / "sealed", tmp_path / "out", key)
    assert (tmp_path / "out" / "dump" / "toc.dat").read_bytes() == (folder / "toc.dat").read_bytes()


def test_what_is_no_public_key_is_refused_before_anything_and_a_secret_one_is_not_shown() -> None:
    for text in ("age1nonsense", "ssh-ed25519 nonsense", "", str(KEY)):
        with pytest.raises(Refused, match="no public key of age or SSH") as no:
            load({"backup": {"recipients": [text]}}, {})
        assert no.value.problems[0].what.startswith("invoke.yaml, release.backup.recipients[0]: found")
        assert str(KEY) not in shell.mask(str(no.value))


# Retention


def kept_in(environment: Environment) -> set[int]:
    return {
        (datetime.fromisoformat(each.facts["ended"]).timetuple().tm_yday - 1) for each in shelf.backups_of(environment)
    }


def test_the_newest_verified_ones_are_kept_and_what_is_older_goes(keeping_two: Environment) -> None:
    for day in range(1, 6):
        make(keeping_two, day)
    assert len(shelf.prune(keeping_two)) == 3
    assert kept_in(keeping_two) == {4, 5}
    assert left_in(shelf.folder_of(keeping_two)) == sorted(each.name for each in shelf.backups_of(keeping_two))


def test_what_does_not_count_pushes_out_nothing(keeping_two: Environment) -> None:
    for day, about in enumerate([{}, {}, {"verified": False}, {}, {"verified": False}, {"damaged": True}], 1):
        make(keeping_two, day, **about)
    shelf.prune(keeping_two)
    assert kept_in(keeping_two) == {2, 3, 4, 5, 6}
    make(keeping_two, 7)
    shelf.prune(keeping_two)
    assert kept_in(keeping_two) == {4, 5, 6, 7}


def test_the_last_verified_one_is_never_removed(keeping_two: Environment) -> None:
    make(keeping_two, 1)
    for day in range(2, 9):
        make(keeping_two, day, verified=False)
    assert shelf.prune(keeping_two) == []


def test_backups_of_others_are_nobody_s_business(keeping_two: Environment) -> None:
    for day in range(1, 4):
        make(keeping_two, day)
    keeping_two.name = "staging"
    for day in range(1, 3):
        make(keeping_two, day)
    assert shelf.prune(keeping_two) == []
    assert len(shelf.backups_in(shelf.folder_of(keeping_two))) == 5


# In a release


@pytest.fixture
def release(work: Work, web: Web, source: str) -> Iterator[Release]:
    """Return a release whose tag is published, and whose production has an older version and an older pack."""
    here = {"dsn": source, "origin": web.origin, "folder": "srv", "restart": ["true"], "log": "none"}
    release = work.release(environments={"production": here}, branch="")
    release.options = {"where": "production"}
    yield release
    production._under_way.clear()


def publish(work: Work) -> None:
    work.git("tag", "--annotate", "--message", "x", "v0.1.1")
    work.git("push", "--quiet", "origin", "main", "v0.1.1")


BACKUP, VERIFY, GATE = (
    production.back_up_the_database,
    production.verify_the_backup,
    production.have_a_backup_that_restores,
)
Take = Callable[..., Outcome]


def test_a_release_backs_up_verifies_and_then_finds_both_done(release: Release, work: Work, take: Take) -> None:
    assert [take(step, release, change=False).state for step in (BACKUP, VERIFY, GATE)] == [LATER, LATER, LATER]
    publish(work)
    release.git.look_afresh(remote=True)
    assert [take(step, release, change=False).state for step in (BACKUP, VERIFY, GATE)] == [TO_DO, LATER, LATER]
    assert take(BACKUP, release).state == CHANGED
    assert [take(step, release, change=False).state for step in (BACKUP, VERIFY, GATE)] == [DONE, TO_DO, LATER]
    assert take(VERIFY, release).state == CHANGED
    looked = [take(step, release, change=False) for step in (BACKUP, VERIFY, GATE)]
    assert [look.state for look in looked] == [DONE, DONE, DONE] and "530 rows are the same" in looked[2].text
    (kept,) = shelf.backups_of(release.here)
    assert (kept.facts["version"], kept.facts["commit"]) == ("0.1.1", release.published)


def test_a_backup_of_another_release_an_old_one_and_a_damaged_one_are_not_this_release_s(
    release: Release, work: Work, take: Take
) -> None:
    publish(work)
    backup.take(release.here, "0.1.1", "another")
    assert take(BACKUP, release, change=False).state == TO_DO
    old = make(release.here, 1)
    tell(old, commit=release.published)
    assert take(BACKUP, release, change=False).state == TO_DO
    with release.here.connect() as connection:  # the pack is applied: what was there before is past
        pack = production.unapplied_files(release, release.here)
        ledger.begin(connection, pack, release.settings.ddl)
        for file in pack:
            ledger.enter(connection, file, release.settings.ddl, "0.1.1", 0, "psycopg")
    assert take(BACKUP, release, change=False).text == old.name
    (old.dump / "toc.dat").write_text("tic")
    assert take(BACKUP, release, change=False).state == TO_DO


def tell(taken: Backup, **facts: Any) -> None:
    (taken.folder / FACTS).write_text(json.dumps({**taken.facts, **facts}))
    resum(taken)


def test_in_the_background_the_flip_waits_for_the_verification(release: Release, work: Work, take: Take) -> None:
    publish(work)
    release.settings = in_the_background(release)
    take(BACKUP, release)
    assert take(VERIFY, release).state == CHANGED
    gate = take(GATE, release)
    assert gate.state == DONE and "530 rows are the same" in gate.text
    production._under_way.clear()  # as another process would find it
    assert take(VERIFY, release).state == DONE


def in_the_background(release: Release) -> Settings:
    how = release.settings.backup.model_copy(update={"verify": "background"})
    return release.settings.model_copy(update={"backup": how})


def test_in_the_background_a_backup_that_does_not_restore_stops_the_flip(
    release: Release, work: Work, take: Take
) -> None:
    publish(work)
    release.settings = in_the_background(release)
    take(BACKUP, release)
    (kept,) = shelf.backups_of(release.here)
    tell(kept, rows={"public.parted_1": 31})
    assert take(VERIFY, release).state == CHANGED
    gate = take(GATE, release)
    assert gate.state == REFUSED and "parted_1 has 30 rows; expected 31" in gate.problems[0].what
    production._under_way.clear()
    assert take(VERIFY, release, change=False).state == TO_DO


def test_the_evidence_has_what_is_known_of_the_backup_and_not_its_data(
    release: Release, work: Work, web: Web, take: Take
) -> None:
    work.commit({release.notes_path: "# App v0.1.1\n", "docs/HASHES.sha256.txt": "#\n", "ddl/ORDER.lock": "#\n"})
    publish(work)
    used = make(release.environment("production"), 1)
    tell(used, commit=release.published)
    (work.root / "srv" / "releases" / "v0.1.1").mkdir(parents=True)
    point_link(work.root / "srv" / "current", work.root / "srv" / "releases" / "v0.1.1")
    web.be("0.1.1")
    assert take(evidence.build_the_evidence_pack, release).state == CHANGED
    copied = evidence.pack_folder(release) / "checks" / "backup" / used.name
    assert left_in(copied) == [SUMS, FACTS, VERIFIED]
