import { requireEnv, Unusable } from '../../src/db/connect.mts'
import { chooseSymbols, maxAgeSeconds, positiveEnv, smoke } from '../lib/smoke.mts'

type Bucket = { ts: string; mid: number | null; quality: string | null }
type Sampling = { symbol: string; buckets: Bucket[] }
type Universe = { coins: { symbol: string; enabled: boolean }[] }

async function ask<T>(origin: string, path: string): Promise<T> {
  const url = new URL(path, origin)
  // A redirect would be a login page or another host, neither of which is an answer.
  const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(10_000) }).catch((error) => {
    throw new Unusable(`${url} does not answer: ${error.cause?.code ?? error.message}`)
  })
  const text = await response.text()
  if (response.status !== 200) throw new Unusable(`${url} answers ${response.status}: ${text.slice(0, 200)}`)
  if (!response.headers.get('content-type')?.startsWith('application/json')) throw new Unusable(`${url} does not answer in JSON`)
  return JSON.parse(text)
}

await smoke('sampling', async () => {
  const origin = requireEnv('ORIGIN')
  const limit = positiveEnv('LIMIT', 60)
  const maxAge = maxAgeSeconds()
  const { coins } = await ask<Universe>(origin, '/api/universe')
  const symbols = chooseSymbols(coins.filter((coin) => coin.enabled).map((coin) => coin.symbol))

  const problems: string[] = []
  const rows = []
  for (const symbol of symbols) {
    const { buckets } = await ask<Sampling>(origin, `/api/sampling?symbol=${symbol}&limit=${limit}`)
    const filled = buckets.filter((bucket) => bucket.mid !== null)
    const bad = filled.filter((bucket) => bucket.quality === 'bad').length
    const newest = Math.max(...filled.map((bucket) => Date.parse(bucket.ts)))
    const age = filled.length > 0 ? Math.round((Date.now() - newest) / 1000) : -1
    const empty = buckets.length - filled.length

    if (filled.length === 0) problems.push(`${symbol} has no samples.`)
    else if (age > maxAge) problems.push(`${symbol} is stale: its newest bucket is ${age} s old, ${maxAge} s are allowed.`)
    if (empty > 0) problems.push(`${symbol} has ${empty} empty buckets of ${buckets.length}.`)
    if (bad * 2 > filled.length) problems.push(`${symbol} has a bad quality flag on ${bad} of ${filled.length} buckets.`)
    rows.push({ symbol, buckets: buckets.length, empty, bad, age_s: age })
  }
  const total = rows.reduce((sum, row) => sum + row.buckets, 0)
  const bad = rows.reduce((sum, row) => sum + row.bad, 0)
  return { rows, problems, summary: `${symbols.length} symbols, ${total} buckets, 0 empty, ${bad} of bad quality` }
})
