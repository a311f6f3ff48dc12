type Attributes = Record<string, string | number>
type Child = Node | string

export function el(tag: string, attributes: Attributes = {}, ...children: Child[]): HTMLElement {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value))
  node.append(...children)
  return node
}

export function svg(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value))
  node.append(...children)
  return node
}

export function table(heads: string[], rows: Child[][]): HTMLElement {
  return el(
    'div',
    { class: 'scroll' },
    el(
      'table',
      {},
      el('thead', {}, el('tr', {}, ...heads.map((head) => el('th', { scope: 'col' }, head)))),
      el('tbody', {}, ...rows.map((cells) => el('tr', {}, ...cells.map((cell) => el('td', {}, cell))))),
    ),
  )
}

function scale(low: number, high: number, from: number, to: number): (value: number) => number {
  return (value) => (high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2)
}

export type Point = { value: number | null; bad?: boolean }

/** A line with its area; empty buckets break the line, bad ones are marked. */
export function sparkline(points: Point[], width = 320, height = 72): SVGElement {
  const values = points.flatMap(({ value }) => (value === null ? [] : [value]))
  const x = scale(0, points.length - 1, 4, width - 5)
  const y = scale(Math.min(...values), Math.max(...values), height - 6, 6)
  let line = ''
  points.forEach(({ value }, i) => {
    if (value === null) return
    const pen = i > 0 && points[i - 1].value !== null ? 'L' : 'M'
    line += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`
  })
  const whole = values.length === points.length
  const last = points.at(-1)?.value ?? null
  return svg(
    'svg',
    { class: 'spark', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'Course of the mids' },
    ...(whole && line ? [svg('path', { class: 'area', d: `${line}L${x(points.length - 1).toFixed(1)} ${height}L${x(0).toFixed(1)} ${height}Z` })] : []),
    svg('path', { class: 'line', d: line }),
    ...points.flatMap(({ value, bad }, i) => (bad && value !== null ? [svg('circle', { class: 'bad', cx: x(i), cy: y(value), r: 2.5 })] : [])),
    ...(last === null ? [] : [svg('circle', { class: 'tip', cx: x(points.length - 1), cy: y(last), r: 2.5 })]),
  )
}

export type Candle = { open: number; high: number; low: number; close: number; label: string }

/** Candles on a price grid; few candles stand at the right edge, where time is now. */
export function candles(rows: Candle[], price: (value: number) => string, labelEvery: number, width = 640, height = 220): SVGElement {
  const [right, bottom, top] = [76, 24, 10]
  const low = Math.min(...rows.map((row) => row.low))
  const high = Math.max(...rows.map((row) => row.high))
  const y = scale(low, high, height - bottom - 8, top)
  const slot = Math.min(52, (width - right) / rows.length)
  const start = width - right - slot * rows.length
  const body = Math.max(2, slot * 0.6)

  const grid = [0, 1, 2, 3].flatMap((i) => {
    const value = low + ((high - low) * i) / 3
    return [
      svg('line', { class: 'grid', x1: 0, x2: width - right, y1: y(value), y2: y(value) }),
      svg('text', { class: 'axis', x: width - right + 8, y: y(value) + 4 }, price(value)),
    ]
  })
  const marks = rows.flatMap((row, i) => {
    const centre = start + slot * (i + 0.5)
    const [top, foot] = [y(Math.max(row.open, row.close)), y(Math.min(row.open, row.close))]
    const label = (rows.length - 1 - i) % labelEvery === 0
    return [
      svg(
        'g',
        { class: row.close >= row.open ? 'candle up' : 'candle down' },
        svg('line', { x1: centre, x2: centre, y1: y(row.high), y2: y(row.low) }),
        svg('rect', { x: centre - body / 2, y: top, width: body, height: Math.max(1, foot - top), rx: 1 }),
        svg('title', {}, `${row.label}  open ${price(row.open)}  high ${price(row.high)}  low ${price(row.low)}  close ${price(row.close)}`),
      ),
      ...(label ? [svg('text', { class: 'axis middle', x: centre, y: height - 4 }, row.label)] : []),
    ]
  })
  return svg('svg', { class: 'candles', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': 'Candles' }, ...grid, ...marks)
}
