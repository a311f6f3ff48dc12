create table if not exists docs.pages (
  slug       text        primary key,
  title      text        not null,
  body       text        not null default '',
  updated_at timestamptz not null default now()
);

do $$
begin
  if exists (select from pg_extension where extname = 'pg_trgm') then
    create index if not exists pages_title_trgm on docs.pages using gin (title public.gin_trgm_ops);
  end if;
end
$$;
