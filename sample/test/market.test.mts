import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BINS, binOnGrid, selectBins } from '../src/market/bins.mts'
import { alignDown, matrixAt, midAt, qualityAt, SAMPLE_MS } from '../src/market/market.mts'
import { windowStats, windowVector } from '../src/market/windows.mts'

const T0 = Date.UTC(2026, 0, 1)
const series = (symbol: string, count: number) => Array.from({ length: count }, (_, i) => midAt(symbol, T0 + i * SAMPLE_MS))

test('the market is a function of symbol and time', () => {
  assert.deepEqual(series('BTCUSDT', 50), series('BTCUSDT', 50))
  assert.notDeepEqual(series('BTCUSDT', 50), series('ETHUSDT', 50))
  assert.ok(midAt('NEWUSDT', T0) > 0, 'a symbol without an anchor has a price too')
})

test('prices move, but by no more than a market would in 5 s', () => {
  const mids = series('SOLUSDT', 1_000)
  assert.ok(new Set(mids).size > 900)
  mids.slice(1).forEach((mid, i) => assert.ok(Math.abs(mid / mids[i] - 1) < 0.002))
})

test('bad quality is rare and does occur', () => {
  const flags = Array.from({ length: 5_000 }, (_, i) => qualityAt('ADAUSDT', T0 + i * SAMPLE_MS))
  const bad = flags.filter((flag) => flag === 'bad').length
  assert.ok(bad > 0 && bad < 100, `${bad} bad flags`)
})

test('every mid falls into one cell of the grid, the highest too', () => {
  const grid = binOnGrid([1, 1.5, 2])
  assert.deepEqual([grid.primary[0], grid.primary[8], grid.primary[15]], [1, 1, 1])
  assert.equal(grid.fine[15][15], 1)
  assert.equal(grid.fine.flat().reduce((a, b) => a + b), 3)
})

test('selected bins stay within 16 each, and a flat line has one', () => {
  const { primary, fine } = selectBins(binOnGrid(series('BTCUSDT', 1_024)))
  assert.ok(primary.length >= 1 && primary.length <= BINS)
  assert.ok(fine.length >= 1 && fine.length <= BINS)
  assert.ok(fine.every(([p]) => primary.includes(p)))
  assert.deepEqual(selectBins(binOnGrid([7, 7, 7])), { primary: [0], fine: [[0, 0]] })
})

test('window stats and vectors', () => {
  assert.deepEqual(windowStats([2, 4, 4, 6]), { samples: 4, mean: 4, stdev: Math.SQRT2, low: 2, high: 6 })
  const total = windowVector(series('ETHUSDT', 360)).reduce((a, b) => a + b)
  assert.ok(Math.abs(total - 1) < 1e-12)
})

test('matrices hold every ordered pair, and the reverse of a pair is its inverse', () => {
  const coins = ['BTC', 'ETH', 'SOL'].map((base) => ({ symbol: `${base}USDT`, base, quote: 'USDT' }))
  const benchmark = matrixAt(coins, T0).filter((value) => value.type === 'benchmark')
  assert.equal(benchmark.length, 9)
  const rate = (base: string, quote: string) => benchmark.find((v) => v.base === base && v.quote === quote)!.value
  assert.ok(Math.abs(rate('BTC', 'ETH') * rate('ETH', 'BTC') - 1) < 1e-12)
  assert.equal(rate('BTC', 'USDT'), midAt('BTCUSDT', T0))
})

test('alignment goes down to the step', () => {
  assert.equal(alignDown(T0 + 4_999, SAMPLE_MS), T0)
})
