-- Roles belong to the cluster, so another database's pack may create this one at the same moment.
do $$
begin
  if not exists (select from pg_roles where rolname = 'cryptopi_readonly') then
    create role cryptopi_readonly nologin;
  end if;
exception
  when duplicate_object or unique_violation then
    raise notice 'role cryptopi_readonly was created by someone else meanwhile';
end
$$;

do $$
declare
  v_schema text;
begin
  foreach v_schema in array array[
    'settings', 'market', 'ingest', 'matrices', 'str_aux', 'cin_aux',
    'mea_dynamics', 'wallet', 'docs', 'ops', 'debug'
  ] loop
    execute format('grant usage on schema %I to cryptopi_readonly', v_schema);
    execute format('grant select on all tables in schema %I to cryptopi_readonly', v_schema);
    execute format('grant select on all sequences in schema %I to cryptopi_readonly', v_schema);
    execute format('alter default privileges in schema %I grant select on tables to cryptopi_readonly', v_schema);
  end loop;
end
$$;

-- Reading the stamp is everyone's business, writing it is not.
revoke execute on function ops.open_all_sessions(text, text, text, integer, text) from public;
