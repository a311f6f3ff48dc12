export const BINS = 16

/** A 16 × 16 grid over the range of the mids: 16 primary bins, each cut into 16 fine ones. */
export type Grid = { low: number; high: number; primary: number[]; fine: number[][] }

export function binOnGrid(mids: number[]): Grid {
  const low = Math.min(...mids)
  const high = Math.max(...mids)
  const fine = Array.from({ length: BINS }, () => new Array<number>(BINS).fill(0))
  for (const mid of mids) {
    const share = high > low ? (mid - low) / (high - low) : 0
    const cell = Math.min(Math.floor(share * BINS * BINS), BINS * BINS - 1)
    fine[Math.floor(cell / BINS)][cell % BINS] += 1
  }
  const primary = fine.map((cells) => cells.reduce((sum, count) => sum + count, 0))
  return { low, high, primary, fine }
}

/** Primary bins that hold at least their even share, and the up to 16 fullest fine bins inside them. */
export function selectBins(grid: Grid): { primary: number[]; fine: [primary: number, fine: number][] } {
  const total = grid.primary.reduce((sum, count) => sum + count, 0)
  const primary = grid.primary.flatMap((count, i) => (count > 0 && count >= total / BINS ? [i] : []))
  const fine = primary
    .flatMap((p) => grid.fine[p].map((count, f) => ({ p, f, count })))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count || a.p - b.p || a.f - b.f)
    .slice(0, BINS)
    .map(({ p, f }): [number, number] => [p, f])
  return { primary, fine }
}
