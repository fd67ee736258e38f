// Elements, and how values look to people.  All texts become text nodes: nothing
// that comes from the API is ever read as markup.

// h('p', { class: 'note', onclick: f, hidden: true }, 'text', child, [more])
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'value') node.value = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  append(node, children);
  return node;
}

export function append(node, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

// For screen readers.
export function say(text) {
  document.getElementById('say').textContent = text;
}

export const STATES = {
  pending: ['○', 'pending'],
  in_progress: ['◐', 'in progress'],
  waiting_for_retry: ['↻', 'waiting for retry'],
  paused: ['‖', 'paused'],
  complete: ['✓', 'complete'],
  error: ['✕', 'error'],
  cancelled: ['⊘', 'cancelled'],
  resolved_manually: ['✎', 'resolved by hand'],
  skipped: ['»', 'skipped'],
};

export function stateText(state) {
  return STATES[state]?.[1] ?? String(state ?? 'unknown');
}

export function badge(state) {
  return h('span', { class: `state ${STATES[state] ? state : 'pending'}` },
    h('span', { 'aria-hidden': 'true', class: 'glyph' }, STATES[state]?.[0] ?? '·'), stateText(state));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { day: '2-digit', month: 'short', year: 'numeric' });

export function when(value) {
  if (!value) return '–';
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return String(value);
  const isToday = time.toDateString() === new Date().toDateString();
  return h('time', { datetime: time.toISOString(), title: time.toISOString() },
    isToday ? clock.format(time) : `${date.format(time)}, ${clock.format(time)}`);
}

export function duration(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return '–';
  if (ms < 0) ms = 0;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.floor(ms / 1000) % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function since(start, end) {
  return start ? new Date(end ?? Date.now()) - new Date(start) : null;
}

export function number(value) {
  return typeof value === 'number' ? value.toLocaleString() : String(value ?? '–');
}

export function words(name) {
  const text = String(name).replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

// A definition list of [term, value] pairs; what is empty is left out.
export function facts(pairs) {
  return h('dl', { class: 'facts' }, pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0))
    .map(([term, value]) => h('div', null, h('dt', null, term), h('dd', null, value))));
}

export function json(value, label) {
  return h('pre', { class: 'code', tabindex: '0', role: 'region', 'aria-label': label },
    typeof value === 'string' ? value : JSON.stringify(value, null, 2));
}

// Columns: { title, cell(row), class }.  On a phone each row is a card whose
// cells bring their titles along.
export function table({ caption, columns, empty, hasVisibleCaption }) {
  const body = h('tbody');
  const node = h('div', { class: 'table-wrap', role: 'region', 'aria-label': `Table: ${caption}`, tabindex: '0' },
    h('table', { role: 'table' },
      h('caption', { class: hasVisibleCaption ? null : 'hidden' }, caption),
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, columns.map((c) =>
        h('th', { scope: 'col', role: 'columnheader', class: c.class }, c.title)))),
      body));
  body.setAttribute('role', 'rowgroup');
  const makeRow = (row) => h('tr', { role: 'row' }, columns.map((c) =>
    h('td', { role: 'cell', class: c.class, 'data-title': c.title }, h('span', { class: 'value' }, c.cell(row)))));
  return {
    node,
    body,
    show(rows, key) {
      if (rows.length === 0) {
        body.replaceChildren(h('tr', { role: 'row', class: 'empty' }, h('td', { role: 'cell', colspan: columns.length }, empty ?? 'Nothing yet.')));
        return;
      }
      reconcile(body, rows, key, makeRow);
    },
  };
}

// Puts the rows in place; those that stay as they were stay the same elements,
// so that neither focus nor selection is lost.
export function reconcile(parent, rows, key, makeRow) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const focusKey = focused?.closest('[data-key]')?.dataset.key;
  const focusName = focused?.dataset.focus;
  const isFirst = old.size === 0;
  const nodes = rows.map((row) => {
    const id = String(key(row));
    const print = JSON.stringify(row);
    const before = old.get(id);
    if (before?.dataset.print === hash(print)) return before;
    const node = makeRow(row);
    node.dataset.key = id;
    node.dataset.print = hash(print);
    if (!isFirst) node.classList.add(before ? 'changed' : 'new');
    return node;
  });
  nodes.forEach((node, i) => {
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
  });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
  if (focused && !focused.isConnected && focusKey) {
    const row = nodes.find((node) => node.dataset.key === focusKey);
    (row?.querySelector(`[data-focus="${CSS.escape(focusName ?? '')}"]`) ?? row?.querySelector('a, button'))?.focus({ preventScroll: true });
  }
}

function hash(text) {
  let value = 5381;
  for (let i = 0; i < text.length; i++) value = (value * 33 + text.charCodeAt(i)) | 0;
  return `${value}.${text.length}`;
}

const RETRY_MS = 5000;

// Runs at most every so many milliseconds, and never twice at once.  later() is
// for what has failed and may not the next time; a call goes before it.
export function throttled(run, ms) {
  let timer = null;
  let isLate = false;
  let running = false;
  let again = false;
  let isStopped = false;
  const wait = (time, late) => {
    if (isStopped) return;
    clearTimeout(timer);
    isLate = late;
    timer = setTimeout(go, time);
  };
  const go = async () => {
    timer = null;
    running = true;
    const start = Date.now();
    try { await run(); } finally {
      running = false;
      // What takes long is done less often.
      if (again) { again = false; wait(Math.max(ms, 2 * (Date.now() - start)), false); }
    }
  };
  const call = () => {
    if (running) again = true;
    else if (timer === null || isLate) wait(ms, false);
  };
  call.later = () => { if (timer === null) wait(RETRY_MS, true); };
  call.stop = () => { isStopped = true; clearTimeout(timer); };
  return call;
}

// A problem as the API tells it.
export function problem(error) {
  const p = error.problem ?? {};
  const errors = Object.entries(p.errors ?? {});
  return h('div', { class: 'notice bad', role: 'alert' },
    h('strong', null, error.message),
    p.hint && h('p', { class: 'note' }, p.hint),
    errors.length > 0 && h('ul', null, errors.map(([name, text]) =>
      h('li', null, typeof text === 'object' ? [text.path, text.message].filter(Boolean).join(': ') : `${name}: ${text}`))));
}

// Asks; resolves to the values of its fields, or null.
export function ask({ title, text, action, danger, fields = [] }) {
  return new Promise((resolve) => {
    const inputs = fields.map((f) => [f, f.isLong ? h('textarea', { id: `ask-${f.name}`, rows: '4', required: f.required, value: f.value ?? '' })
      : h('input', { id: `ask-${f.name}`, type: f.type ?? 'text', required: f.required, value: f.value ?? '', min: f.min, max: f.max, autocomplete: 'off' })]);
    let result = null;
    const form = h('form', { method: 'dialog', onsubmit: () => {
      result = Object.fromEntries(inputs.map(([f, input]) => [f.name, input.value]));
    } },
      h('h2', { id: 'ask-title' }, title),
      text && h('p', null, text),
      inputs.map(([f, input]) => h('div', { class: 'field' }, h('label', { for: input.id }, f.label), input)),
      h('div', { class: 'buttons' },
        h('button', { type: 'button', onclick: () => dialog.close() }, 'Back'),
        h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, action)));
    const dialog = h('dialog', { 'aria-labelledby': 'ask-title', onclose: () => {
      dialog.remove();
      resolve(result);
    } }, form);
    document.body.append(dialog);
    dialog.showModal();
  });
}
