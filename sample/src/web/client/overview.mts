import { el, sparkline, table } from './draw.mts'
import { direction, getJson, percent, price, runView, time, type Universe } from './view.mts'

type Health = { app: string; version: string; database: { ms: number }; ingest: { age_s: number | null } }
type Version = { started_at: string }
type Matrices = { values: { type: string; age_s: number }[] }
type Sampling = { symbol: string; age_s: number | null; buckets: { mid: number | null; quality: string | null }[] }

const FRESH_S = 60

function tile(name: string, value: string, note: string, state: 'good' | 'poor' | '' = ''): HTMLElement {
  return el('article', { class: `card tile ${state}` }, el('h2', {}, name), el('p', { class: 'figure' }, value), el('p', { class: 'note' }, note))
}

function freshness(age: number | null): { value: string; state: 'good' | 'poor' } {
  return age === null ? { value: 'no rows', state: 'poor' } : { value: `${age.toFixed(1)} s`, state: age <= FRESH_S ? 'good' : 'poor' }
}

runView(async () => {
  const [health, version, universe, matrices] = await Promise.all([
    getJson<Health>('/api/health'),
    getJson<Version>('/api/version'),
    getJson<Universe>('/api/universe'),
    getJson<Matrices>('/api/matrices'),
  ])
  const enabled = universe.coins.filter((coin) => coin.enabled)
  const series = await Promise.all(enabled.map(({ symbol }) => getJson<Sampling>(`/api/sampling?symbol=${symbol}&limit=240`)))

  const ingest = freshness(health.ingest.age_s)
  const oldest = matrices.values.length > 0 ? Math.max(...matrices.values.map((value) => value.age_s)) : null
  const matrix = freshness(oldest)
  const rows = series.map(({ symbol, age_s, buckets }) => {
    const mids = buckets.flatMap(({ mid }) => (mid === null ? [] : [mid]))
    if (mids.length === 0) return [symbol, '–', '–', '–', 'no samples']
    const last = mids[mids.length - 1]
    const change = last / mids[0] - 1
    return [
      el('strong', {}, symbol),
      price(last),
      el('span', { class: `change ${direction(change)}` }, percent(change)),
      sparkline(buckets.map(({ mid }) => ({ value: mid })), 180, 32),
      `${age_s} s`,
    ]
  })
  return [
    el(
      'div',
      { class: 'cards' },
      tile('Version', health.version, `${health.app}, up since ${time(version.started_at)}`),
      tile('Database', `${health.database.ms} ms`, 'answers', 'good'),
      tile('Sampling', ingest.value, 'age of the laggard among the symbols', ingest.state),
      tile('Matrices', matrix.value, `oldest of ${matrices.values.length} latest values`, matrix.state),
      tile('Universe', String(enabled.length), `of ${universe.coins.length} symbols enabled`),
    ),
    table(['Symbol', 'Mid', '20 min', 'Course', 'Age'], rows),
  ]
})
