import { BINS, binOnGrid, selectBins } from '../../src/market/bins.mts'
import { maxAgeSeconds, onSnapshot, positiveEnv, smoke, symbolsToCheck } from '../lib/smoke.mts'

const MIN_MIDS = 64
const MAX_MIDS = 1024

await smoke('idhr', () =>
  onSnapshot(['settings.coin_universe', 'str_aux.samples_5s'], async (sql) => {
    const symbols = await symbolsToCheck(sql)
    const maxAge = maxAgeSeconds()
    const limit = Math.min(Math.max(Math.trunc(positiveEnv('LIMIT', 256)), MIN_MIDS), MAX_MIDS)

    const problems: string[] = []
    const rows = []
    for (const symbol of symbols) {
      const latest = await sql<{ mid: number; age_s: number }[]>`
        select mid, extract(epoch from now() - ts)::float8 as age_s
          from str_aux.samples_5s where symbol = ${symbol} order by ts desc limit ${limit}`
      if (latest.length < MIN_MIDS) {
        problems.push(`${symbol} has ${latest.length} mids, at least ${MIN_MIDS} are needed.`)
        continue
      }
      const age = latest[0].age_s
      if (age > maxAge) problems.push(`${symbol} is stale: its newest mid is ${Math.round(age)} s old, ${maxAge} s are allowed.`)

      const grid = binOnGrid(latest.map((row) => row.mid))
      const { primary, fine } = selectBins(grid)
      if (!(grid.high > grid.low)) problems.push(`${symbol} is flat: all ${latest.length} mids are ${grid.low}.`)
      if (primary.length < 1 || primary.length > BINS) problems.push(`${symbol} has ${primary.length} primary bins selected, 1 to ${BINS} are right.`)
      if (fine.length > BINS) problems.push(`${symbol} has ${fine.length} fine bins selected, at most ${BINS} are right.`)
      rows.push({ symbol, mids: latest.length, low: grid.low, high: grid.high, primary: primary.length, fine: fine.length })
    }
    const mids = rows.reduce((sum, row) => sum + row.mids, 0)
    return {
      rows,
      problems,
      summary: `${rows.length} symbols, ${mids} mids, primary bins ${rows.map((r) => r.primary).join('/')}, fine bins ${rows.map((r) => r.fine).join('/')}`,
    }
  }),
)
