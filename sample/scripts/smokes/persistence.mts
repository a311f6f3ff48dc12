import { windowStats, windowVector } from '../../src/market/windows.mts'
import { maxAgeSeconds, onSnapshot, positiveEnv, smoke, symbolsToCheck } from '../lib/smoke.mts'

type Stored = {
  symbol: string
  window_ts: Date
  kline_samples: number
  samples: number | null
  mean: number | null
  stdev: number | null
  low: number | null
  high: number | null
  vector: number[] | null
  mids: number[] | null
  age_s: number
}

const STATS = ['samples', 'mean', 'stdev', 'low', 'high'] as const
const close = (a: number, b: number, scale: number) => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(scale))

function compare(row: Stored): string[] {
  if (!row.mids) return ['has a kline but no samples to recompute it from']
  const problems: string[] = []
  if (row.kline_samples !== row.mids.length) problems.push(`has a kline of ${row.kline_samples} samples, ${row.mids.length} are stored`)

  const stats = windowStats(row.mids)
  if (row.samples === null) problems.push('has a kline but no stats')
  else {
    const wrong = STATS.filter((key) => !close(row[key]!, stats[key], stats.mean))
    if (wrong.length > 0) problems.push(`has stats that differ when recomputed: ${wrong.map((key) => `${key} ${row[key]}, not ${stats[key]}`).join('; ')}`)
  }

  const vector = windowVector(row.mids)
  if (row.vector === null) problems.push('has a kline but no vector')
  else if (row.vector.length !== vector.length || !vector.every((share, i) => close(row.vector![i], share, 1))) {
    problems.push('has a vector that differs when recomputed')
  }
  return problems
}

await smoke('persistence', () =>
  onSnapshot(
    ['settings.coin_universe', 'market.klines', 'str_aux.samples_5s', 'str_aux.window_stats', 'str_aux.window_vectors'],
    async (sql) => {
      const symbols = await symbolsToCheck(sql)
      const maxAge = maxAgeSeconds()
      const limit = positiveEnv('LIMIT', 64)
      const stored = await sql<Stored[]>`
        select k.symbol, k.window_ts, k.samples as kline_samples,
               t.samples, t.mean, t.stdev, t.low, t.high, v.vector, s.mids,
               extract(epoch from now() - s.newest)::float8 as age_s
          from unnest(${symbols}::text[]) as wanted (name)
         cross join lateral (
                 select * from market.klines where symbol = wanted.name order by window_ts desc limit ${limit}
               ) k
          left join str_aux.window_stats t using (symbol, window_ts)
          left join str_aux.window_vectors v using (symbol, window_ts)
         cross join lateral (
                 select array_agg(mid order by ts) as mids, max(ts) as newest
                   from str_aux.samples_5s
                  where symbol = k.symbol and ts >= k.window_ts and ts < k.window_ts + interval '30 minutes'
               ) s
         order by k.symbol, k.window_ts desc`

      const problems: string[] = []
      const rows = symbols.map((symbol) => {
        const windows = stored.filter((row) => row.symbol === symbol)
        const age = windows[0]?.age_s ?? null
        if (windows.length === 0) problems.push(`${symbol} has no klines.`)
        else if (age === null || age > maxAge) problems.push(`${symbol} is stale: its newest kline ends ${Math.round(age ?? 0)} s ago, ${maxAge} s are allowed.`)
        const differing = windows.filter((row) => {
          const found = compare(row)
          problems.push(...found.map((text) => `${symbol} window ${row.window_ts.toISOString()} ${text}.`))
          return found.length > 0
        })
        return { symbol, windows: windows.length, differing: differing.length, samples: windows.reduce((sum, row) => sum + row.kline_samples, 0) }
      })
      const samples = rows.reduce((sum, row) => sum + row.samples, 0)
      return { rows, problems, summary: `${symbols.length} symbols, ${stored.length} windows recomputed from ${samples} samples, 0 differ` }
    },
  ),
)
