import { maxAgeSeconds, onSnapshot, smoke, symbolsToCheck } from '../lib/smoke.mts'

type Coverage = { symbol: string; window_ts: Date; expected: number; samples: number; age_s: number | null }
type Gap = { symbol: string; gap_after: Date; missing: number }
type Parts = { symbol: string; window_ts: Date; kline_samples: number }

const clock = (at: Date) => `${at.toISOString().slice(11, 19)}Z`

await smoke('schema-diagnostics', () =>
  onSnapshot(['debug.sample_coverage', 'debug.sample_gaps', 'debug.window_parts', 'settings.coin_universe'], async (sql) => {
    const symbols = await symbolsToCheck(sql)
    const maxAge = maxAgeSeconds()
    const coverage = await sql<Coverage[]>`
      select * from debug.sample_coverage where symbol = any(${symbols}) order by symbol, window_ts`
    const gaps = await sql<Gap[]>`
      select * from debug.sample_gaps where symbol = any(${symbols}) order by symbol, gap_after`
    const parts = await sql<Parts[]>`
      select symbol, window_ts, kline_samples from debug.window_parts where symbol = any(${symbols})`

    const problems: string[] = []
    for (const symbol of symbols) {
      const age = coverage.find((row) => row.symbol === symbol)?.age_s ?? null
      if (age === null) problems.push(`${symbol} has no sample at all.`)
      else if (age > maxAge) problems.push(`${symbol} is stale: its newest sample is ${Math.round(age)} s old, ${maxAge} s are allowed.`)
    }
    for (const { symbol, window_ts, expected, samples, age_s } of coverage) {
      if (age_s === null) continue
      if (samples < expected) problems.push(`${symbol} window ${clock(window_ts)} holds ${samples} of ${expected} samples.`)
      const kline = parts.find((part) => part.symbol === symbol && part.window_ts.getTime() === window_ts.getTime())
      if (samples > 0 && !kline) problems.push(`${symbol} window ${clock(window_ts)} has samples but no kline.`)
    }
    for (const { symbol, gap_after, missing } of gaps) {
      problems.push(`${symbol} misses ${missing} samples after ${clock(gap_after)}.`)
    }

    const sum = (pick: (row: Coverage) => number) => coverage.reduce((total, row) => total + pick(row), 0)
    return {
      rows: coverage.map((row) => ({
        symbol: row.symbol,
        window: clock(row.window_ts),
        expected: row.expected,
        samples: row.samples,
        age_s: Math.round(row.age_s ?? -1),
      })),
      problems,
      summary: `${symbols.length} symbols, ${coverage.length} windows, ${sum((r) => r.samples)} of ${sum((r) => r.expected)} samples, ${gaps.length} gaps`,
    }
  }),
)
