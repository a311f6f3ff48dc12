import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, databaseUrlOrExit, describe, missingTables } from '../db/connect.mts'
import { alignDown, SAMPLE_MS } from '../market/market.mts'
import { advance, TABLES } from './advance.mts'

const FEED = 'cryptopi-market'
// Any number will do as long as every feed takes the same one.
const LOCK_KEY = 5_040_030

const stop = new AbortController()
process.on('SIGINT', () => stop.abort())
process.on('SIGTERM', () => stop.abort())

const startedAt = new Date()
let hasLock = false

const sql = connect(databaseUrlOrExit(), {
  // The lock belongs to a session: one connection, kept for good, and a lost one means a lost lock.
  max: 1,
  max_lifetime: null,
  onclose: () => (hasLock = false),
  connection: { application_name: `${process.env.APP_NAME ?? 'cryptopi-dynamics'} feed` },
})

let lastState = ''
function say(state: string): void {
  if (state !== lastState) console.log(`${new Date().toISOString()} ${state}`)
  lastState = state
}

/** One step; says how long to wait for the next. */
async function step(): Promise<number> {
  if (!hasLock) {
    const [{ locked }] = await sql<{ locked: boolean }[]>`select pg_try_advisory_lock(${LOCK_KEY}::bigint) as locked`
    hasLock = locked
    if (!hasLock) {
      say('waiting: another feed runs on this database')
      return 1_000
    }
  }
  const missing = await missingTables(sql, TABLES)
  if (missing.length > 0) {
    say(`waiting for the DDL pack: ${missing[0]} does not exist`)
    return 1_000
  }
  const began = performance.now()
  const written = await advance(sql, { name: FEED, host: hostname(), pid: process.pid, startedAt }, Date.now())
  if (written.ticks > 1) {
    say(`caught up: ${written.samples} samples of ${written.symbols} symbols in ${Math.round(performance.now() - began)} ms`)
  } else {
    say(`feeding ${written.symbols} symbols`)
  }
  const now = Date.now()
  return alignDown(now, SAMPLE_MS) + SAMPLE_MS - now + 20
}

say(`feed ${process.pid} starts`)
while (!stop.signal.aborted) {
  const wait = await step().catch((error: unknown) => {
    if (!stop.signal.aborted) say(`waiting: ${describe(error)}`)
    return 1_000
  })
  await sleep(wait, undefined, { signal: stop.signal }).catch(() => {})
}
await sql.end({ timeout: 2 })
console.log(`${new Date().toISOString()} feed ${process.pid} stopped`)
