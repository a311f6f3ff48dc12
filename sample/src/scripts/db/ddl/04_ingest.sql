create table if not exists ingest.feed_state (
  feed         text        primary key,
  host         text        not null,
  pid          integer     not null,
  started_at   timestamptz not null,
  last_tick_ts timestamptz not null,
  updated_at   timestamptz not null default now()
);

comment on table ingest.feed_state is 'Who feeds this database, and how far it came.';
