import { el, sparkline } from './draw.mts'
import { direction, getJson, percent, price, runView, type Universe } from './view.mts'

type Bucket = { ts: string; mid: number | null; quality: string | null }
type Sampling = { symbol: string; age_s: number | null; buckets: Bucket[] }

function card({ symbol, age_s, buckets }: Sampling): HTMLElement {
  const mids = buckets.flatMap(({ mid }) => (mid === null ? [] : [mid]))
  if (mids.length === 0) return el('article', { class: 'card' }, el('h2', {}, symbol), el('p', { class: 'hint' }, 'No samples yet.'))
  const change = mids[mids.length - 1] / mids[0] - 1
  const count = (quality: string) => buckets.filter((bucket) => bucket.quality === quality).length
  const facts: [string, string][] = [
    ['Low', price(Math.min(...mids))],
    ['High', price(Math.max(...mids))],
    ['Empty', String(buckets.length - mids.length)],
    ['Thin', String(count('thin'))],
    ['Bad', String(count('bad'))],
    ['Age', `${age_s} s`],
  ]
  return el(
    'article',
    { class: 'card', 'data-symbol': symbol },
    el('div', { class: 'head' }, el('h2', {}, symbol), el('span', { class: `change ${direction(change)}` }, percent(change))),
    el('p', { class: 'figure' }, price(mids[mids.length - 1])),
    sparkline(buckets.map(({ mid, quality }) => ({ value: mid, bad: quality === 'bad' }))),
    el('dl', {}, ...facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)))),
  )
}

runView(async () => {
  const { coins } = await getJson<Universe>('/api/universe')
  const enabled = coins.filter((coin) => coin.enabled)
  const series = await Promise.all(enabled.map(({ symbol }) => getJson<Sampling>(`/api/sampling?symbol=${symbol}&limit=240`)))
  if (series.every(({ buckets }) => buckets.length === 0)) return []
  return [el('div', { class: 'cards wide' }, ...series.map(card))]
})
