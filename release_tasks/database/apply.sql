-- How a DDL pack is applied: psql gets the parts below, filled in, as one script (psql.py; `inv --dry ddl.apply`).
-- The names of the parts, with all before the first, stay here.

-- part: settings
-- By hand: save this in the root of the repository, and there: PGOPTIONS='{options}' psql --no-psqlrc --file THIS
\set ON_ERROR_STOP on
\set VERBOSITY verbose

-- part: lock
-- One release at a time; the lock ends with this session, and any number will do. It is tried, not waited for: in the
-- queue for a lock, CREATE INDEX CONCURRENTLY would be a deadlock.
do $$ begin
  if not pg_try_advisory_lock(1174110) then
    raise exception using errcode = 'object_in_use', message = 'another release applies DDL here: ' || coalesce((
      select format('%s, role %s, process %s, since %s', application_name, usename, pid, backend_start::timestamptz(0))
      from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted
        and objid = 1174110 and datname = current_database() limit 1), 'one that has just ended');
  end if;
end $$;

-- part: ledger
-- A file counts as applied when it is so to its end.
do $$ begin
  if to_regclass('{ledger}') is null then
    set local client_min_messages = warning;
    create schema if not exists {schema};
    create table {ledger} (file text primary key, sha256 text not null, version text not null,
      applied_at timestamptz not null default clock_timestamp(), applied_by text not null default current_user);
  end if;
end $$;
delete from {ledger} where file in ({paths});

-- part: file
-- {path}
\echo release: {quoted}
-- What another file has set ends here, but for psql's variables. A server sees that its client was killed if it looks;
-- one on Windows cannot.
set session authorization default; reset all; discard temp; deallocate all;
select set_config('client_connection_check_interval',
  case when version() ~* 'windows|mingw|visual c' then '0' else '1000' end, false) as release_interval \gset
set release.file = {quoted};
{begin}\ir {quoted}
\set ON_ERROR_STOP on
\set VERBOSITY verbose
set session authorization default; reset role;
{end}
-- part: drop invalid indexes
-- Drop what a stopped CREATE INDEX CONCURRENTLY of this file has left: `if not exists` would pass over it.
select format('drop index concurrently %I.%I', nspname, relname) from pg_index
  join pg_class c on c.oid = indexrelid join pg_namespace n on n.oid = relnamespace
  where relkind = 'i' and not indisvalid and relname = any(array[{names}]::name[])
    and not exists (select from pg_stat_progress_create_index where index_relid = indexrelid)
\gexec
