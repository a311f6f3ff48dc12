import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import postgres from 'postgres'
import { describe } from '../../db/connect.mts'

const USAGE = 'usage: run-ddls.mts [--dry-run] [--from NAME] [--only NAME]   (NAME: a file name or how it begins)'
const DDL_DIR = join(import.meta.dirname, 'ddl')

type Filter = { from?: string; only?: string }

async function listFiles({ from, only }: Filter): Promise<string[]> {
  const names = (await readdir(DDL_DIR)).filter((name) => name.endsWith('.sql'))
  return names
    .sort((a, b) => a.localeCompare(b))
    .filter((name) => from === undefined || name.startsWith(from) || name.localeCompare(from) >= 0)
    .filter((name) => only === undefined || name.startsWith(only))
}

function lineOf(text: string, position: string | undefined): string {
  if (!position) return 'unknown'
  // PostgreSQL counts characters, a JavaScript string counts UTF-16 units.
  const before = Array.from(text).slice(0, Number(position) - 1)
  return String(before.filter((character) => character === '\n').length + 1)
}

function report(name: string, text: string, error: unknown): string {
  if (!(error instanceof postgres.PostgresError)) return `${name}: ${describe(error)}`
  const lines = [
    `failed ${name}`,
    `  line:     ${lineOf(text, error.position)}`,
    `  message:  ${error.message}`,
    `  SQLSTATE: ${error.code}`,
  ]
  if (error.detail) lines.push(`  detail:   ${error.detail}`)
  if (error.where) lines.push(`  where:    ${error.where.replaceAll('\n', '\n            ')}`)
  return lines.join('\n')
}

async function apply(files: string[]): Promise<void> {
  let current = ''
  // Without a URL postgres.js takes everything from PG*, except for the SSL mode.
  const sql = postgres({
    max: 1,
    connect_timeout: 5,
    ssl: process.env.PGSSLMODE === 'disable' ? false : (process.env.PGSSLMODE as 'require' | undefined),
    onnotice: ({ severity, message }) => console.log(`${severity} ${current}: ${message}`),
  })
  try {
    await sql`select 1`
    for (current of files) {
      const text = (await readFile(join(DDL_DIR, current), 'utf8')).replace(/^\uFEFF/, '')
      const started = performance.now()
      await sql
        .begin((tx) => tx.unsafe(text))
        .catch((error) => {
          throw new Error(report(current, text, error))
        })
      console.log(`applied ${current} (${Math.round(performance.now() - started)} ms)`)
    }
  } finally {
    await sql.end({ timeout: 2 })
  }
}

function readOptions() {
  try {
    const options = { 'dry-run': { type: 'boolean' }, from: { type: 'string' }, only: { type: 'string' } } as const
    return parseArgs({ options }).values
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`)
    process.exit(2)
  }
}

const options = readOptions()
try {
  const files = await listFiles(options)
  if (options['dry-run']) {
    files.forEach((name) => console.log(name))
  } else {
    await apply(files)
    console.log(`${files.length} files applied`)
  }
} catch (error) {
  console.error(describe(error))
  process.exitCode = 1
}
