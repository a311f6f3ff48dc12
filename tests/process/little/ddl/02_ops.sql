set client_min_messages = warning;
create table if not exists ops.session_log (
  session_id bigint generated always as identity primary key,
  app_name text not null,
  app_version text not null,
  opened_at timestamptz not null default now()
);
