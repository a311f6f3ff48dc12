create table if not exists ops.session_log (
  session_id  uuid        primary key default gen_random_uuid(),
  app_name    text        not null,
  app_version text        not null,
  opened_at   timestamptz not null default now(),
  host        text,
  pid         integer,
  note        text
);

create table if not exists ops.session_flags (
  schema_name text        primary key,
  is_open     boolean     not null default false,
  opened_at   timestamptz,
  opened_by   uuid        references ops.session_log (session_id),
  updated_at  timestamptz not null default now()
);

insert into ops.session_flags (schema_name)
select unnest(array[
  'settings', 'market', 'ingest', 'matrices', 'str_aux', 'cin_aux',
  'mea_dynamics', 'wallet', 'docs', 'ops', 'debug'
])
on conflict (schema_name) do nothing;
