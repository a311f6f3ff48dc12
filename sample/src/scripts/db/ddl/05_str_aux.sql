create table if not exists str_aux.samples_5s (
  symbol  text             not null,
  ts      timestamptz      not null,
  mid     double precision not null check (mid > 0),
  quality text             not null default 'ok' check (quality in ('ok', 'thin', 'bad')),
  primary key (symbol, ts),
  check (extract(epoch from ts)::numeric % 5 = 0)
);

create table if not exists str_aux.cycles_40s (
  symbol   text             not null,
  cycle_ts timestamptz      not null,
  open     double precision not null,
  high     double precision not null,
  low      double precision not null,
  close    double precision not null,
  samples  integer          not null,
  primary key (symbol, cycle_ts)
);

create table if not exists str_aux.window_stats (
  symbol    text             not null,
  window_ts timestamptz      not null,
  samples   integer          not null,
  mean      double precision not null,
  stdev     double precision not null,
  low       double precision not null,
  high      double precision not null,
  primary key (symbol, window_ts)
);

create table if not exists str_aux.window_vectors (
  symbol    text               not null,
  window_ts timestamptz        not null,
  vector    double precision[] not null check (cardinality(vector) = 16),
  primary key (symbol, window_ts)
);

comment on table str_aux.cycles_40s is 'Closed cycles only: eight samples each.';
comment on column str_aux.window_vectors.vector is 'Share of the window''s samples in each of 16 price bins.';
