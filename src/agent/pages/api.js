// The API: requests with the token, errors as problem+json, and the stream of
// events.  It lies where these files were served from, behind whatever proxy.
import { h, problem } from './dom.js';

export const base = new URL('..', import.meta.url);

const TOKEN = 'tasker.token';

export class ApiError extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.problem = body;
  }
}

// Whether the same may succeed a moment later: nobody answers, or not well.
export const isPassing = (error) => error instanceof ApiError && !(error.status >= 400 && error.status < 500);

export function token() {
  return sessionStorage.getItem(TOKEN);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

function headers(more) {
  const value = token();
  return { ...(value ? { Authorization: `Bearer ${value}` } : {}), ...more };
}

export function path(text, query) {
  const url = new URL(text.replace(/^\//, ''), base);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
  }
  return url;
}

// One dialog, however many requests wait for it.
let asking = null;

function askToken(error) {
  asking ??= new Promise((resolve) => {
    const input = h('input', { id: 'token', type: 'password', required: true, autocomplete: 'off', spellcheck: 'false' });
    const dialog = h('dialog', { 'aria-labelledby': 'token-title', oncancel: (event) => event.preventDefault() },
      h('form', { method: 'dialog', onsubmit: () => {
        sessionStorage.setItem(TOKEN, input.value.trim());
      } },
        h('h2', { id: 'token-title' }, 'Sign in'),
        h('p', null, 'This server wants a token. Who may, makes one with ', h('code', null, "SELECT tasker.create_token('role')"), '. It is kept until this tab is closed.'),
        token() && problem(error),
        h('div', { class: 'field' }, h('label', { for: 'token' }, 'Token'), input),
        h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'primary' }, 'Sign in'))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      asking = null;
      document.dispatchEvent(new Event('signed-in'));
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

async function send(method, url, options) {
  let response;
  try {
    response = await fetch(url, {
      method,
      signal: options.signal,
      headers: headers({
        Accept: options.accept ?? 'application/json',
        ...(options.body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...options.headers,
      }),
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, { title: 'The server does not answer.' });
  }
  if (response.ok || options.takes?.includes(response.status)) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(response.status, body);
}

export async function request(method, url, options = {}) {
  for (;;) {
    try {
      return await send(method, url, options);
    } catch (error) {
      if (error.status !== 401) throw error;
      await askToken(error);
    }
  }
}

export async function get(text, query, options) {
  return (await request('GET', path(text, query), options)).json();
}

// A page of a list, and the query of the next one.
export async function getPage(text, query, options) {
  const response = await request('GET', path(text, query), options);
  const link = /<([^>]*)>;\s*rel="?next"?/.exec(response.headers.get('Link') ?? '');
  return { body: await response.json(), next: link ? new URL(link[1], base).searchParams.get('cursor') : null };
}

export async function getText(text, query, accept, options) {
  return (await request('GET', path(text, query), { ...options, accept })).text();
}

export async function change(method, text, body) {
  return (await request(method, path(text), { body })).json();
}

// ---- who may what

let me = null;

export async function whoAmI() {
  me ??= get('me').catch((error) => {
    me = null;
    if (error.status === 404) return { permissions: [], enforced: false };
    throw error;
  });
  return me;
}

export function forgetMe() {
  me = null;
}

export function may(who, permission, namespace) {
  const resource = permission.split(':')[0];
  return !who.enforced || who.permissions.some((p) =>
    (p.namespace === '*' || !namespace || p.namespace === namespace) &&
    (p.permission === '*' || p.permission === permission || p.permission === `${resource}:*`));
}

// ---- events

// Follows the events; calls onEvent for each, onState with live, waiting or
// polling, and onGap where some may have been missed.  Returns what stops it.
export function follow(query, { onEvent, onState, onGap }) {
  let stopped = false;
  let controller = null;
  let lastId = null;
  let failures = 0;
  let timer = null;

  function later(run, ms) {
    timer = setTimeout(run, ms);
  }

  function poll() {
    if (stopped) return;
    onState('polling');
    if (!document.hidden) onGap();
    later(failures % 6 === 0 ? connect : poll, 5000);
    failures++;
  }

  async function read(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value.replaceAll('\r', '')).split('\n\n');
      rest = blocks.pop();
      blocks.forEach(tell);
    }
  }

  function tell(block) {
    let data = '';
    for (const line of block.split('\n')) {
      if (line.startsWith('id:')) lastId = line.slice(3).trim();
      else if (line.startsWith('data:')) data += line.slice(5).trimStart();
    }
    if (data === '' || stopped) return;
    let event;
    try { event = JSON.parse(data); } catch { return; }
    onEvent(event);
  }

  async function connect() {
    if (stopped) return;
    controller = new AbortController();
    try {
      const response = await send('GET', path('events', query), {
        accept: 'text/event-stream',
        headers: lastId ? { 'Last-Event-ID': lastId } : {},
        signal: controller.signal,
      });
      onState('live');
      // Before the first connection nothing says from where on.
      if (failures > 0 || !lastId) onGap();
      failures = 0;
      await read(response);
      throw new ApiError(0, {});
    } catch (error) {
      if (stopped || document.hidden) return;
      if (error.status === 401) {
        await askToken(error);
        connect();
      } else if (error.status >= 400 && error.status < 500 || error.status === 501) {
        failures = 1;
        poll();
      } else {
        onState('waiting');
        failures++;
        later(connect, Math.min(15_000, 500 * 2 ** Math.min(failures, 5)) * (0.75 + Math.random() / 2));
      }
    }
  }

  // Nobody looks: no connection is held.
  function onVisibility() {
    clearTimeout(timer);
    if (document.hidden) controller?.abort();
    else connect();
  }

  document.addEventListener('visibilitychange', onVisibility);
  if (!document.hidden) connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    controller?.abort();
    document.removeEventListener('visibilitychange', onVisibility);
  };
}
