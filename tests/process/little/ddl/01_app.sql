set client_min_messages = warning;
create table if not exists app.symbols (symbol text primary key);
insert into app.symbols values ('BTC'), ('ETH') on conflict do nothing;
create table if not exists app.samples (
  symbol text references app.symbols,
  ts timestamptz,
  primary key (symbol, ts)
);
