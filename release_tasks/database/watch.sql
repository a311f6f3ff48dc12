-- What each file of a DDL pack does to the tables that are there, noted by PostgreSQL itself ("Event Triggers").
-- The proof runs this on a scratch server before a pack, note_file() in the transaction of each file, whose path is the
-- setting release.file, and at the end rows() once more.

create schema release_proof;

create unlogged table release_proof.done (id serial, file text, what text, object text, unique (file, what, object));

create unlogged table release_proof.was as
  select oid, relfilenode, relnamespace::regnamespace || '.' || quote_ident(relname) as name
  from pg_class where relkind in ('r', 'm') and relnamespace <> 'release_proof'::regnamespace
    and (oid >= 16384 or relname = 'pg_largeobject_metadata');

create unlogged table release_proof.before (name text, columns text[], count bigint, hash numeric);

-- Each table with its columns, its number of rows and the hash of their text, in the columns that it had before, where it
-- still has them: a value of another type is the same where its text is.
create function release_proof.rows() returns setof release_proof.before language plpgsql as $$
declare one record; had text[];
begin
  for one in
    select relnamespace::regnamespace || '.' || quote_ident(relname) as name,
      coalesce(array_agg(quote_ident(attname) order by attnum) filter (where attnum > 0), '{}') as columns
    from pg_class c left join pg_attribute on attrelid = c.oid and attnum > 0 and not attisdropped
      and (c.oid >= 16384 or attname = 'oid')  -- who owns a large object is no value
    where relkind = 'r' and (c.oid >= 16384 or relname = 'pg_largeobject_metadata') and relpersistence <> 't'
      and relnamespace <> 'release_proof'::regnamespace
    group by c.oid
  loop
    select before.columns into had from release_proof.before
      where before.name = one.name and one.columns @> before.columns;
    return query execute format('select %L, %L::text[], count(*), sum(hashtextextended(row(%s)::text, 0)) from only %s',
      one.name, one.columns, array_to_string(coalesce(had, one.columns), ', '), one.name);
  end loop;
end $$;

insert into release_proof.before select * from release_proof.rows();

create function release_proof.note() returns event_trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into release_proof.done (file, what, object) select current_setting('release.file', true), what, object from (
    select 'alters', object_identity from pg_catalog.pg_event_trigger_ddl_commands() where tg_event = 'ddl_command_end'
    union select 'rewrites', name from release_proof.was
      where case tg_event when 'table_rewrite' then oid = pg_catalog.pg_event_trigger_table_rewrite_oid() end
    union select 'drops', object_type || ' ' || object_identity from pg_catalog.pg_event_trigger_dropped_objects()
      where tg_event = 'sql_drop' and (original or object_type = 'table column') and not is_temporary
      and object_type in ('table', 'table column', 'materialized view', 'schema', 'sequence', 'type')
  ) as found (what, object) where object is not null on conflict do nothing;
end $$;

create procedure release_proof.note_file() language sql begin atomic
  insert into release_proof.done (file, what, object)
    select current_setting('release.file', true), what, name from (
      select 'locks', relation from pg_locks where pid = pg_backend_pid() and mode = 'AccessExclusiveLock'
      union select 'changes rows of', relid from pg_stat_xact_all_tables where n_tup_upd + n_tup_del > 0
      union select 'empties', oid from release_proof.was join pg_class c using (oid)
        where relkind = 'r' and c.relfilenode <> was.relfilenode
        and not exists (select from release_proof.done where done.what = 'rewrites' and object = name)
    ) as found (what, oid) join release_proof.was using (oid) on conflict do nothing;
  update release_proof.was set relfilenode = c.relfilenode from pg_class c where c.oid = was.oid;
  select pg_stat_force_next_flush();
end;

create event trigger release_proof_alter on ddl_command_end execute function release_proof.note();
create event trigger release_proof_drop on sql_drop execute function release_proof.note();
create event trigger release_proof_rewrite on table_rewrite execute function release_proof.note();
