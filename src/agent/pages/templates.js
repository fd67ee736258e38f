// Templates: what can be started.
import { getPage } from './api.js';
import { h, number, plural, problem, table, when } from './dom.js';

const columns = [
  { title: 'Template', class: 'main', cell: (t) => h('a', { 'data-focus': 'template',
    href: `#/templates/${encodeURIComponent(t.namespace)}/${encodeURIComponent(t.name)}${t.is_latest === false ? `?version=${encodeURIComponent(t.version)}` : ''}` }, t.name) },
  { title: 'Namespace', cell: (t) => t.namespace },
  { title: 'Version', cell: (t) => t.version },
  { title: 'Steps', class: 'number', cell: (t) => number(t.step_count) },
  { title: 'Registered', cell: (t) => when(t.registered_at) },
  { title: 'Description', class: 'wide', cell: (t) => t.description || '–' },
];

export async function open() {
  const list = table({ caption: 'Templates', columns, empty: 'None is registered. tasker.register_task() registers one.' });
  const trouble = h('div');
  const note = h('p', { class: 'note', role: 'status' });
  const more = h('button', { type: 'button', hidden: true, onclick: () => load() }, 'Show more');
  const rows = [];
  let cursor = null;

  async function load() {
    try {
      const { body, next } = await getPage('templates', { limit: 100, cursor });
      rows.push(...body.templates);
      cursor = next;
      more.hidden = !next;
      list.show(rows, (t) => `${t.namespace} ${t.name} ${t.version} ${t.environment ?? ''}`);
      note.textContent = plural(rows.length, 'template');
    } catch (error) {
      trouble.replaceChildren(problem(error));
    }
  }

  await load();
  return { title: 'Templates', node: h('div', null, h('h1', null, 'Templates'), trouble, note, list.node, more) };
}
