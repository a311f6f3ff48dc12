create table if not exists wallet.accounts (
  account_id uuid        primary key default gen_random_uuid(),
  label      text        not null unique,
  opened_at  timestamptz not null default now()
);

create table if not exists wallet.balances (
  account_id uuid            not null references wallet.accounts (account_id),
  asset      text            not null,
  amount     numeric(38, 18) not null default 0 check (amount >= 0),
  updated_at timestamptz     not null default now(),
  primary key (account_id, asset)
);
