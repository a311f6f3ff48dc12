import { binOnGrid } from './bins.mts'

export type WindowStats = { samples: number; mean: number; stdev: number; low: number; high: number }

export function windowStats(mids: number[]): WindowStats {
  const samples = mids.length
  const mean = mids.reduce((sum, mid) => sum + mid, 0) / samples
  const variance = mids.reduce((sum, mid) => sum + (mid - mean) ** 2, 0) / samples
  return { samples, mean, stdev: Math.sqrt(variance), low: Math.min(...mids), high: Math.max(...mids) }
}

/** Where the window spent its time: the share of its samples in each primary bin. */
export function windowVector(mids: number[]): number[] {
  return binOnGrid(mids).primary.map((count) => count / mids.length)
}
