import { readFile } from 'node:fs/promises'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'

export type Asset = { type: string; text: string }

const VIEWS = [
  { path: '/', view: 'overview', title: 'Overview', lede: 'Is it running, is it fresh, and what do prices do.' },
  { path: '/sampling', view: 'sampling', title: 'Sampling', lede: 'One mid a symbol every 5 seconds, the last 20 minutes.' },
  { path: '/matrices', view: 'matrices', title: 'Matrices', lede: 'Every asset in terms of every other, latest values.' },
  { path: '/cycles', view: 'cycles', title: 'Cycles', lede: 'Eight samples make a cycle of 40 seconds; the last 30 minutes.' },
  { path: '/klines', view: 'klines', title: 'Klines', lede: 'One candle a window of 30 minutes, with the window’s statistics.' },
]

const LOGO = `<svg viewBox="0 0 32 32" aria-hidden="true"><g transform="rotate(-45 16 16)">
  <path d="M9 9h7v14H9A7 7 0 0 1 9 9Z" fill="#e4572e"/><path d="M16 9h7a7 7 0 0 1 0 14h-7Z" fill="#2a9d8f"/></g></svg>`

export function renderPage(path: string, version: string): string | null {
  const page = VIEWS.find((view) => view.path === path)
  if (!page) return null
  const links = VIEWS.map(({ path, title }) => `<a href="${path}"${path === page.path ? ' aria-current="page"' : ''}>${title}</a>`)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>CryptoPill · ${page.title}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/style.css">
<script type="module" src="/client/${page.view}.mts"></script>
</head>
<body>
<header>
<a class="brand" href="/">${LOGO}<span>CryptoPill</span></a>
<nav>${links.join('\n')}</nav>
<span class="version">${version}</span>
</header>
<main data-view="${page.view}" data-state="loading">
<h1>${page.title}</h1>
<p class="lede">${page.lede}</p>
<div id="content" aria-live="polite"><p class="hint">Loading …</p></div>
<noscript><p class="hint">This view is drawn by a script.</p></noscript>
</main>
</body>
</html>
`
}

const CLIENT_SCRIPTS = new Set([...VIEWS.map(({ view }) => view), 'draw', 'view'].map((name) => `/client/${name}.mts`))

export async function readAsset(path: string): Promise<Asset | null> {
  if (path === '/icon.svg') return { type: 'image/svg+xml', text: LOGO.replace('<svg', '<svg xmlns="http://www.w3.org/2000/svg"') }
  if (path === '/style.css') return { type: 'text/css; charset=utf-8', text: await readFile(join(import.meta.dirname, 'style.css'), 'utf8') }
  if (!CLIENT_SCRIPTS.has(path)) return null
  const source = await readFile(join(import.meta.dirname, path), 'utf8')
  return { type: 'text/javascript; charset=utf-8', text: stripQuietly(source) }
}

/** Node calls the function experimental on every start; nobody who runs the app can act on that. */
function stripQuietly(source: string): string {
  const emitWarning = process.emitWarning
  process.emitWarning = () => {}
  try {
    return stripTypeScriptTypes(source)
  } finally {
    process.emitWarning = emitWarning
  }
}
