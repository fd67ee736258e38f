// One task: its graph, its steps with a time line, what it was asked for, what
// happened, and what may be done with it.
import { change, follow, get, getPage, isPassing, may, whoAmI } from './api.js';
import { append, ask, badge, duration, facts, h, json, number, plural, problem, reconcile, say, since, stateText, throttled, when } from './dom.js';
import { graph } from './graph.js';

const ROWS = 200;
const MOST_TRANSITIONS = 1000;

const isOpen = (state) => ['pending', 'in_progress', 'paused'].includes(state);

// What may be done with a task or a step, in which states, by whom.
const TASK_ACTIONS = [
  { name: 'retry', title: 'Retry', permission: 'task:retry', states: ['error'],
    text: 'Each failed step gets its attempts anew, and the task goes on.' },
  { name: 'resolve', title: 'Resolve', permission: 'task:resolve', states: ['error'], needsReason: true,
    text: 'Declares the task dealt with by hand. It does not go on.' },
  { name: 'pause', title: 'Pause', permission: 'task:pause', states: ['pending', 'in_progress'],
    text: 'No further step starts. What runs may finish.' },
  { name: 'resume', title: 'Resume', permission: 'task:pause', states: ['paused'],
    text: 'The task goes on where it was.' },
  { name: 'cancel', title: 'Cancel', permission: 'task:cancel', states: ['pending', 'in_progress', 'paused', 'error', 'complete', 'resolved_manually'],
    danger: true, hasReason: true, text: 'Every step that has not ended is cancelled. That can not be undone.' },
];
const STEP_ACTIONS = [
  { name: 'retry', title: 'Retry step', permission: 'workflow_step:retry', states: ['error', 'waiting_for_retry'],
    text: 'The step starts anew at once, and the task goes on.' },
  { name: 'resolve', title: 'Resolve step', permission: 'workflow_step:resolve', states: ['pending', 'error', 'waiting_for_retry'],
    needsReason: true, hasResults: true, text: 'Declares the step done. Steps behind it go on with these results.' },
  { name: 'cancel', title: 'Cancel step', permission: 'workflow_step:cancel', states: ['pending', 'in_progress', 'waiting_for_retry', 'error'],
    danger: true, hasReason: true, text: 'The step and those that need it are cancelled. That can not be undone.' },
];

function actionButtons(actions, { who, namespace, state, what, url, onDone, trouble }) {
  return actions.filter((a) => a.states.includes(state) && may(who, a.permission, namespace)).map((action) =>
    h('button', { type: 'button', class: action.danger ? 'danger' : null, 'data-action': action.name, onclick: async () => {
      const values = await ask({
        title: `${action.title}: ${what}`, text: action.text, action: action.title, danger: action.danger,
        fields: [
          action.hasResults && { name: 'results', label: 'Results, as JSON', value: '{}', isLong: true, required: true },
          (action.needsReason || action.hasReason) && { name: 'reason', label: action.needsReason ? 'Reason' : 'Reason (optional)', required: action.needsReason },
        ].filter(Boolean),
      });
      if (!values) return;
      trouble.replaceChildren();
      try {
        const body = {};
        if (values.reason) body.reason = values.reason;
        if (action.hasResults) {
          try { body.results = JSON.parse(values.results); } catch { throw new Error('The results are no JSON.'); }
        }
        if (action.name === 'cancel') await change('DELETE', url, Object.keys(body).length ? body : undefined);
        else await change('POST', `${url}/${action.name}`, body);
        say(`${action.title}: done`);
        onDone();
      } catch (error) {
        trouble.replaceChildren(problem(error));
      }
    } }, action.title));
}

// What of a task may be changed, and is: only that is sent.
async function editTask(task) {
  const tags = task.tags ?? [];
  const values = await ask({ title: `Edit: ${task.name} #${task.task_id}`, action: 'Save',
    text: 'A priority counts for what waits from now on; higher goes first.',
    fields: [
      { name: 'reason', label: 'Reason', value: task.reason ?? '' },
      { name: 'tags', label: 'Tags, one a line', isLong: true, value: tags.join('\n') },
      { name: 'priority', label: 'Priority', type: 'number', value: String(task.priority ?? 0), min: '-2147483647', max: '2147483647', required: true },
    ] });
  if (!values) return false;
  const wanted = values.tags.split('\n').map((tag) => tag.trim()).filter(Boolean);
  const body = {};
  if (values.reason !== (task.reason ?? '')) body.reason = values.reason;
  if (JSON.stringify(wanted) !== JSON.stringify(tags)) body.tags = wanted;
  if (Number(values.priority) !== (task.priority ?? 0)) body.priority = Number(values.priority);
  if (Object.keys(body).length === 0) return false;
  await change('PATCH', `tasks/${task.task_id}`, body);
  return true;
}

// ---- the time line

// The attempts of each step, from its transitions: when they began and ended, and how.
function attemptsOf(transitions) {
  const all = new Map();
  for (const t of transitions) {
    if (!t.step_id) continue;
    const list = all.get(t.step_id) ?? [];
    const last = list.at(-1);
    if (t.to_state === 'in_progress') list.push({ start: t.occurred_at, end: null, state: 'in_progress' });
    else if (last && !last.end) Object.assign(last, { end: t.occurred_at, state: t.to_state });
    all.set(t.step_id, list);
  }
  return all;
}

function stepAttempts(step, attempts) {
  const known = attempts.get(step.step_id);
  if (known?.length) return known;
  return step.started_at ? [{ start: step.started_at, end: step.finished_at ?? (step.state === 'in_progress' ? null : step.started_at), state: step.state }] : [];
}

// The bars lie on the time from the first start to the end, or to now.
function bars(list, start, end) {
  const whole = Math.max(1, end - start);
  const line = h('span', { class: 'line', 'aria-hidden': 'true' });
  for (const a of list) {
    const bar = h('span', { class: `bar ${a.state}` });
    const left = (100 * (new Date(a.start) - start)) / whole;
    const width = (100 * ((a.end ? new Date(a.end) : Date.now()) - new Date(a.start))) / whole;
    bar.style.left = `${Math.min(99.5, Math.max(0, left))}%`;
    bar.style.width = `${Math.min(100, Math.max(0.5, width))}%`;
    line.append(bar);
  }
  return line;
}

// ---- a step: what is done with it, and what there is to know

async function stepPanel(task, stepId, { who, onChange, onClose }) {
  const url = `tasks/${task.task_id}/workflow_steps/${stepId}`;
  const { step } = await get(url);
  const trouble = h('div');
  const error = step.error;
  const log = step.attempts_log ?? [];
  const canUpdate = may(who, 'workflow_step:update', task.namespace) && ['pending', 'waiting_for_retry', 'error'].includes(step.state);

  async function changeLimit() {
    const values = await ask({ title: `Attempts of ${step.name}`, action: 'Change',
      text: 'How many attempts it has in all, those behind it included.',
      fields: [{ name: 'retry_limit', label: 'Attempts', type: 'number', min: '1', value: String(step.retry_limit), required: true }] });
    if (!values) return;
    try {
      await change('PATCH', url, { retry_limit: Number(values.retry_limit) });
      onChange();
    } catch (failure) {
      trouble.replaceChildren(problem(failure));
    }
  }

  const top = h('div', { 'data-print': JSON.stringify([step.step_id, step.state, step.retry_limit]) },
    h('div', { class: 'heading' }, h('h2', { id: 'step-title', tabindex: '-1' }, step.name), badge(step.state),
      h('button', { type: 'button', class: 'quiet close', onclick: onClose }, 'Close')),
    h('div', { class: 'buttons' }, actionButtons(STEP_ACTIONS, { who, namespace: task.namespace, state: step.state, what: step.name, url, onDone: onChange, trouble }),
      canUpdate && h('button', { type: 'button', onclick: changeLimit }, 'Change attempts')),
    trouble);
  return [top, h('div', null,
    facts([
      ['Step', String(step.step_id)],
      ['Handler', step.handler_class],
      ['Attempts', `${number(step.attempts)} of ${number(step.retry_limit)}${step.retryable === false ? ', not to be retried' : ''}`],
      ['Started', step.started_at && when(step.started_at)],
      ['Ended', step.finished_at && when(step.finished_at)],
      ['Took', step.finished_at && duration(since(step.started_at, step.finished_at))],
      ['Next attempt', step.next_attempt_at && when(step.next_attempt_at)],
      ['Held by', step.claimed_by],
      ['Lease until', step.lease_until && when(step.lease_until)],
    ]),
    error && h('div', null, h('h3', null, 'Error'),
      h('div', { class: 'notice bad' }, h('strong', null, error.message ?? String(error)),
        error.detail && h('p', null, error.detail), error.hint && h('p', { class: 'note' }, error.hint)),
      facts([['SQLSTATE', error.sqlstate], ['Attempt', error.attempt], ['At', error.at && when(error.at)],
        ['Retried', error.retryable === undefined ? null : error.retryable ? 'yes' : 'no']]),
      error.context && h('details', null, h('summary', null, 'Where'), json(error.context, 'Where the error was raised'))),
    log.length > 0 && h('div', null, h('h3', null, 'Attempts'),
      h('ol', { class: 'log' }, log.map((a) => h('li', null, when(a.occurred_at), ' ', badge(a.to_state),
        a.attempt ? h('span', { class: 'note' }, ` attempt ${a.attempt}`) : '',
        a.metadata?.reason && h('span', { class: 'note' }, ` – ${a.metadata.reason}`))))),
    step.results !== null && step.results !== undefined && h('div', null, h('h3', null, 'Results'), json(step.results, 'Results')),
    step.inputs && h('div', null, h('h3', null, 'Inputs'), json(step.inputs, 'Inputs')))];
}

// ---- the page

export async function open({ parts: [id], query: first, showLive }) {
  const who = await whoAmI();
  let query = first;
  let { task } = await get(`tasks/${id}`);
  let transitions = [];
  let shown = ROWS;
  let only = '';
  let isStopped = false;
  let panelOf = null;
  let lines = [];
  let start = Infinity;

  let isOf = null;
  let asked = 0;
  let answered = 0;

  const head = h('div');
  const trouble = h('div');
  const summary = h('div');
  const panel = h('section', { class: 'panel card', hidden: true, 'aria-labelledby': 'step-title' });
  const picture = graph({ url: `tasks/${id}/diagram`, label: `Graph of task ${id}; the table of steps has the same`,
    onPick: (step) => { location.hash = `#/tasks/${id}?step=${step}`; } });

  // -- steps
  const stepRows = h('tbody', { role: 'rowgroup' });
  const more = h('button', { type: 'button', hidden: true, onclick: () => { shown += ROWS; showSteps(); } }, 'Show more');
  const filter = h('select', { id: 'step-state', onchange: () => { only = filter.value; shown = ROWS; showSteps(); } });
  const stepsTable = h('div', { class: 'table-wrap', role: 'region', 'aria-label': 'Table: steps', tabindex: '0' },
    h('table', { role: 'table', class: 'steps' }, h('caption', { class: 'hidden' }, 'Steps, in the order of the definition'),
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' },
        ['Step', 'State', 'Attempts', 'Time line', 'Took'].map((t) => h('th', { role: 'columnheader', scope: 'col', class: t === 'Time line' ? 'timeline' : t === 'Took' ? 'number' : null }, t)))),
      stepRows));

  const history = h('ol', { class: 'log' });
  const historyBox = h('details', { class: 'card', ontoggle: () => (task.workflow_steps.length > ROWS ? refresh() : showHistory()) }, h('summary', null, 'History'), history);
  const context = h('div');

  async function edit() {
    trouble.replaceChildren();
    try {
      if (!await editTask(task)) return;
      say('Saved');
      refresh();
    } catch (error) {
      trouble.replaceChildren(problem(error));
    }
  }

  // The buttons stay the same elements while they mean the same: one may be pressed just now.
  function showHead() {
    const t = task;
    if (isOf === t.state) return;
    isOf = t.state;
    head.replaceChildren(
      h('p', { class: 'crumbs' }, h('a', { href: '#/tasks' }, 'Tasks')),
      h('div', { class: 'heading' }, h('h1', { tabindex: '-1' }, `${t.name} `, h('span', { class: 'id' }, `#${t.task_id}`)), badge(t.state)),
      h('div', { class: 'buttons', id: 'task-actions' }, actionButtons(TASK_ACTIONS, { who, namespace: t.namespace, state: t.state,
        what: `${t.name} #${t.task_id}`, url: `tasks/${id}`, onDone: refresh, trouble }),
      may(who, 'task:update', t.namespace) && h('button', { type: 'button', 'data-action': 'edit', onclick: edit }, 'Edit')));
  }

  function showSummary() {
    const t = task;
    const x = t.execution ?? {};
    const done = x.completed_steps ?? 0;
    const meter = h('progress', { max: String(x.total_steps ?? 1), value: undefined, 'aria-label': 'Steps that are done' });
    meter.setAttribute('value', String(done));
    summary.replaceChildren(
      h('p', { class: 'meter' }, meter, ` ${number(done)} of ${plural(x.total_steps ?? 0, 'step')} done`,
        x.failed_steps ? `, ${number(x.failed_steps)} failed` : ''),
      t.error ? h('div', { class: 'notice bad' }, h('strong', null, t.error.message ?? JSON.stringify(t.error))) : '',
      facts([
        ['Template', h('a', { href: `#/templates/${encodeURIComponent(t.namespace)}/${encodeURIComponent(t.name)}?version=${encodeURIComponent(t.version)}` }, t.full_name)],
        ['Created', when(t.created_at)],
        ['Not before', t.run_at && when(t.run_at)],
        ['Started', t.started_at && when(t.started_at)],
        ['Ended', t.finished_at && when(t.finished_at)],
        ['Took', t.finished_at && t.started_at && duration(since(t.started_at, t.finished_at))],
        ['Asked by', t.initiator], ['From', t.source_system], ['Reason', t.reason],
        ['Priority', t.priority || null], ['Environment', t.environment],
        ['Bypasses', t.bypass_steps?.join(', ')],
        ['Correlation id', t.correlation_id], ['Idempotency key', t.idempotency_key],
        ['Tags', t.tags?.map((tag) => [h('a', { class: 'tag', href: `#/tasks?tag=${encodeURIComponent(tag)}` }, tag), ' '])],
      ]));
  }

  function showSteps() {
    const counts = new Map();
    for (const s of task.workflow_steps) counts.set(s.state, (counts.get(s.state) ?? 0) + 1);
    const options = [['', `All (${number(task.workflow_steps.length)})`], ...[...counts].map(([state, n]) => [state, `${stateText(state)} (${number(n)})`])];
    filter.replaceChildren(...options.map(([value, text]) => h('option', { value }, text)));
    filter.value = only;
    if (filter.value !== only) { only = ''; filter.value = ''; }

    const attempts = attemptsOf(transitions);
    const all = task.workflow_steps.filter((s) => only === '' || s.state === only);
    lines = all.slice(0, shown).map((s) => ({ id: s.step_id, name: s.name, state: s.state, attempts: s.attempts, limit: s.retry_limit,
      list: stepAttempts(s, attempts), isPicked: String(s.step_id) === query.get('step') }));
    start = task.workflow_steps.flatMap((s) => stepAttempts(s, attempts)).reduce((first, a) => Math.min(first, new Date(a.start)), Infinity);
    reconcile(stepRows, lines, (line) => line.id, ({ id: stepId, name, state, attempts: count, limit, list, isPicked }) =>
      h('tr', { role: 'row', class: isPicked ? 'picked' : null },
        h('td', { role: 'cell', class: 'main', 'data-title': 'Step' }, h('a', { href: `#/tasks/${id}?step=${stepId}`, 'data-focus': 'step', 'aria-current': isPicked ? 'true' : null }, name)),
        h('td', { role: 'cell', 'data-title': 'State' }, badge(state)),
        h('td', { role: 'cell', 'data-title': 'Attempts' }, h('span', { class: 'value' }, `${count} of ${limit}`)),
        h('td', { role: 'cell', class: 'timeline', 'data-title': 'Time line' },
          h('span', { class: 'hidden' }, list.length === 0 ? 'not begun' : list.map((a) =>
            `began ${duration(new Date(a.start) - start)} in, ${a.end ? `${stateText(a.state)} after ${duration(since(a.start, a.end))}` : 'runs'}`).join('; '))),
        h('td', { role: 'cell', class: 'number', 'data-title': 'Took' }, h('span', { class: 'value' }, '–'))));
    showTimes();
    more.hidden = all.length <= shown;
    more.textContent = `Show more (${number(all.length - shown)} left)`;
  }

  // What depends on the time of now, each second while something runs.
  function showTimes() {
    const runs = task.workflow_steps.some((s) => s.state === 'in_progress' || s.state === 'waiting_for_retry');
    const end = runs || !task.finished_at ? Date.now() : +new Date(task.finished_at);
    lines.forEach(({ list }, i) => {
      const row = stepRows.children[i];
      row.querySelector('.line')?.remove();
      if (list.length === 0) return;
      row.querySelector('.timeline').append(bars(list, start, end));
      row.querySelector('.number .value').textContent = duration(list.reduce((sum, a) => sum + since(a.start, a.end), 0));
    });
  }

  function showHistory() {
    if (!historyBox.open) return;
    reconcile(history, transitions.slice(-500).reverse(), (t) => t.transition_id + (t.step_id ?? '') + t.to_state, (t) => h('li', null,
      when(t.occurred_at), ' ', t.step_id ? h('a', { href: `#/tasks/${id}?step=${t.step_id}` }, t.step_name ?? t.step_id) : h('strong', null, 'Task'),
      ' ', badge(t.to_state), t.from_state ? h('span', { class: 'note' }, ` was ${stateText(t.from_state)}`) : '',
      t.metadata?.reason && h('span', { class: 'note' }, ` – ${t.metadata.reason}`)));
  }

  // Of a large task, what its steps say of themselves has to do, until one looks at the history.
  async function loadTransitions() {
    const all = [];
    if (task.workflow_steps.length > ROWS && !historyBox.open) return all;
    let cursor = null;
    do {
      const { body, next } = await getPage(`tasks/${id}/transitions`, { limit: 100, cursor });
      all.push(...body.transitions);
      cursor = next;
    } while (cursor && all.length < MOST_TRANSITIONS);
    return all;
  }

  async function showPanel(isNew) {
    const stepId = query.get('step');
    if (!stepId) {
      const was = panelOf;
      panel.hidden = true;
      panel.replaceChildren();
      panelOf = null;
      picture.pick(null);
      if (was) stepRows.querySelector(`[data-key="${CSS.escape(was)}"] a`)?.focus();
      return;
    }
    let content;
    try {
      content = await stepPanel(task, stepId, { who, onChange: refresh, onClose: () => { location.hash = `#/tasks/${id}`; } });
    } catch (error) {
      content = [h('h2', { id: 'step-title', tabindex: '-1' }, 'Step'), problem(error)];
    }
    if (isStopped || query.get('step') !== stepId) return;
    const hadFocus = panel.contains(document.activeElement);
    const openDetails = panelOf === stepId && panel.querySelector('details')?.open;
    panel.hidden = false;
    if (panel.firstElementChild?.dataset.print && panel.firstElementChild.dataset.print === content[0].dataset.print) panel.lastElementChild.replaceWith(content[1]);
    else panel.replaceChildren(...content);
    if (openDetails && panel.querySelector('details')) panel.querySelector('details').open = true;
    panelOf = stepId;
    picture.pick(stepId);
    if (isNew || (hadFocus && !panel.contains(document.activeElement))) panel.querySelector('h2').focus({ preventScroll: !isNew });
    if (isNew) panel.scrollIntoView({ block: 'nearest' });
  }

  function render() {
    const focusedAction = head.contains(document.activeElement) ? document.activeElement.dataset.action : null;
    showHead();
    if (focusedAction) (head.querySelector(`[data-action="${focusedAction}"]`) ?? head.querySelector('h1')).focus();
    showSummary();
    showSteps();
    showHistory();
    if (!picture.colour(task.workflow_steps)) redraw();
  }

  const redraw = throttled(async () => {
    if (!await picture.load()) redraw.later();
    picture.colour(task.workflow_steps);
    picture.pick(query.get('step'));
  }, 1500);

  async function refresh() {
    const turn = ++asked;
    try {
      const before = task.state;
      const [answer, moves] = await Promise.all([get(`tasks/${id}`), loadTransitions()]);
      // What was asked for later has been shown already.
      if (isStopped || turn < answered) return;
      answered = turn;
      const seen = panelOf && JSON.stringify(task.workflow_steps.find((s) => String(s.step_id) === panelOf));
      task = answer.task;
      transitions = moves;
      render();
      if (task.state !== before) say(`Task ${id}: ${stateText(task.state)}`);
      if (panelOf && seen !== JSON.stringify(task.workflow_steps.find((s) => String(s.step_id) === panelOf))) await showPanel(false);
      trouble.querySelector('.lost')?.remove();
    } catch (error) {
      if (isStopped || turn < answered) return;
      trouble.replaceChildren(append(h('div', { class: 'lost' }), [problem(error)]));
      if (isPassing(error)) soon.later();
    }
  }

  transitions = await loadTransitions().catch(() => []);
  const soon = throttled(refresh, 400);
  render();
  append(context, [json(task.context ?? {}, 'Context')]);
  picture.load().then(() => {
    if (!picture.colour(task.workflow_steps)) redraw();
    picture.pick(query.get('step'));
  });
  // Bars of what runs grow.
  const tick = setInterval(() => {
    if (!document.hidden && isOpen(task.state) && task.workflow_steps.length <= ROWS && task.workflow_steps.some((s) => s.state === 'in_progress')) showTimes();
  }, 1000);
  const stop = follow({ task_id: id }, { onEvent: soon, onGap: soon, onState: showLive });
  if (query.get('step')) showPanel(false);

  return {
    title: `${task.name} #${id}`,
    node: h('div', null, head, trouble,
      h('div', { class: 'columns' },
        h('section', { class: 'card', 'aria-label': 'Overview' }, h('h2', { class: 'hidden' }, 'Overview'), summary),
        h('section', { class: 'card', 'aria-label': 'Graph' }, h('h2', { class: 'hidden' }, 'Graph'), picture.node)),
      panel,
      h('section', { class: 'card', 'aria-labelledby': 'steps-title' },
        h('div', { class: 'heading' }, h('h2', { id: 'steps-title' }, 'Steps'),
          h('div', { class: 'field inline' }, h('label', { for: 'step-state' }, 'State'), filter)),
        stepsTable, more),
      h('details', { class: 'card' }, h('summary', null, 'Context'), context),
      historyBox),
    update(changed) {
      query = changed;
      showSteps();
      showPanel(true);
    },
    stop() { isStopped = true; soon.stop(); redraw.stop(); clearInterval(tick); stop(); },
  };
}
