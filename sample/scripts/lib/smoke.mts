import { connect, describe, missingTables, requireEnv, Unusable, type Sql } from '../../src/db/connect.mts'

export type Row = Record<string, string | number>
export type Finding = { rows: Row[]; problems: string[]; summary: string }

/** Runs one check: its table and a PASS line, or a sentence a problem on stderr and exit code 1. */
export async function smoke(name: string, check: () => Promise<Finding>): Promise<void> {
  try {
    const { rows, problems, summary } = await check()
    printTable(rows)
    if (problems.length === 0) {
      console.log(`PASS ${name}: ${summary}`)
      return
    }
    problems.forEach((problem) => console.error(problem))
    console.error(`FAIL ${name}: ${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`)
  } catch (error) {
    console.error(`FAIL ${name}: ${describe(error)}`)
  }
  process.exitCode = 1
}

/** One read-only snapshot for the whole check: a feed that writes meanwhile cannot make two of its reads disagree. */
export async function onSnapshot<T>(tables: string[], check: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = connect(requireEnv('DATABASE_URL'), { max: 1, connection: { application_name: 'smoke', statement_timeout: 30_000 } })
  try {
    return (await sql.begin('isolation level repeatable read read only', async (tx) => {
      const missing = await missingTables(tx, tables)
      if (missing.length > 0) throw new Unusable(`these relations do not exist: ${missing.join(', ')}`)
      return check(tx as unknown as Sql)
    })) as T
  } finally {
    await sql.end({ timeout: 2 })
  }
}

/** The symbols asked for in SYMBOLS or SYMBOL, else every enabled one. Never none: nothing to check is a failure. */
export function chooseSymbols(enabled: string[]): string[] {
  if (enabled.length === 0) throw new Unusable('no symbol is enabled in settings.coin_universe')
  const wanted = (process.env.SYMBOLS ?? process.env.SYMBOL ?? '').split(/[\s,]+/).filter(Boolean)
  const unknown = wanted.filter((symbol) => !enabled.includes(symbol))
  if (unknown.length > 0) throw new Unusable(`not enabled in settings.coin_universe: ${unknown.join(', ')}`)
  return wanted.length > 0 ? wanted : enabled
}

export async function symbolsToCheck(sql: Sql): Promise<string[]> {
  const rows = await sql<{ symbol: string }[]>`
    select symbol from settings.coin_universe where enabled order by sort_order, symbol`
  return chooseSymbols(rows.map((row) => row.symbol))
}

export function positiveEnv(name: string, fallback: number): number {
  const text = process.env[name]?.trim()
  const value = text ? Number(text) : fallback
  if (!(value > 0)) throw new Unusable(`${name} must be a positive number, not "${text}"`)
  return value
}

export const maxAgeSeconds = () => positiveEnv('MAX_AGE_S', 60)

function printTable(rows: Row[]): void {
  if (rows.length === 0) return
  const heads = Object.keys(rows[0])
  const width = heads.map((head) => Math.max(head.length, ...rows.map((row) => String(row[head]).length)))
  const line = (cells: (string | number)[], like: Row) =>
    cells.map((cell, i) => (typeof like[heads[i]] === 'number' ? String(cell).padStart(width[i]) : String(cell).padEnd(width[i]))).join('  ').trimEnd()
  console.log(line(heads, rows[0]))
  rows.forEach((row) => console.log(line(heads.map((head) => row[head]), row)))
}
