// How it is, and how it was while one looked.
import { get, may, path, whoAmI } from './api.js';
import { STATES, badge, facts, h, number, plural, problem, table, throttled, when, words } from './dom.js';

const EVERY_MS = 5000;
const MOST_SAMPLES = 720;
const KEPT = 'tasker.samples';

// Lines of the charts: title, and what a sample has of it.
const CHARTS = [
  { title: 'Steps ended per minute', unit: 'a minute', lines: [['complete', 'complete', 'rate'], ['error', 'error', 'rate']] },
  { title: 'Work under way', unit: 'now', lines: [['in_progress', 'tasks in progress'], ['pending', 'tasks pending'], ['waiting_for_retry', 'steps waiting for retry']] },
];

let library = null;

// Chart.js, where it is installed.
function chartLibrary() {
  library ??= new Promise((resolve) => {
    const script = h('script', { src: path('assets/chart.js') });
    script.onload = () => resolve(globalThis.Chart ?? null);
    script.onerror = () => resolve(null);
    document.head.append(script);
  });
  return library;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function loadSamples() {
  try { return JSON.parse(sessionStorage.getItem(KEPT)) ?? []; } catch { return []; }
}

function sampleOf(status) {
  const { tasks = {}, steps = {} } = status.metrics ?? {};
  return { at: Date.now(), in_progress: tasks.in_progress ?? 0, pending: tasks.pending ?? 0, waiting_for_retry: steps.waiting_for_retry ?? 0,
    complete: (steps.complete ?? 0), error: (steps.error ?? 0) };
}

function series(samples, key, isRate) {
  if (!isRate) return samples.map((s) => s[key]);
  return samples.map((s, i) => {
    const before = samples[i - 1];
    if (!before || s.at - before.at > 4 * EVERY_MS) return null;
    return Math.max(0, Math.round(((s[key] - before[key]) * 60_000) / (s.at - before.at)));
  });
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function drawChart(Chart, canvas, { lines, unit }) {
  const style = () => ({ text: colour('--text-2'), grid: colour('--line') });
  const dashes = [[], [6, 3], [2, 3]];
  const chart = new Chart(canvas, {
    type: 'line',
    data: { labels: [], datasets: lines.map(([key, label], i) => ({ label, data: [], borderWidth: 2, pointRadius: 0, tension: 0.2, borderDash: dashes[i], key })) },
    options: {
      animation: false, responsive: true, maintainAspectRatio: false,
      interaction: { mode: 'index', intersect: false },
      scales: { x: { ticks: { maxTicksLimit: 6, maxRotation: 0 } }, y: { beginAtZero: true, ticks: { precision: 0 }, title: { display: true, text: unit } } },
      plugins: { legend: { position: 'bottom', labels: { boxHeight: 1 } } },
    },
  });
  return {
    show(samples) {
      const { text, grid } = style();
      chart.data.labels = samples.map((s) => clock.format(s.at));
      chart.data.datasets.forEach((set, i) => {
        set.pointRadius = samples.length < 4 ? 3 : 0;
        set.data = series(samples, lines[i][0], lines[i][2] === 'rate');
        set.borderColor = colour(`--${lines[i][0]}-line`);
        set.backgroundColor = set.borderColor;
      });
      for (const axis of Object.values(chart.options.scales)) {
        axis.ticks.color = text;
        axis.grid = { color: grid };
        if (axis.title) axis.title.color = text;
      }
      chart.options.plugins.legend.labels.color = text;
      chart.update('none');
    },
    stop: () => chart.destroy(),
  };
}

// The same as rows: for those who do not see the picture, and where there is none.
function sampleTable({ title, lines }) {
  const list = table({ caption: title, empty: 'The first figures come in a moment.', columns: [
    { title: 'At', class: 'main', cell: (r) => r.at },
    ...lines.map(([, label], i) => ({ title: words(label), class: 'number', cell: (r) => number(r.values[i] ?? '–') })),
  ] });
  return { node: list.node, show(samples) {
    const columns = lines.map(([key, , kind]) => series(samples, key, kind === 'rate'));
    list.show(samples.map((s, i) => ({ at: clock.format(s.at), key: s.at, values: columns.map((c) => c[i]) })).slice(-12).reverse(), (r) => r.key);
  } };
}

function counts(title, values) {
  const list = table({ caption: title, columns: [
    { title: 'State', class: 'main', cell: ([state]) => (state === 'total' ? 'all' : badge(state)) },
    { title: title, class: 'number', cell: ([, count]) => number(count) }] });
  const order = ['total', ...Object.keys(STATES)];
  list.show(Object.entries(values).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)), ([state]) => state);
  return list.node;
}

function seconds(value) {
  if (value === null || value === undefined) return '–';
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${Number(value).toFixed(1)} s`;
}

function percent(value) {
  return value === null || value === undefined ? '–' : `${Number(value).toLocaleString(undefined, { maximumFractionDigits: 1 })} %`;
}

function trends(performance) {
  const list = table({ caption: 'Performance', columns: [
    { title: 'Period', class: 'main', cell: ([name]) => words(name) },
    { title: 'Tasks', class: 'number', cell: ([, t]) => number(t.task_throughput) },
    { title: 'Completed', class: 'number', cell: ([, t]) => percent(t.completion_rate) },
    { title: 'In error', class: 'number', cell: ([, t]) => percent(t.error_rate) },
    { title: 'Mean of a task', class: 'number', cell: ([, t]) => seconds(t.avg_task_duration) },
    { title: 'Steps', class: 'number', cell: ([, t]) => number(t.step_throughput) },
    { title: 'Mean of a step', class: 'number', cell: ([, t]) => seconds(t.avg_step_duration) }] });
  const order = ['last_hour', 'last_4_hours', 'last_24_hours'];
  list.show(Object.entries(performance).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)), ([name]) => name);
  return list.node;
}

function lost(bottlenecks) {
  const list = table({ caption: 'Where time is lost', empty: 'Nothing ended in this time.', columns: [
    { title: 'Step', class: 'main', cell: (b) => [b.step_name, h('span', { class: 'note' }, ` ${b.namespace}.${b.task_name} ${b.version ?? ''}`)] },
    { title: 'In all', class: 'number', cell: (b) => seconds(b.total_seconds) },
    { title: 'Runs', class: 'number', cell: (b) => number(b.runs) },
    { title: 'Mean', class: 'number', cell: (b) => seconds(b.mean_duration) },
    { title: '95 %', class: 'number', cell: (b) => seconds(b.p95_duration) },
    { title: 'Mean wait', class: 'number', cell: (b) => seconds(b.mean_wait) },
    { title: 'Retries', class: 'number', cell: (b) => number(b.retries) },
    { title: 'Failures', class: 'number', cell: (b) => number(b.failures) }] });
  list.show(bottlenecks.bottleneck_analysis?.dependency_bottlenecks ?? [], (b) => [b.namespace, b.task_name, b.version, b.step_name].join(' '));
  return [list.node,
    bottlenecks.recommendations?.length > 0 && [h('h3', null, 'What may help'), h('ul', null, bottlenecks.recommendations.map((r) => h('li', null, r)))],
    bottlenecks.bottleneck_analysis?.error_patterns?.length > 0 && [h('h3', null, 'Errors'), h('ul', null, bottlenecks.bottleneck_analysis.error_patterns.map((e) =>
      h('li', null, `${number(e.count)} × ${e.message} `, h('span', { class: 'note' }, e.sqlstate))))]];
}

export async function open({ showLive }) {
  const who = await whoAmI();
  const trouble = h('div');
  const summary = h('div');
  const figures = h('div', { class: 'columns' });
  const analysis = h('div');
  let samples = loadSamples();
  let isStopped = false;
  let drawn = [];
  let timer = null;

  const boxes = CHARTS.map((chart) => {
    const canvas = h('canvas', { 'aria-hidden': 'true' });
    const rows = sampleTable(chart);
    const place = h('div', { class: 'chart', hidden: true }, canvas);
    const details = h('details', { open: true }, h('summary', null, 'As a table'), rows.node);
    return { chart, canvas, rows, place, details, node: h('section', { class: 'card', 'aria-label': chart.title }, h('h2', null, chart.title), place, details) };
  });

  function showSamples() {
    for (const box of boxes) box.rows.show(samples);
    for (const chart of drawn) chart.show(samples);
  }

  async function refresh() {
    try {
      const status = await get('health/status', {}, { takes: [503] });
      if (isStopped) return;
      trouble.replaceChildren();
      samples = [...samples, sampleOf(status)].slice(-MOST_SAMPLES);
      sessionStorage.setItem(KEPT, JSON.stringify(samples));
      const isWell = status.healthy !== false && status.status !== 'degraded';
      summary.replaceChildren(
        h('p', { class: 'verdict' }, h('span', { class: `state ${status.healthy === false ? 'error' : isWell ? 'complete' : 'waiting_for_retry'}` },
          h('span', { 'aria-hidden': 'true', class: 'glyph' }, status.healthy === false ? '✕' : isWell ? '✓' : '!'), words(status.status ?? 'unknown')),
        h('span', { class: 'note' }, ' at ', when(status.timestamp))),
        status.problems?.length ? h('ul', { class: 'notice bad' }, status.problems.map((p) => h('li', null, typeof p === 'string' ? p : p.message ?? JSON.stringify(p)))) : '');
      const { tasks, steps, retries } = status.metrics ?? {};
      figures.replaceChildren(
        tasks ? h('section', { class: 'card', 'aria-labelledby': 'tasks-title' }, h('h2', { id: 'tasks-title' }, 'Tasks'), counts('Tasks', tasks)) : '',
        steps ? h('section', { class: 'card', 'aria-labelledby': 'steps-title' }, h('h2', { id: 'steps-title' }, 'Steps'), counts('Steps', steps),
          retries && facts([['May be retried', number(retries.retryable_errors)], ['Used up their attempts', number(retries.exhausted_retries)], ['Wait for a retry', number(retries.in_backoff)]])) : '',
        status.database ? h('section', { class: 'card', 'aria-labelledby': 'database-title' }, h('h2', { id: 'database-title' }, 'Database'),
          facts([['Connections', `${number(status.database.connections)} of ${number(status.database.max_connections)}`],
            ['Active', number(status.database.active_connections)], ['In use', percent(status.database.connection_utilization)]])) : '');
      showSamples();
      showLive('polling');
    } catch (error) {
      if (!isStopped) trouble.replaceChildren(problem(error));
      if (error.status === 403) clearInterval(timer);
    }
  }

  async function analyse() {
    if (!may(who, 'analytics:index')) return;
    try {
      const [performance, bottlenecks] = await Promise.all([get('analytics/performance'), get('analytics/bottlenecks')]);
      if (isStopped) return;
      const spread = performance.telemetry_insights?.step_durations;
      analysis.replaceChildren(
        performance.performance_trends ? h('section', { class: 'card', 'aria-labelledby': 'trends-title' }, h('h2', { id: 'trends-title' }, 'Performance'), trends(performance.performance_trends),
          spread && facts([['Attempts in the last hour', number(spread.count)], ['Half within', seconds(spread.percentiles?.p50)], ['95 % within', seconds(spread.percentiles?.p95)], ['99 % within', seconds(spread.percentiles?.p99)]])) : '',
        bottlenecks.bottleneck_analysis ? h('section', { class: 'card', 'aria-labelledby': 'lost-title' }, h('h2', { id: 'lost-title' }, 'Where time is lost'),
          h('p', { class: 'note' }, `The last ${plural(bottlenecks.analysis_period_hours ?? 24, 'hour')}.`), lost(bottlenecks)) : '');
    } catch { /* the rest of the page does without */ }
  }

  const soon = throttled(refresh, 0);
  timer = setInterval(() => { if (!document.hidden) soon(); }, EVERY_MS);
  await refresh();
  analyse();
  chartLibrary().then((Chart) => {
    if (isStopped || !Chart) return;
    drawn = boxes.map((box) => {
      box.place.hidden = false;
      box.details.open = false;
      return drawChart(Chart, box.canvas, box.chart);
    });
    showSamples();
  });
  const onTheme = () => showSamples();
  document.addEventListener('theme', onTheme);
  return {
    title: 'Health',
    node: h('div', null, h('h1', null, 'Health'), trouble, summary,
      h('div', { class: 'columns' }, boxes.map((box) => box.node)), figures, analysis),
    stop() {
      isStopped = true;
      clearInterval(timer);
      soon.stop();
      document.removeEventListener('theme', onTheme);
      drawn.forEach((chart) => chart.stop());
    },
  };
}
