import { candles, el } from './draw.mts'
import { direction, getJson, groupBy, percent, price, runView, time } from './view.mts'

type Cycle = { symbol: string; ts: string; open: number; high: number; low: number; close: number }

function card(symbol: string, cycles: Cycle[]): HTMLElement {
  const last = cycles[cycles.length - 1]
  const change = last.close / last.open - 1
  return el(
    'article',
    { class: 'card', 'data-symbol': symbol },
    el('div', { class: 'head' }, el('h2', {}, symbol), el('span', { class: `change ${direction(change)}` }, percent(change, 3))),
    candles(cycles.map((cycle) => ({ ...cycle, label: time(cycle.ts) })), price, 9),
    el('p', { class: 'note' }, `${cycles.length} cycles, the last began at ${time(last.ts, true)} and closed at ${price(last.close)}`),
  )
}

runView(async () => {
  const { cycles } = await getJson<{ cycles: Cycle[] }>('/api/cycles?limit=45')
  const symbols = [...groupBy(cycles, (cycle) => cycle.symbol)]
  return symbols.length > 0 ? [el('div', { class: 'cards charts' }, ...symbols.map(([symbol, rows]) => card(symbol, rows)))] : []
})
