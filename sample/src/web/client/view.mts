import { el } from './draw.mts'

export type Universe = { coins: { symbol: string; base: string; quote: string; enabled: boolean }[] }

export async function getJson<T>(path: string): Promise<T> {
  const response = await fetch(path)
  const body = await response.json().catch(() => null)
  if (!response.ok) throw new Error(body?.error ?? `${path} answers ${response.status}`)
  return body
}

/** Draws now and every 5 s; data-state tells a test, and a style, how the last attempt went. */
export function runView(draw: () => Promise<Node[]>): void {
  const main = document.querySelector<HTMLElement>('main[data-view]')!
  const content = document.querySelector<HTMLElement>('#content')!

  async function refresh(): Promise<void> {
    try {
      const nodes = await draw()
      content.replaceChildren(...(nodes.length > 0 ? nodes : [el('p', { class: 'hint empty' }, 'No rows yet.')]))
      main.dataset.state = nodes.length > 0 ? 'ready' : 'empty'
    } catch (error) {
      const sentence = error instanceof Error ? error.message : String(error)
      content.replaceChildren(el('div', { class: 'error-box', role: 'alert' }, el('strong', {}, 'This view cannot be drawn.'), el('p', {}, sentence)))
      main.dataset.state = 'error'
    }
    setTimeout(refresh, 5_000)
  }
  void refresh()
}

export function groupBy<T>(rows: T[], key: (row: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const row of rows) groups.set(key(row), [...(groups.get(key(row)) ?? []), row])
  return groups
}

/** Small prices need more digits; a spread is written like the price it belongs to. */
export const price = (value: number, like = value) => {
  const digits = Math.abs(like) < 10 ? 5 : 2
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
export const percent = (ratio: number, digits = 2) => `${ratio > 0 ? '+' : ratio < 0 ? '−' : ''}${Math.abs(ratio * 100).toFixed(digits)} %`
export const time = (iso: string | number, seconds = false) =>
  new Date(iso).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', second: seconds ? '2-digit' : undefined })
export const direction = (ratio: number) => (ratio > 0 ? 'up' : ratio < 0 ? 'down' : '')
