import postgres from 'postgres'

export type Sql = postgres.Sql
export type Query = postgres.ISql

export function connect(databaseUrl: string, options: postgres.Options<{}> = {}): Sql {
  return postgres(databaseUrl, {
    connect_timeout: 5,
    // The default backs off for up to 20 s, which would outlast the outage it waits for.
    backoff: () => 0.2,
    onnotice: () => {},
    ...options,
  })
}

/** The tables that do not exist (yet). Asking is cheaper than an ERROR in the server's log. */
export async function missingTables(sql: Query, tables: readonly string[]): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select name from unnest(${[...tables]}::text[]) as name where to_regclass(name) is null`
  return rows.map((row) => row.name)
}

export class Unusable extends Error {}

export function requireEnv(name: string): string {
  const value = process.env[name]?.trim()
  if (!value) throw new Unusable(`${name} is not set`)
  return value
}

/** For the long-running processes, which have nothing to report to but their log. */
export function databaseUrlOrExit(): string {
  try {
    return requireEnv('DATABASE_URL')
  } catch (error) {
    console.error(describe(error))
    process.exit(1)
  }
}

const CONNECTION_CODES = new Map([
  ['ECONNREFUSED', 'nothing listens at that address'],
  ['ENOENT', 'there is no such socket'],
  ['ENOTFOUND', 'the host name is unknown'],
  ['EAI_AGAIN', 'the host name cannot be resolved'],
  ['ETIMEDOUT', 'no answer'],
  ['ECONNRESET', 'the connection was cut'],
  ['CONNECT_TIMEOUT', 'no answer in time'],
  ['CONNECTION_CLOSED', 'the connection was closed'],
  ['CONNECTION_ENDED', 'the connection was closed'],
  ['57P01', 'the server is shutting down'],
  ['57P03', 'the server is starting or stopping'],
])

/** One sentence for a person; node's AggregateError (both ::1 and 127.0.0.1 refused) has no message of its own. */
export function describe(error: unknown): string {
  if (error instanceof Unusable) return error.message
  const { code = '', message = String(error) } = error as { code?: string; message?: string }
  const unreachable = CONNECTION_CODES.get(code)
  if (unreachable) return `the database cannot be reached: ${unreachable} (${code})`
  if (/^28/.test(code)) return `the database refuses the login: ${message} (${code})`
  return code ? `${message} (${code})` : message
}
