-- Only the search in docs profits from an extension, so a server without contrib modules is no reason to fail.
do $$
begin
  if exists (select from pg_available_extensions where name = 'pg_trgm') then
    create extension if not exists pg_trgm with schema public;
  else
    raise notice 'pg_trgm is not available on this server; docs are searched without a trigram index';
  end if;
end
$$;
