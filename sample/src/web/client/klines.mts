import { candles, el, table } from './draw.mts'
import { getJson, groupBy, price, runView, time } from './view.mts'

type Kline = {
  symbol: string
  ts: string
  open: number
  high: number
  low: number
  close: number
  samples: number
  mean: number | null
  stdev: number | null
}

const orDash = (value: number | null, like: number) => (value === null ? '–' : price(value, like))

function card(symbol: string, klines: Kline[]): HTMLElement {
  const newestFirst = klines.toReversed().slice(0, 6)
  return el(
    'article',
    { class: 'card', 'data-symbol': symbol },
    el('div', { class: 'head' }, el('h2', {}, symbol), el('span', { class: 'figure small' }, price(newestFirst[0].close))),
    candles(klines.map((kline) => ({ ...kline, label: time(kline.ts) })), price, Math.ceil(klines.length / 12)),
    table(
      ['Window', 'Open', 'High', 'Low', 'Close', 'Mean', 'Stdev', 'N'],
      newestFirst.map((k) => [time(k.ts), price(k.open), price(k.high), price(k.low), price(k.close), orDash(k.mean, k.close), orDash(k.stdev, k.close), String(k.samples)]),
    ),
  )
}

runView(async () => {
  const { klines } = await getJson<{ klines: Kline[] }>('/api/klines')
  const symbols = [...groupBy(klines, (kline) => kline.symbol)]
  return symbols.length > 0 ? [el('div', { class: 'cards charts' }, ...symbols.map(([symbol, rows]) => card(symbol, rows)))] : []
})
