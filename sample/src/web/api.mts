import { describe, missingTables, type Sql } from '../db/connect.mts'
import { SAMPLE_MS } from '../market/market.mts'

export type App = { name: string; version: string; startedAt: Date; sql: Sql }
export type Answer = { status: number; body: object }
type Handler = (app: App, query: URLSearchParams) => Promise<Answer>

class Refusal extends Error {
  status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const ok = (body: object): Answer => ({ status: 200, body })

async function need(sql: Sql, ...tables: string[]): Promise<void> {
  const missing = await missingTables(sql, tables)
  if (missing.length > 0) throw new Refusal(503, `${missing.join(', ')} not there yet: the DDL pack has not been applied`)
}

function limitOf(query: URLSearchParams, fallback: number, max: number): number {
  const limit = Number(query.get('limit') ?? fallback)
  if (!Number.isInteger(limit) || limit < 1) throw new Refusal(400, 'limit must be a positive integer')
  return Math.min(limit, max)
}

/** Age of the enabled symbol that lags most: one dead symbol must not hide behind the living ones. */
async function ingestAge(sql: Sql): Promise<number | null> {
  if ((await missingTables(sql, ['settings.coin_universe', 'str_aux.samples_5s'])).length > 0) return null
  const [{ age }] = await sql<{ age: number | null }[]>`
    select case when bool_and(newest is not null) then extract(epoch from now() - min(newest))::float8 end as age
      from (
             select (select max(ts) from str_aux.samples_5s s where s.symbol = u.symbol) as newest
               from settings.coin_universe u where u.enabled
           ) enabled`
  return age === null ? null : Math.round(age * 10) / 10
}

const health: Handler = async ({ name, version, sql }) => {
  const began = performance.now()
  try {
    await sql`select 1`
    const ms = Math.round((performance.now() - began) * 10) / 10
    return ok({ ok: true, app: name, version, database: { ok: true, ms }, ingest: { age_s: await ingestAge(sql) } })
  } catch (error) {
    const body = { ok: false, app: name, version, error: describe(error), database: { ok: false }, ingest: { age_s: null } }
    return { status: 503, body }
  }
}

const version: Handler = async ({ name, version, startedAt }) => ok({ app: name, version, started_at: startedAt })

const universe: Handler = async ({ sql }) => {
  await need(sql, 'settings.coin_universe')
  return ok({ coins: await sql`select symbol, base, quote, enabled from settings.coin_universe order by sort_order, symbol` })
}

const sampling: Handler = async ({ sql }, query) => {
  await need(sql, 'settings.coin_universe', 'str_aux.samples_5s')
  const symbol = query.get('symbol')
  if (!symbol) throw new Refusal(400, 'symbol is missing: /api/sampling?symbol=BTCUSDT')
  const known = await sql`select from settings.coin_universe where symbol = ${symbol} and enabled`
  if (known.length === 0) throw new Refusal(404, `${symbol} is not an enabled symbol`)

  // Buckets, not rows: a missing sample shows as an empty bucket.
  const limit = limitOf(query, 60, 1024)
  const buckets = await sql<{ ts: Date; mid: number | null; quality: string | null }[]>`
    with newest as (select max(ts) as ts from str_aux.samples_5s where symbol = ${symbol})
    select bucket as ts, s.mid, s.quality
      from newest, generate_series(newest.ts - ${limit - 1} * interval '5 seconds', newest.ts, '5 seconds') as bucket
      left join str_aux.samples_5s s on s.symbol = ${symbol} and s.ts = bucket
     order by bucket`
  const newest = buckets.at(-1)?.ts
  return ok({
    symbol,
    bucket_s: SAMPLE_MS / 1000,
    age_s: newest ? Math.round((Date.now() - newest.getTime()) / 1000) : null,
    buckets,
  })
}

const cycles: Handler = async ({ sql }, query) => {
  await need(sql, 'settings.coin_universe', 'str_aux.cycles_40s')
  const limit = limitOf(query, 45, 500)
  return ok({
    cycles: await sql`
      select u.symbol, c.cycle_ts as ts, c.open, c.high, c.low, c.close, c.samples
        from settings.coin_universe u
       cross join lateral (
               select * from str_aux.cycles_40s where symbol = u.symbol order by cycle_ts desc limit ${limit}
             ) c
       where u.enabled
       order by u.sort_order, u.symbol, c.cycle_ts`,
  })
}

const klines: Handler = async ({ sql }, query) => {
  await need(sql, 'settings.coin_universe', 'market.klines', 'str_aux.window_stats')
  const limit = limitOf(query, 48, 500)
  return ok({
    klines: await sql`
      select u.symbol, k.window_ts as ts, k.open, k.high, k.low, k.close, k.samples, t.mean, t.stdev
        from settings.coin_universe u
       cross join lateral (
               select * from market.klines where symbol = u.symbol order by window_ts desc limit ${limit}
             ) k
        left join str_aux.window_stats t on t.symbol = k.symbol and t.window_ts = k.window_ts
       where u.enabled
       order by u.sort_order, u.symbol, k.window_ts`,
  })
}

const matrices: Handler = async ({ sql }) => {
  await need(sql, 'settings.coin_universe', 'matrices.dyn_values')
  const values = await sql`
    with assets as (
      select base as asset, min(sort_order) as sort_order from settings.coin_universe where enabled group by base
      union all
      select distinct quote, 1000 from settings.coin_universe where enabled
    )
    select t.type, b.asset as base, q.asset as quote, v.value, v.ts_ms::float8 as ts_ms,
           round((extract(epoch from now()) - v.ts_ms / 1000.0)::numeric, 1)::float8 as age_s
      from unnest(array['benchmark', 'delta', 'pct24h']) with ordinality as t (type, position)
     cross join assets b
     cross join assets q
     cross join lateral (
             select value, ts_ms from matrices.dyn_values
              where matrix_type = t.type and base = b.asset and quote = q.asset
              order by ts_ms desc limit 1
           ) v
     order by t.position, b.sort_order, q.sort_order`
  return ok({ values })
}

const HANDLERS: Record<string, Handler> = {
  '/api/health': health,
  '/api/version': version,
  '/api/universe': universe,
  '/api/sampling': sampling,
  '/api/cycles': cycles,
  '/api/klines': klines,
  '/api/matrices': matrices,
}

export async function answerApi(app: App, url: URL): Promise<Answer | null> {
  const handler = Object.hasOwn(HANDLERS, url.pathname) ? HANDLERS[url.pathname] : null
  if (!handler) return null
  try {
    return await handler(app, url.searchParams)
  } catch (error) {
    const status = error instanceof Refusal ? error.status : 503
    return { status, body: { ok: false, error: error instanceof Refusal ? error.message : describe(error) } }
  }
}
