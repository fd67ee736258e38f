// Who works, and what waits.
import { get } from './api.js';
import { duration, h, number, problem, since, table, throttled, when, words } from './dom.js';

const processColumns = [
  { title: 'Process', class: 'main', cell: (p) => words(p.kind) },
  { title: 'Pid', class: 'number', cell: (p) => String(p.pid ?? '–') },
  { title: 'Does', cell: (p) => (p.task_id ? h('a', { href: `#/tasks/${p.task_id}${p.step_id ? `?step=${p.step_id}` : ''}` }, `task #${p.task_id}`) : p.kind !== 'executor' ? '–' : p.idle ? 'waits' : 'works') },
  { title: 'Since', cell: (p) => when(p.since) },
  { title: 'Started', cell: (p) => when(p.started_at) },
];
const workerColumns = [
  { title: 'Worker', class: 'main', cell: (w) => w.worker },
  { title: 'Steps', class: 'number', cell: (w) => number(w.steps) },
  { title: 'Oldest claim', cell: (w) => when(w.oldest_claim_at) },
  { title: 'Next lease ends', cell: (w) => when(w.next_lease_end) },
];
const queueColumns = [
  { title: 'Queue', class: 'main', cell: (q) => [words(q.queue), (q.handler || q.namespace) && h('span', { class: 'note' }, ` ${[q.namespace, q.handler].filter(Boolean).join('/')}`)] },
  { title: 'Waiting', class: 'number', cell: (q) => `${number(q.waiting)}${q.cut ? ' or more' : ''}` },
  { title: 'Due now', class: 'number', cell: (q) => number(q.due_now) },
  { title: 'Oldest due', cell: (q) => when(q.oldest_due) },
  { title: 'Late by', class: 'number', cell: (q) => (q.oldest_due && new Date(q.oldest_due) < Date.now() ? duration(since(q.oldest_due)) : '–') },
];

function section(id, title, list, note) {
  return h('section', { class: 'card', 'aria-labelledby': id }, h('h2', { id }, title), note, list.node);
}

export async function open({ showLive }) {
  const processes = table({ caption: 'Processes of the engine', columns: processColumns, empty: 'None runs.' });
  const workers = table({ caption: 'Workers outside the database that hold steps', columns: workerColumns, empty: 'None holds a step.' });
  const queues = table({ caption: 'Queues', columns: queueColumns, empty: 'Nothing waits.' });
  const counted = h('p', { class: 'note' });
  const trouble = h('div');
  let isStopped = false;

  async function refresh() {
    try {
      const body = await get('workers');
      if (isStopped) return;
      trouble.replaceChildren();
      processes.show(body.processes ?? [], (p) => `${p.kind}.${p.pid}`);
      workers.show(body.workers ?? [], (w) => w.worker);
      queues.show(body.queues ?? [], (q) => [q.queue, q.namespace, q.handler].join('.'));
      counted.textContent = body.counted_up_to ? `Each is counted up to ${number(body.counted_up_to)}.` : '';
      showLive('polling');
    } catch (error) {
      if (!isStopped) trouble.replaceChildren(problem(error));
    }
  }

  const soon = throttled(refresh, 0);
  const timer = setInterval(() => { if (!document.hidden) soon(); }, 5000);
  await refresh();
  return {
    title: 'Workers and queues',
    node: h('div', null, h('h1', null, 'Workers and queues'), trouble,
      section('queues-title', 'Queues', queues, counted),
      section('processes-title', 'Processes', processes),
      section('workers-title', 'Workers outside', workers)),
    stop() { isStopped = true; clearInterval(timer); soon.stop(); },
  };
}
