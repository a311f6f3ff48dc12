import { hostname } from 'node:os'
import { connect, describe, missingTables, requireEnv, Unusable } from '../src/db/connect.mts'

async function openAllSessions(): Promise<string> {
  const appName = requireEnv('APP_NAME')
  const appVersion = requireEnv('APP_VERSION')
  const sql = connect(requireEnv('DATABASE_URL'), { max: 1 })
  try {
    const missing = await missingTables(sql, ['ops.session_log', 'ops.session_flags'])
    if (missing.length > 0) throw new Unusable(`${missing.join(' and ')} do not exist; apply the DDL pack first`)

    const [{ opened }] = await sql<{ opened: number }[]>`
      select ops.open_all_sessions(${appName}, ${appVersion}, ${hostname()}, ${process.pid}) as opened`
    if (opened === 0) throw new Unusable('ops.session_flags names no schema, so nothing was opened')
    return `opened ${opened} schemas for ${appName} ${appVersion}`
  } finally {
    await sql.end({ timeout: 2 })
  }
}

try {
  console.log(await openAllSessions())
} catch (error) {
  console.error(`Sessions were not opened: ${describe(error)}.`)
  process.exitCode = 1
}
