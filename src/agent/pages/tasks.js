// Tasks: filtered, searched, page by page, and moving while one looks.
import { follow, get, getPage, isPassing } from './api.js';
import { STATES, badge, duration, h, number, plural, problem, say, since, stateText, table, throttled, when } from './dom.js';

const FILTERS = ['q', 'status', 'namespace', 'name', 'tag', 'initiator', 'created_after'];
const TASK_STATES = ['pending', 'in_progress', 'paused', 'complete', 'error', 'cancelled', 'resolved_manually'];

function toHash(query) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return `#/tasks${text ? `?${text}` : ''}`;
}

// How far it is, where the list says so: done, failed, all.
function progress(task) {
  const { total, complete = 0, error = 0, waiting_for_retry: waiting = 0, in_progress: running = 0 } = task.steps ?? {};
  if (total === undefined) return '–';
  if (task.steps.complete === undefined) return plural(total, 'step');
  const bar = h('span', { class: 'progress', 'aria-hidden': 'true' });
  for (const [state, count] of [['complete', complete], ['in_progress', running], ['waiting_for_retry', waiting], ['error', error]]) {
    if (count === 0) continue;
    const part = h('span', { class: state });
    part.style.width = `${(100 * count) / total}%`;
    bar.append(part);
  }
  return h('span', { class: 'of' }, bar, `${number(complete)} of ${number(total)}`,
    error + waiting > 0 && h('span', { class: 'hidden' }, `, ${error + waiting} failed`));
}

const columns = [
  { title: 'Task', class: 'main', cell: (t) => [
    h('a', { href: `#/tasks/${t.task_id}`, 'data-focus': 'task' }, `${t.name} `, h('span', { class: 'id' }, `#${t.task_id}`)),
    h('span', { class: 'note' }, ` ${t.namespace} ${t.version}`)] },
  { title: 'State', cell: (t) => badge(t.status ?? t.state) },
  { title: 'Steps', cell: progress },
  { title: 'Created', cell: (t) => when(t.created_at ?? t.requested_at) },
  { title: 'Took', class: 'number', cell: (t) => (t.finished_at ? duration(since(t.started_at ?? t.created_at, t.finished_at)) : '–') },
  { title: 'Asked by', class: 'wide', cell: (t) => t.initiator || '–' },
  { title: 'Tags', class: 'wide', cell: (t) => (t.tags?.length ? t.tags.map((tag) => [h('a', { class: 'tag', href: toHash({ tag }) }, tag), ' ']) : '–') },
];

function field(name, label, input) {
  input.id = `filter-${name}`;
  input.name = name;
  return h('div', { class: 'field' }, h('label', { for: input.id }, label), input);
}

function filterForm(onChange) {
  const names = h('datalist', { id: 'known-names' });
  const namespaces = h('datalist', { id: 'known-namespaces' });
  get('templates', { limit: 100 }).then(({ templates }) => {
    const options = (values) => [...new Set(values)].map((value) => h('option', { value }));
    names.replaceChildren(...options(templates.map((t) => t.name)));
    namespaces.replaceChildren(...options(templates.map((t) => t.namespace)));
  }).catch(() => { /* what may be typed is not listed */ });

  const inputs = {
    q: h('input', { type: 'search', placeholder: 'Id, or part of a name', autocomplete: 'off' }),
    status: h('select', null, h('option', { value: '' }, 'Any'), TASK_STATES.map((s) => h('option', { value: s }, STATES[s][1]))),
    namespace: h('input', { list: 'known-namespaces', autocomplete: 'off' }),
    name: h('input', { list: 'known-names', autocomplete: 'off' }),
    tag: h('input', { autocomplete: 'off' }),
    initiator: h('input', { autocomplete: 'off' }),
    created_after: h('input', { type: 'datetime-local' }),
  };
  const more = h('details', { class: 'more' }, h('summary', null, 'More filters'), h('div', { class: 'fields' },
    field('name', 'Template', inputs.name), field('tag', 'Tag', inputs.tag),
    field('initiator', 'Asked by', inputs.initiator), field('created_after', 'Created after', inputs.created_after)));
  const values = () => Object.fromEntries(FILTERS.map((name) => [name, inputs[name].value.trim()]));
  const form = h('form', { class: 'filters', role: 'search', 'aria-label': 'Tasks',
    onsubmit: (event) => { event.preventDefault(); onChange(values()); },
    onchange: () => onChange(values()) },
  h('div', { class: 'fields' },
    field('q', 'Search', inputs.q), field('status', 'State', inputs.status), field('namespace', 'Namespace', inputs.namespace),
    h('div', { class: 'buttons' },
      h('button', { type: 'submit', class: 'primary' }, 'Search'),
      h('a', { class: 'button', href: '#/tasks' }, 'Clear'))),
  more, names, namespaces);
  return { form, set(query) {
    for (const name of FILTERS) inputs[name].value = query.get(name) ?? '';
    if (FILTERS.slice(3).some((name) => query.get(name))) more.open = true;
  } };
}

export async function open({ query: first, showLive }) {
  let query = first;
  const list = table({ caption: 'Tasks, the newest first', columns, empty: 'No task is like that.' });
  const note = h('p', { class: 'note', id: 'count' });
  const trouble = h('div');
  const filters = filterForm((values) => { location.hash = toHash(values); });
  const back = h('a', { class: 'button', hidden: true }, 'Newest');
  const onward = h('a', { class: 'button', hidden: true }, 'Older');
  let isStopped = false;

  async function refresh() {
    const wanted = query;
    const asked = Object.fromEntries(wanted);
    if (asked.created_after) asked.created_after = new Date(asked.created_after).toISOString();
    try {
      const { body, next } = await getPage('tasks', { limit: 25, ...asked });
      if (isStopped || wanted !== query) return false;
      trouble.replaceChildren();
      list.show(body.tasks, (t) => t.task_id);
      const { cursor, ...filter } = Object.fromEntries(query);
      note.textContent = body.tasks.length === 0 && next ? 'None among these; there are older ones.'
        : `${plural(body.tasks.length, 'task')}${next ? ', and older ones' : ''}`;
      back.hidden = !cursor;
      back.href = toHash(filter);
      onward.hidden = !next;
      if (next) onward.href = toHash({ ...filter, cursor: next });
      return true;
    } catch (error) {
      if (isStopped || wanted !== query) return false;
      trouble.replaceChildren(problem(error));
      if (isPassing(error)) soon.later();
      return false;
    }
  }

  const soon = throttled(refresh, 700);
  filters.set(query);
  await refresh();
  const stop = follow({ events: 'task.*', namespace: query.get('namespace') }, {
    onEvent: soon, onGap: soon, onState: showLive,
  });
  return {
    title: 'Tasks',
    node: h('div', null,
      h('div', { class: 'heading' }, h('h1', null, 'Tasks'), h('a', { class: 'button primary', href: '#/templates' }, 'Start a task')),
      filters.form, trouble, note, list.node,
      h('nav', { class: 'buttons pages', 'aria-label': 'Pages of tasks' }, back, onward)),
    async update(changed) {
      query = changed;
      filters.set(query);
      if (await refresh()) say(`${note.textContent}${query.get('status') ? `, ${stateText(query.get('status'))}` : ''}`);
    },
    stop() { isStopped = true; soon.stop(); stop(); },
  };
}
