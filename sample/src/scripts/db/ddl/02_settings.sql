create table if not exists settings.coin_universe (
  symbol     text        primary key,
  base       text        not null,
  quote      text        not null,
  enabled    boolean     not null default true,
  sort_order integer     not null default 100,
  added_at   timestamptz not null default now(),
  unique (base, quote)
);

insert into settings.coin_universe (symbol, base, quote, enabled, sort_order)
values
  ('BTCUSDT',  'BTC',  'USDT', true,  10),
  ('ETHUSDT',  'ETH',  'USDT', true,  20),
  ('SOLUSDT',  'SOL',  'USDT', true,  30),
  ('ADAUSDT',  'ADA',  'USDT', true,  40),
  ('DOGEUSDT', 'DOGE', 'USDT', false, 50)
on conflict do nothing;
