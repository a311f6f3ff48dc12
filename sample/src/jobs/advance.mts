import type { Query, Sql } from '../db/connect.mts'
import { alignDown, CYCLE_MS, matrixAt, midAt, qualityAt, SAMPLE_MS, WINDOW_MS, type Coin } from '../market/market.mts'
import { windowStats, windowVector } from '../market/windows.mts'

export const TABLES = [
  'settings.coin_universe',
  'ingest.feed_state',
  'str_aux.samples_5s',
  'str_aux.cycles_40s',
  'market.klines',
  'str_aux.window_stats',
  'str_aux.window_vectors',
  'matrices.dyn_values',
] as const

const FIRST_BACKFILL_MS = 65 * 60_000
const MAX_BACKFILL_MS = 2 * 60 * 60_000

type CoinState = Coin & { newestMs: number | null }
type Feed = { name: string; host: string; pid: number; startedAt: Date }
export type Written = { symbols: number; ticks: number; samples: number }

/**
 * Writes everything between the newest sample of each symbol and now. A start on an empty database, a pause,
 * a symbol enabled just now and the ordinary tick are one case. One transaction, so a reader never sees
 * klines without their stats.
 */
export async function advance(sql: Sql, feed: Feed, nowMs: number): Promise<Written> {
  return sql.begin(async (tx) => {
    const coins = await tx<CoinState[]>`
      select symbol, base, quote,
             (select extract(epoch from max(ts))::float8 * 1000
                from str_aux.samples_5s s where s.symbol = u.symbol) as "newestMs"
        from settings.coin_universe u
       where enabled
       order by sort_order, symbol`
    const lastTick = alignDown(nowMs, SAMPLE_MS)
    const due = coins.flatMap((coin) => ticks(firstMissing(coin, nowMs), lastTick).map((ms) => ({ symbol: coin.symbol, ms })))
    if (due.length === 0) return { symbols: coins.length, ticks: 0, samples: 0 }

    const symbols = coins.map((coin) => coin.symbol)
    const from = due.reduce((least, { ms }) => Math.min(least, ms), lastTick)
    await writeSamples(tx, due)
    await writeCycles(tx, symbols, from)
    await writeWindows(tx, symbols, from)
    await writeMatrices(tx, coins, ticks(from, lastTick))
    await tx`
      insert into ingest.feed_state (feed, host, pid, started_at, last_tick_ts)
      values (${feed.name}, ${feed.host}, ${feed.pid}, ${feed.startedAt}, ${new Date(lastTick)})
      on conflict (feed) do update
         set host = excluded.host, pid = excluded.pid, started_at = excluded.started_at,
             last_tick_ts = excluded.last_tick_ts, updated_at = now()`
    return { symbols: coins.length, ticks: (lastTick - from) / SAMPLE_MS + 1, samples: due.length }
  }) as Promise<Written>
}

function firstMissing({ newestMs }: CoinState, nowMs: number): number {
  // Whole cycles from the start, or the oldest one could never close.
  const oldest = (backMs: number) => alignDown(nowMs - backMs, CYCLE_MS)
  if (newestMs === null) return oldest(FIRST_BACKFILL_MS)
  return Math.max(newestMs + SAMPLE_MS, oldest(MAX_BACKFILL_MS))
}

function ticks(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, (to - from) / SAMPLE_MS + 1) }, (_, i) => from + i * SAMPLE_MS)
}

async function writeSamples(tx: Query, due: { symbol: string; ms: number }[]): Promise<void> {
  await tx`
    insert into str_aux.samples_5s (symbol, ts, mid, quality)
    select symbol, to_timestamp(ms / 1000), mid, quality
      from unnest(
             ${due.map((d) => d.symbol)}::text[],
             ${due.map((d) => d.ms)}::float8[],
             ${due.map((d) => midAt(d.symbol, d.ms))}::float8[],
             ${due.map((d) => qualityAt(d.symbol, d.ms))}::text[]
           ) as due (symbol, ms, mid, quality)
    on conflict do nothing`
}

async function writeCycles(tx: Query, symbols: string[], from: number): Promise<void> {
  await tx`
    insert into str_aux.cycles_40s (symbol, cycle_ts, open, high, low, close, samples)
    select symbol, date_bin('40 seconds', ts, 'epoch') as cycle_ts,
           (array_agg(mid order by ts))[1], max(mid), min(mid), (array_agg(mid order by ts desc))[1], count(*)
      from str_aux.samples_5s
     where symbol = any(${symbols}) and ts >= ${new Date(alignDown(from, CYCLE_MS))}
     group by symbol, cycle_ts
    having count(*) = ${CYCLE_MS / SAMPLE_MS}
    on conflict do nothing`
}

async function writeWindows(tx: Query, symbols: string[], from: number): Promise<void> {
  const since = new Date(alignDown(from, WINDOW_MS))
  await tx`
    insert into market.klines (symbol, window_ts, open, high, low, close, samples)
    select symbol, date_bin('30 minutes', ts, 'epoch') as window_ts,
           (array_agg(mid order by ts))[1], max(mid), min(mid), (array_agg(mid order by ts desc))[1], count(*)
      from str_aux.samples_5s
     where symbol = any(${symbols}) and ts >= ${since}
     group by symbol, window_ts
    on conflict (symbol, window_ts) do update
       set high = excluded.high, low = excluded.low, close = excluded.close,
           samples = excluded.samples, updated_at = now()`

  const windows = await tx<{ symbol: string; window_ts: Date; mids: number[] }[]>`
    select symbol, date_bin('30 minutes', ts, 'epoch') as window_ts, array_agg(mid order by ts) as mids
      from str_aux.samples_5s
     where symbol = any(${symbols}) and ts >= ${since}
     group by symbol, window_ts`
  const rows = windows.map(({ symbol, window_ts, mids }) => ({ symbol, window_ts, ...windowStats(mids) }))
  await tx`
    insert into str_aux.window_stats ${tx(rows, 'symbol', 'window_ts', 'samples', 'mean', 'stdev', 'low', 'high')}
    on conflict (symbol, window_ts) do update
       set samples = excluded.samples, mean = excluded.mean, stdev = excluded.stdev,
           low = excluded.low, high = excluded.high`
  const vectors = windows.map(({ symbol, window_ts, mids }) => ({ symbol, window_ts, vector: windowVector(mids) }))
  await tx`
    insert into str_aux.window_vectors ${tx(vectors, 'symbol', 'window_ts', 'vector')}
    on conflict (symbol, window_ts) do update set vector = excluded.vector`
}

async function writeMatrices(tx: Query, coins: Coin[], atTicks: number[]): Promise<void> {
  const values = atTicks.flatMap((ms) => matrixAt(coins, ms))
  await tx`
    insert into matrices.dyn_values (matrix_type, base, quote, ts_ms, value)
    select * from unnest(
      ${values.map((v) => v.type)}::text[],
      ${values.map((v) => v.base)}::text[],
      ${values.map((v) => v.quote)}::text[],
      ${values.map((v) => v.tsMs)}::bigint[],
      ${values.map((v) => v.value)}::float8[]
    )
    on conflict do nothing`
}
