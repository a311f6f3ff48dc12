-- The key doubles as the index for "the latest value of a pair", the only way this table is read.
create table if not exists matrices.dyn_values (
  matrix_type text             not null check (matrix_type in ('benchmark', 'delta', 'pct24h')),
  base        text             not null,
  quote       text             not null,
  ts_ms       bigint           not null,
  value       double precision not null,
  primary key (matrix_type, base, quote, ts_ms),
  check (base <> quote)
);
