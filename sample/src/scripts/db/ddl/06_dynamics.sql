create table if not exists cin_aux.coin_flows (
  symbol   text             not null,
  cycle_ts timestamptz      not null,
  inflow   double precision not null default 0,
  outflow  double precision not null default 0,
  primary key (symbol, cycle_ts)
);

create table if not exists mea_dynamics.allocations (
  base        text             not null,
  ts_ms       bigint           not null,
  weight      double precision not null check (weight between 0 and 1),
  computed_at timestamptz      not null default now(),
  primary key (base, ts_ms)
);
