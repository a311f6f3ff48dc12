import { el } from './draw.mts'
import { direction, getJson, groupBy, percent, price, runView } from './view.mts'

type Value = { type: string; base: string; quote: string; value: number; age_s: number }

const TITLES: Record<string, string> = {
  benchmark: 'Benchmark: one of the row in units of the column',
  delta: 'Delta: change within the last 40 s',
  pct24h: 'Change within 24 hours',
}

function heatMap(type: string, values: Value[]): HTMLElement {
  const bases = [...new Set(values.map((value) => value.base))]
  const quotes = [...new Set([...bases, ...values.map((value) => value.quote)])]
  const isRate = type === 'benchmark'
  // Rates span six orders of magnitude around 1, so their logarithm is what compares.
  const weight = (value: number) => (isRate ? Math.log10(value) : value)
  const most = Math.max(...values.map(({ value }) => Math.abs(weight(value)))) || 1

  const cell = (base: string, quote: string) => {
    const found = values.find((value) => value.base === base && value.quote === quote)
    if (!found) return el('td', { class: 'none' }, '·')
    const cell = el('td', { class: `heat ${isRate ? 'rate' : direction(found.value)}`, title: `${base}/${quote}, ${found.age_s} s old` })
    cell.style.setProperty('--heat', `${Math.round((Math.abs(weight(found.value)) / most) * 70)}%`)
    cell.append(isRate ? (found.value < 0.01 ? found.value.toExponential(2) : price(found.value)) : percent(found.value, type === 'delta' ? 3 : 2))
    return cell
  }
  const age = Math.max(...values.map((value) => value.age_s))
  return el(
    'article',
    { class: 'card', 'data-matrix': type },
    el('div', { class: 'head' }, el('h2', {}, TITLES[type] ?? type), el('span', { class: 'note' }, `${age.toFixed(1)} s old`)),
    el(
      'div',
      { class: 'scroll' },
      el(
        'table',
        { class: 'matrix' },
        el('thead', {}, el('tr', {}, el('th', {}), ...quotes.map((quote) => el('th', { scope: 'col' }, quote)))),
        el('tbody', {}, ...bases.map((base) => el('tr', {}, el('th', { scope: 'row' }, base), ...quotes.map((quote) => cell(base, quote))))),
      ),
    ),
  )
}

runView(async () => {
  const { values } = await getJson<{ values: Value[] }>('/api/matrices')
  const types = groupBy(values, (value) => value.type)
  return [...types].map(([type, ofType]) => heatMap(type, ofType))
})
