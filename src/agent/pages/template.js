// One template: its graph, its definition, and a form that starts a task.
import { change, get, may, whoAmI } from './api.js';
import { facts, h, json, plural, problem, throttled, when } from './dom.js';
import { FieldError, schemaForm } from './form.js';
import { graph } from './graph.js';

function field(name, label, input, hint) {
  input.id = `task-${name}`;
  input.name = name;
  if (hint) input.setAttribute('aria-describedby', `task-${name}-hint`);
  return h('div', { class: 'field' }, h('label', { for: input.id }, label), input,
    hint && h('p', { class: 'note', id: `task-${name}-hint` }, hint));
}

const list = (text) => text.split(',').map((part) => part.trim()).filter(Boolean);

function startForm(template, who) {
  const context = schemaForm(template.schema ?? template.definition?.schema);
  const trouble = h('div');
  const text = (props) => h('input', { type: 'text', autocomplete: 'off', ...props });
  const inputs = {
    initiator: text({ required: true, value: who.role ?? '' }),
    reason: text({ required: true }),
    source_system: text({ required: true, value: 'pages' }),
    tags: text(),
    bypass_steps: text(),
    priority: h('input', { type: 'number', step: '1' }),
    run_at: h('input', { type: 'datetime-local' }),
  };
  // Sent twice, it is one task.
  const key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  const button = h('button', { type: 'submit', class: 'primary' }, 'Start');

  async function start(event) {
    event.preventDefault();
    trouble.replaceChildren();
    button.disabled = true;
    try {
      const body = {
        name: template.name, namespace: template.namespace, version: template.version,
        context: context.value(), initiator: inputs.initiator.value, reason: inputs.reason.value,
        source_system: inputs.source_system.value, idempotency_key: key,
      };
      if (inputs.tags.value) body.tags = list(inputs.tags.value);
      if (inputs.bypass_steps.value) body.bypass_steps = list(inputs.bypass_steps.value);
      if (inputs.priority.value) body.priority = Number(inputs.priority.value);
      if (inputs.run_at.value) body.run_at = new Date(inputs.run_at.value).toISOString();
      const { task } = await change('POST', 'tasks', body);
      location.hash = `#/tasks/${task.task_id}`;
    } catch (error) {
      trouble.replaceChildren(problem(error));
      if (error instanceof FieldError) error.input.focus();
      else trouble.scrollIntoView({ block: 'nearest' });
    } finally {
      button.disabled = false;
    }
  }

  return h('form', { onsubmit: start, 'aria-labelledby': 'start-title' },
    context.node,
    h('fieldset', null, h('legend', null, 'Who and why'), h('div', { class: 'fields' },
      field('initiator', 'Asked by', inputs.initiator), field('reason', 'Reason', inputs.reason),
      field('source_system', 'From which system', inputs.source_system))),
    h('details', null, h('summary', null, 'More'), h('div', { class: 'fields' },
      field('tags', 'Tags', inputs.tags, 'Separated by commas.'),
      field('bypass_steps', 'Steps to skip', inputs.bypass_steps, 'Separated by commas.'),
      field('priority', 'Priority', inputs.priority, 'Higher goes first.'),
      field('run_at', 'Not before', inputs.run_at))),
    trouble,
    h('div', { class: 'buttons' }, button));
}

export async function open({ parts: [namespace, name], query }) {
  const url = `templates/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  const version = query.get('version');
  const [{ template }, who] = await Promise.all([get(url, { version }), whoAmI()]);
  const steps = template.definition?.step_templates ?? template.step_templates ?? [];
  const picture = graph({ url: `${url}/diagram`, query: { version }, label: `Graph of ${name}; the list of steps has the same` });

  const draw = throttled(async () => { if (!await picture.load()) draw.later(); }, 0);

  draw();
  return {
    title: template.name,
    node: h('div', null,
      h('p', { class: 'crumbs' }, h('a', { href: '#/templates' }, 'Templates')),
      h('div', { class: 'heading' }, h('h1', null, `${template.name} `, h('span', { class: 'id' }, template.version)),
        h('a', { class: 'button', href: `#/tasks?namespace=${encodeURIComponent(namespace)}&name=${encodeURIComponent(name)}` }, 'Its tasks')),
      template.description && h('p', null, template.description),
      h('div', { class: 'columns' },
        h('section', { class: 'card', 'aria-labelledby': 'start-title' }, h('h2', { id: 'start-title' }, 'Start a task'),
          may(who, 'task:create', namespace) ? startForm(template, who) : h('p', { class: 'note' }, 'You may not create tasks in this namespace.')),
        h('div', null,
          h('section', { class: 'card', 'aria-labelledby': 'graph-title' }, h('h2', { id: 'graph-title' }, 'Graph'), picture.node),
          h('section', { class: 'card', 'aria-labelledby': 'about-title' }, h('h2', { id: 'about-title' }, 'About'),
            facts([['Namespace', template.namespace], ['Version', template.version], ['Environment', template.environment],
              ['Other versions', template.versions?.filter((v) => v !== template.version).map((v) => [h('a', { href: `#/${url}?version=${encodeURIComponent(v)}` }, v), ' '])],
              ['Registered', template.registered_at && when(template.registered_at)], ['By', template.registered_by]]),
            h('details', null, h('summary', null, plural(steps.length, 'step')), h('ol', { class: 'log' }, steps.map((s) => h('li', null,
              h('strong', null, s.name), ' ', h('span', { class: 'note' }, s.handler_class),
              [s.depends_on_step ?? [], s.depends_on_steps ?? []].flat().length > 0 && h('span', { class: 'note' }, ` after ${[s.depends_on_step ?? [], s.depends_on_steps ?? []].flat().join(', ')}`),
              s.description && h('div', { class: 'note' }, s.description))))),
            h('details', null, h('summary', null, 'Definition'), json(template.source || template.definition, 'Definition')))))),
    stop() { draw.stop(); },
  };
}
