create table if not exists market.klines (
  symbol     text             not null,
  window_ts  timestamptz      not null,
  open       double precision not null,
  high       double precision not null,
  low        double precision not null,
  close      double precision not null,
  samples    integer          not null,
  updated_at timestamptz      not null default now(),
  primary key (symbol, window_ts),
  check (extract(epoch from window_ts)::bigint % 1800 = 0),
  check (low <= least(open, close) and high >= greatest(open, close))
);

comment on table market.klines is 'One candle a symbol and window of 30 minutes; the current window is still moving.';
