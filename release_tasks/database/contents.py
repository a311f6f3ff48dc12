"""What a database holds beside its catalogs: rows, the roles it refers to, what is set and granted for it as a whole.

All of it is read in one transaction, whose snapshot other programs may share (PostgreSQL, "Snapshot Synchronization
Functions").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.database import catalog
from release_tasks.errors import Refused
from release_tasks.processes import shell

if TYPE_CHECKING:
    from psycopg import Connection

DATABASE = "{database}"  # stands for the name in the statements below, which hold for a database of another name too

TABLES = """select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and not exists (
    select from pg_depend where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e')
  order by c.relpages desc, 1"""
# Who owns something here, is granted something, has settings here; their groups, and who belongs to them.
REFERRED = """with recursive here as (select oid, datdba from pg_database where datname = current_database()),
  referred (oid) as (
    select refobjid from pg_shdepend, here where refclassid = 'pg_authid'::regclass
      and (dbid = here.oid or (classid = 'pg_database'::regclass and objid = here.oid))
    union select setrole from pg_db_role_setting, here where setdatabase = here.oid
    union select case r.oid when roleid then member else roleid end
      from referred r join pg_auth_members on r.oid in (roleid, member) where r.oid >= 16384)
  select rolname, quote_ident(rolname) from referred join pg_roles using (oid) where oid >= 16384"""
# PostgreSQL does not note what the first superuser owns; that of another server may have another name.
FIRST_SUPERUSER = """select rolname, quote_ident(rolname) from pg_roles where oid = 10 and rolname <> 'postgres'
  and exists (select from pg_class where relowner = 10 and oid >= 16384
    union all select from pg_proc where proowner = 10 and oid >= 16384
    union all select from pg_namespace where nspowner = 10 and oid >= 16384
    union all select from pg_database where datdba = 10 and datname = current_database())"""
# Whose objects a restore gives to their owners; those of an extension, and temporary ones, are made otherwise.
OWNERS = """select distinct quote_ident(pg_get_userbyid(owner)) from (
    select 'pg_class'::regclass, oid, relowner from pg_class where relpersistence <> 't'
    union all select 'pg_proc'::regclass, oid, proowner from pg_proc
    union all select 'pg_type'::regclass, oid, typowner from pg_type where typtype in ('d', 'e', 'r')
    union all select 'pg_namespace'::regclass, oid, nspowner from pg_namespace where nspname !~ '^pg_'
    union all select 'pg_largeobject'::regclass, oid, lomowner from pg_largeobject_metadata
  ) as owned (class, id, owner) where id >= 16384 and (owner >= 16384 or owner = 10) and not exists (
    select from pg_depend where classid = class and objid = id and deptype = 'e')
  union select quote_ident(pg_get_userbyid(datdba)) from pg_database where datname = current_database() order by 1"""
ROLE = """select quote_ident(rolname), concat_ws(' ', 'create role', quote_ident(rolname),
    case when rolcanlogin and oid <> 10 then 'login' end, case when rolsuper then 'superuser' end,
    case when rolcreatedb then 'createdb' end, case when rolcreaterole then 'createrole' end,
    case when rolreplication then 'replication' end, case when rolbypassrls then 'bypassrls' end,
    case when not rolinherit then 'noinherit' end, 'connection limit ' || rolconnlimit)
  from pg_roles where rolname = any(%s) order by 1"""
# inherit and set are of PostgreSQL 16 and newer.
MEMBERSHIP = """select quote_ident(g.rolname), quote_ident(m.rolname), concat_ws(' with ',
    'grant ' || quote_ident(g.rolname) || ' to ' || quote_ident(m.rolname), nullif(concat_ws(', ',
      case when bool_or(admin_option) then 'admin option' end,
      'inherit ' || bool_or((to_jsonb(a) ->> 'inherit_option')::boolean),
      'set ' || bool_or((to_jsonb(a) ->> 'set_option')::boolean)), ''))
  from pg_auth_members a join pg_roles g on g.oid = roleid join pg_roles m on m.oid = member
  where m.rolname = any(%s) and m.oid >= 16384 group by 1, 2 order by 1, 2"""
STATEMENTS = """select statement from (
  select 1, 'revoke all on database {database} from public'
  union all select 2, format('grant %s on database {database} to %s%s', privilege_type,
      coalesce(quote_ident(rolname), 'public'), case when is_grantable then ' with grant option' else '' end)
    from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) left join pg_roles r on r.oid = grantee
    where datname = current_database() and grantee <> datdba
  union all select 3, 'alter ' || case when s.setrole <> 0 then format('role %I in ', rolname) else '' end
      || 'database {database} set ' || setting
    from ({settings}) s left join pg_roles r on r.oid = s.setrole
    where setdatabase = (select oid from pg_database where datname = current_database())
  union all select 4, 'alter database {database} owner to ' || quote_ident(pg_get_userbyid(datdba))
    from pg_database where datname = current_database()) as each (place, statement)
  order by place, statement"""
# A list, such as search_path, is kept as it is written; any other value is one literal.
SETTINGS = """select setdatabase, setrole, quote_ident(name) || ' to ' || case when name in ('search_path',
    'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') then value else quote_literal(value)
  end as setting from (select *, split_part(each, '=', 1) as name, substr(each, strpos(each, '=') + 1) as value
  from pg_db_role_setting, unnest(setconfig) as each) as parted"""
ROLE_SETTINGS = f"""select quote_ident(rolname), 'alter role ' || quote_ident(rolname) || ' set ' || setting
  from ({SETTINGS}) s join pg_roles r on r.oid = setrole where setdatabase = 0 and rolname = any(%s) order by 1, 2"""
CAST = re.compile(
    r'::(?:"[^"]*"|\w+)(?:\.(?:"[^"]*"|\w+))?(?: varying| precision| with(?:out)? time zone)?'
    r"(?:\([\d,]+\))?(?:\[\])*|[()\s]"
)


def begin_to_read(connection: Connection, timeout: float) -> str:
    """Begin the transaction in which all is read, no query longer than `timeout` seconds; return its snapshot."""
    connection.execute("begin isolation level repeatable read read only")
    connection.execute("set local idle_in_transaction_session_timeout = 0")  # it waits for the other programs
    connection.execute("select set_config('statement_timeout', %s, true)", [f"{timeout * 1000:.0f}"])
    if connection.info.server_version >= 140000:  # so that the server notices that we were killed
        connection.execute("set local client_connection_check_interval = 1000")
    connection.execute("set local row_security = off")  # refuse, rather than leave rows out: as pg_dump does
    row = connection.execute("select pg_export_snapshot()").fetchone()
    assert row is not None
    return str(row[0])


def read(connection: Connection) -> dict[str, Any]:
    """Return what there is beside rows: objects of the catalogs, the roles referred to among them, and settings.

    The roles of other databases of the server are left out.
    """
    database = connection.execute(
        "select to_jsonb(d), pg_encoding_to_char(encoding) from pg_database d where datname = current_database()"
    ).fetchone()
    assert database is not None
    settings, encoding = database
    kept = ("datname", "datcollate", "datctype", "datlocprovider", "daticulocale", "datlocale")
    referred: dict[str, str] = dict(connection.execute(REFERRED).fetchall())
    names = [*referred, *dict(connection.execute(FIRST_SUPERUSER).fetchall())]
    roles = {role: [statement] for role, statement in connection.execute(ROLE, [names]).fetchall()}
    for role, statement in connection.execute(ROLE_SETTINGS, [names]).fetchall():
        roles[role].append(statement)
    memberships = connection.execute(MEMBERSHIP, [names]).fetchall()
    theirs = {f"role {role}" for role in referred.values()} | {f"membership {of} to {to}" for of, to, _ in memberships}
    objects = {
        name: text
        for name, text in catalog.read(connection).items()
        if catalog.kind_of(name) not in catalog.SERVER_S or name in theirs
    }
    return {
        "server": {"major": connection.info.server_version // 10000, "version": _setting(connection, "server_version")},
        "database": {"encoding": encoding, **{name: settings[name] for name in kept if settings.get(name)}},
        "objects": objects,
        "owners": [name for (name,) in connection.execute(OWNERS).fetchall()],
        "roles": roles,
        "memberships": memberships,
        "statements": statements(connection),
    }


def rows(connection: Connection) -> dict[str, int]:
    """Return table → number of its own rows; a partitioned table's are those of its partitions."""
    tables = [name for (name,) in connection.execute(TABLES).fetchall()]
    counted = {name: connection.execute(f"select count(*) from only {name}").fetchone() for name in tables}
    return {name: row[0] for name, row in counted.items() if row}


def statements(connection: Connection) -> list[str]:
    """Return the statements that make owner, grants and settings of the database as a whole what they are."""
    return [text for (text,) in connection.execute(STATEMENTS.replace("{settings}", SETTINGS)).fetchall()]


def differences(expected: Mapping[str, Any], connection: Connection, roles_that_were_there: Iterable[str]) -> list[str]:
    """Return how the database of `connection` differs from `expected`, which `read` and `rows` have returned.

    Roles of the server that are not of this backup, or were there before it, may be as they are.
    """
    there = set(roles_that_were_there)
    objects = {
        name: text
        for name, text in expected["objects"].items()
        if name not in there and not (catalog.kind_of(name) == "index" and text.endswith(" invalid"))  # not dumped
    }
    # Two major versions may write one definition in two ways.
    other_version = connection.info.server_version // 10000 != expected["server"]["major"]
    found = {
        name: text
        for name, text in catalog.read(connection).items()
        if name in objects or catalog.kind_of(name) not in catalog.SERVER_S
    }
    told = [
        str(each)
        for each in catalog.differences(objects, found)
        if not (each.how == catalog.DIFFERS and (other_version or _bare(each.expected) == _bare(each.found)))
    ]
    counted = rows(connection)
    for table, count in expected["rows"].items():
        if counted.get(table) != count:
            told.append(f"table {table} has {counted.get(table, 'no')} rows; expected {count}")
    return told


def _bare(definition: str) -> str:
    """Return `definition` without casts and brackets, which PostgreSQL sets in other places when it reads it again."""
    return CAST.sub("", definition)


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("select current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


def for_programs(dsn: str) -> tuple[str, dict[str, str]]:
    """Return `dsn` for the command line of PostgreSQL's programs, and the password, as a variable of theirs."""
    from psycopg import conninfo

    parts = conninfo.conninfo_to_dict(dsn)
    password = parts.pop("password", None)
    words = conninfo.make_conninfo("", **{name: str(value) for name, value in parts.items()})
    return words, {"PGPASSWORD": str(password)} if password else {}


def run_program(argv: Sequence[str | Path], variables: Mapping[str, str], timeout: float, full: str) -> None:
    """Run one of PostgreSQL's programs, which ends with us. Raises `Refused` with its words; `full` mends a full disk.

    Its command line cannot be run again by hand: snapshot and folder are gone by then.
    """
    try:
        shell.run(argv, env=variables, timeout=timeout, leash=True)
    except shell.CommandFailed as failed:
        again = "Mend that, then run the same command again."
        raise Refused(str(failed), full if "No space left" in failed.finished.output else again) from None
