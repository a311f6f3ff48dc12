-- Stamps every schema with the version that now runs on it. Each call is a new session on purpose:
-- the log is the history of what was opened when, and opened_by leads from a schema to its version.
create or replace function ops.open_all_sessions(
  p_app_name    text,
  p_app_version text,
  p_host        text    default null,
  p_pid         integer default null,
  p_note        text    default null
) returns integer
language plpgsql
as $$
declare
  v_session uuid;
  v_opened  integer;
begin
  if coalesce(trim(p_app_name), '') = '' or coalesce(trim(p_app_version), '') = '' then
    raise exception 'a session needs an application name and a version'
      using errcode = 'invalid_parameter_value';
  end if;

  insert into ops.session_log (app_name, app_version, host, pid, note)
  values (
    p_app_name,
    p_app_version,
    coalesce(p_host, host(inet_client_addr()), 'local'),
    coalesce(p_pid, pg_backend_pid()),
    p_note
  )
  returning session_id into v_session;

  update ops.session_flags
     set is_open = true, opened_at = now(), opened_by = v_session, updated_at = now();
  get diagnostics v_opened = row_count;

  return v_opened;
end
$$;
