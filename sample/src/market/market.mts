export const SAMPLE_MS = 5_000
export const CYCLE_MS = 40_000
export const WINDOW_MS = 30 * 60_000

export type Quality = 'ok' | 'thin' | 'bad'

const ANCHORS: Record<string, number> = { BTCUSDT: 64_000, ETHUSDT: 3_100, SOLUSDT: 148, ADAUSDT: 0.46, DOGEUSDT: 0.12 }

const WAVES = [
  { periodMs: 24 * 3_600_000, amplitude: 0.018 },
  { periodMs: 3.1 * 3_600_000, amplitude: 0.008 },
  { periodMs: 31 * 60_000, amplitude: 0.004 },
  { periodMs: 4.3 * 60_000, amplitude: 0.0012 },
]

export function alignDown(ms: number, step: number): number {
  return Math.floor(ms / step) * step
}

/** FNV-1a with a final mix, as a number in [0, 1). */
function hash01(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32
}

/**
 * The price is a function of symbol and time alone, so that a backfill writes
 * exactly what a feed that never stopped would have written.
 */
export function midAt(symbol: string, ms: number): number {
  const anchor = ANCHORS[symbol] ?? 10 ** (hash01(symbol) * 4 - 1)
  let logPrice = (hash01(`${symbol}:noise:${alignDown(ms, SAMPLE_MS)}`) - 0.5) * 0.0006
  WAVES.forEach(({ periodMs, amplitude }, i) => {
    const phase = hash01(`${symbol}:wave:${i}`)
    logPrice += amplitude * Math.sin(2 * Math.PI * (ms / periodMs + phase))
  })
  return Number((anchor * Math.exp(logPrice)).toPrecision(7))
}

export function qualityAt(symbol: string, ms: number): Quality {
  const luck = hash01(`${symbol}:quality:${ms}`)
  return luck < 0.004 ? 'bad' : luck < 0.02 ? 'thin' : 'ok'
}

export type Coin = { symbol: string; base: string; quote: string }
export type DynValue = { type: string; base: string; quote: string; tsMs: number; value: number }

/** All ordered pairs of the enabled bases, and each base against its own quote. */
export function matrixAt(coins: Coin[], tsMs: number): DynValue[] {
  const assets = new Map<string, Coin | null>()
  for (const coin of coins) assets.set(coin.quote, null)
  for (const coin of coins) assets.set(coin.base, coin)

  // Worth of an asset in the common quote, which is itself worth 1.
  const worth = (asset: string, ms: number) => {
    const coin = assets.get(asset)
    return coin ? midAt(coin.symbol, ms) : 1
  }
  const values: DynValue[] = []
  for (const { base } of coins) {
    for (const quote of assets.keys()) {
      if (quote === base) continue
      const rate = (ms: number) => worth(base, ms) / worth(quote, ms)
      const now = rate(tsMs)
      values.push({ type: 'benchmark', base, quote, tsMs, value: now })
      values.push({ type: 'delta', base, quote, tsMs, value: now / rate(tsMs - CYCLE_MS) - 1 })
      values.push({ type: 'pct24h', base, quote, tsMs, value: now / rate(tsMs - 24 * 3_600_000) - 1 })
    }
  }
  return values
}
