// The stream of events, as it comes.
import { follow } from './api.js';
import { badge, h, json, plural, say, when } from './dom.js';

const MOST = 200;
const RESULT = {
  completed: 'complete', failed: 'error', retry_requested: 'waiting_for_retry', cancelled: 'cancelled', paused: 'paused',
  resolved_manually: 'resolved_manually', skipped: 'skipped', started: 'in_progress', initialize_requested: 'pending',
};

function row(event) {
  const [kind, ...rest] = event.name.split('.');
  const state = kind === 'task' || kind === 'step' ? RESULT[rest.join('.')] : null;
  return h('li', { 'data-key': event.event_id },
    when(event.occurred_at), ' ', h('code', null, event.name), ' ', state && badge(state), ' ',
    event.task_id && h('a', { href: `#/tasks/${event.task_id}${event.step_id ? `?step=${event.step_id}` : ''}` },
      `${event.payload?.step_name ?? event.payload?.task_name ?? 'task'} #${event.task_id}`),
    h('details', null, h('summary', null, 'Payload'), json(event.payload ?? {}, `Payload of ${event.name}`)));
}

function toHash(values) {
  const text = new URLSearchParams(Object.entries(values).filter(([, v]) => v)).toString();
  return `#/events${text ? `?${text}` : ''}`;
}

export async function open({ query: first, showLive }) {
  let query = first;
  let isPaused = false;
  let held = [];
  let stop = () => {};
  const list = h('ol', { class: 'log stream', 'aria-label': 'Events, the newest first' });
  const note = h('p', { class: 'note', role: 'status' });
  const inputs = {
    events: h('input', { id: 'event-names', placeholder: 'task.*, step.failed', autocomplete: 'off' }),
    namespace: h('input', { id: 'event-namespace', autocomplete: 'off' }),
    task_id: h('input', { id: 'event-task', inputmode: 'numeric', pattern: '[0-9]*', autocomplete: 'off' }),
  };

  function count() {
    note.textContent = isPaused ? `Paused; ${plural(held.length, 'event')} since then.`
      : list.children.length === 0 ? 'Events appear here as they happen.' : '';
  }

  function add(events) {
    list.prepend(...events.map(row).reverse());
    while (list.children.length > MOST) list.lastElementChild.remove();
    count();
  }

  // Many at once are drawn once.
  let waiting = [];
  let frame = null;
  function onEvent(event) {
    if (isPaused) {
      held = [...held, event].slice(-MOST);
      count();
      return;
    }
    waiting.push(event);
    frame ??= setTimeout(() => {
      frame = null;
      add(waiting.slice(-MOST));
      waiting = [];
    }, 100);
  }

  const pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => {
    isPaused = !isPaused;
    pause.setAttribute('aria-pressed', String(isPaused));
    if (!isPaused) {
      add(held);
      held = [];
    }
    say(isPaused ? 'Paused' : 'Goes on');
    count();
  } }, 'Pause');

  function start() {
    stop();
    for (const [name, input] of Object.entries(inputs)) input.value = query.get(name) ?? '';
    stop = follow({ ...Object.fromEntries(query), events: (query.get('events') ?? '').replaceAll(' ', '') }, { onEvent, onGap() {}, onState: showLive });
  }

  start();
  count();
  const values = () => Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
  return {
    title: 'Events',
    node: h('div', null,
      h('div', { class: 'heading' }, h('h1', null, 'Events'), pause, h('button', { type: 'button', onclick: () => { list.replaceChildren(); count(); } }, 'Empty')),
      h('form', { class: 'filters', role: 'search', 'aria-label': 'Events',
        onsubmit: (event) => { event.preventDefault(); location.hash = toHash(values()); } },
      h('div', { class: 'fields' },
        h('div', { class: 'field' }, h('label', { for: 'event-names' }, 'Names'), inputs.events),
        h('div', { class: 'field' }, h('label', { for: 'event-namespace' }, 'Namespace'), inputs.namespace),
        h('div', { class: 'field' }, h('label', { for: 'event-task' }, 'Task'), inputs.task_id),
        h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'primary' }, 'Follow')))),
      note, list),
    update(changed) {
      query = changed;
      list.replaceChildren();
      held = [];
      start();
      count();
    },
    stop() { stop(); clearTimeout(frame); },
  };
}
