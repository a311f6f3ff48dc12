import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, databaseUrlOrExit } from '../db/connect.mts'
import { answerApi, type App } from './api.mts'
import { readAsset, renderPage } from './pages.mts'

const HOST = '127.0.0.1'
const port = Number(process.env.PORT || 3000)
const manifest = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))

const app: App = {
  name: process.env.APP_NAME || manifest.name,
  version: manifest.version,
  startedAt: new Date(),
  sql: connect(databaseUrlOrExit(), {
    max: 4,
    idle_timeout: 20,
    connect_timeout: 3,
    connection: { application_name: `${process.env.APP_NAME || manifest.name} web`, statement_timeout: 10_000 },
  }),
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'self'",
    'x-content-type-options': 'nosniff',
  })
  response.end(body)
}

const sendJson = (response: ServerResponse, status: number, body: object) =>
  send(response, status, 'application/json; charset=utf-8', JSON.stringify(body))

async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return sendJson(response, 405, { ok: false, error: 'only GET is served' })
  }
  if (!URL.canParse(request.url ?? '', `http://${HOST}`)) return sendJson(response, 400, { ok: false, error: 'no such address' })
  const url = new URL(request.url ?? '', `http://${HOST}`)

  const answer = await answerApi(app, url)
  if (answer) return sendJson(response, answer.status, answer.body)
  const page = renderPage(url.pathname, app.version)
  if (page) return send(response, 200, 'text/html; charset=utf-8', page)
  const asset = await readAsset(url.pathname)
  if (asset) return send(response, 200, asset.type, asset.text)
  sendJson(response, 404, { ok: false, error: `there is nothing at ${url.pathname}` })
}

const server = createServer((request, response) => {
  respond(request, response).catch((error) => {
    console.error(`${request.method} ${request.url} failed:`, error)
    if (!response.headersSent) sendJson(response, 500, { ok: false, error: 'the server failed on this request' })
  })
})

server.on('error', (error) => {
  console.error(`cannot listen on ${HOST}:${port}: ${error.message}`)
  process.exit(1)
})
server.listen(port, HOST, () => console.log(`${app.name} ${app.version} listens on http://${HOST}:${port}`))

let stopping = false
function stop(): void {
  if (stopping) return
  stopping = true
  server.close(() => process.exit(0))
  server.closeIdleConnections()
  void app.sql.end({ timeout: 0.5 })
  // A client that keeps its connection or a query that hangs must not hold the process.
  setTimeout(() => server.closeAllConnections(), 600).unref()
  setTimeout(() => process.exit(0), 900).unref()
}
process.on('SIGINT', stop)
process.on('SIGTERM', stop)
