// The pages in a browser, against an agent of its own: run by 710_pages.pl, which
// makes a test of each line that begins with "ok" or "not ok".
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';

// npm put them into the directory of the test.
const require = createRequire(`${process.env.NPM_PLACE}/`);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const run = promisify(execFile);
const PATIENCE = 60_000;
const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } };

// ---- the harness

function ok(isGood, name, detail) {
  console.log(`${isGood ? 'ok' : 'not ok'} - ${name}${isGood || detail === undefined ? '' : `: ${String(detail).replaceAll('\n', ' | ')}`}`);
}

const is = (got, wanted, name) => ok(JSON.stringify(got) === JSON.stringify(wanted), name, `${JSON.stringify(got)} instead of ${JSON.stringify(wanted)}`);

async function sql(text) {
  const { stdout } = await run('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', 'SET client_min_messages = error', '-c', text]);
  return stdout.trim();
}

// Waits until what the page shows is so; what it is at last is the detail.
async function becomes(page, name, test, argument) {
  try {
    await page.waitForFunction(test, argument, { timeout: PATIENCE });
    ok(true, name);
  } catch (error) {
    ok(false, name, `${error.message} ${await page.evaluate(() => document.querySelector('main').innerText.slice(0, 600))}`);
  }
}

async function appears(locator, name) {
  try {
    await locator.first().waitFor({ timeout: PATIENCE });
    ok(true, name);
  } catch (error) {
    ok(false, name, error.message);
  }
}

// ---- the agent

let agent = null;
process.on('exit', () => agent?.kill('SIGKILL'));

async function startAgent(...options) {
  const started = spawn('tasker-agent', ['--roles', 'rest', ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
  agent = started;
  let said = '';
  return new Promise((resolve, reject) => {
    const hear = (data) => {
      said += data;
      const found = /(http:\/\/127\.0\.0\.1:\d+)/.exec(said);
      if (/is ready/.test(said) && found) resolve(`${found[1]}/tasker/`);
    };
    started.stdout.on('data', hear);
    started.stderr.on('data', hear);
    started.on('exit', (code) => reject(new Error(`tasker-agent ended with ${code}: ${said}`)));
  });
}

// Ends it by that signal; its exit status.
async function stopAgent(signal) {
  const stopped = agent;
  agent = null;
  const gone = new Promise((resolve) => stopped.on('exit', resolve));
  stopped.kill(signal);
  return gone;
}

// ---- the browser

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox'] });
const complaints = [];

async function open(size, colorScheme, more) {
  const context = await browser.newContext({ viewport: SIZES[size], colorScheme, locale: 'en-GB', timezoneId: 'UTC', ...more });
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}`));
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on('console', (m) => { if (['error', 'warning'].includes(m.type())) complaints.push(`${page.url()} ${m.text()}`); });
  page.on('pageerror', (e) => complaints.push(`${page.url()} ${e.stack}`));
  return page;
}

const isRefusal = (text) => /the server responded with a status of 4\d\d/.test(text);

function noComplaints(name, isExpected = () => false) {
  const left = complaints.splice(0).filter((text) => !isExpected(text));
  is(left, [], name);
}

async function go(page, base, hash) {
  await page.goto(`${base}#${hash}`);
  await page.locator('main h1').first().waitFor();
}

async function axeFindings(page) {
  // The states of the moment: not half way through a fade.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().map((a) => a.finished)));
  await page.evaluate(`${axe};0`);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ['violations'] }));
  return violations.filter((v) => ['serious', 'critical'].includes(v.impact))
    .map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html).join(' ')}`);
}

// ---- what is looked at

const base = await startAgent('--listen', '127.0.0.1:0');
const port = new URL(base).port;

async function create(name, context = {}) {
  return sql(`SELECT tasker.create_task('${name}', '${JSON.stringify(context)}', namespace => 'shop', initiator => 'web', reason => 'checkout', source_system => 'shop', tags => '{express}')`);
}

// A worker outside does the next step, or fails it.
async function work(handler, outcome) {
  for (let i = 0; i < 600; i++) {
    const claimed = await sql(`SELECT step_id, attempt FROM tasker.claim_steps('test', '{${handler}}', lease => '1 hour')`);
    if (claimed) {
      const [step, attempt] = claimed.split('|');
      return sql(outcome(step, attempt));
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`no step of ${handler} is ready`);
}
const completes = (results) => (step, attempt) => `SELECT tasker.complete_step(${step}, '${JSON.stringify(results)}', 'test', ${attempt})`;
const fails = (message) => (step, attempt) => `SELECT tasker.fail_step(${step}, '${JSON.stringify({ message, hint: 'Try another card.' })}', false, NULL, 'test', ${attempt})`;
const begins = () => 'SELECT 1';

const finished = await create('greet');
await sql(`SELECT tasker.wait_for_task(${finished})`);

// -- a task that is started while one looks, from the list to its end
{
  const page = await open('desktop', 'light');
  await go(page, base, '/tasks');
  await appears(page.locator('#live[data-state="live"]'), 'The list of tasks is live');
  await page.evaluate(() => { globalThis.isTheSame = true; });
  // What was asked for when the stream began is there; what follows comes by it.
  const before = await create('greet');
  await appears(page.locator(`tr[data-key="${before}"] .state.complete`), 'A task that ends shows on the page');
  const task = await create('place_order', { order_id: 17 });
  const row = page.locator(`tr[data-key="${task}"]`);
  await appears(row, 'A task that is started appears on the page');
  await appears(row.locator('.state.in_progress'), 'with its state');
  await row.locator('a').first().click();
  await appears(page.locator('h1', { hasText: 'place_order' }), 'Its link leads to it');
  await appears(page.locator('.stage .node'), 'with its graph');
  is(await page.locator('.stage .node').count(), 5, 'a box for each step');
  await appears(page.locator('.stage .node.pending'), 'coloured by their states');
  await page.evaluate(() => { document.querySelector('#task-actions button').isTheSame = true; });
  await work('outside', completes({ said: '<img src=x onerror=alert(1)>' }));
  await becomes(page, 'A step that completes changes its colour in the graph', () => document.querySelectorAll('.stage .node.complete').length >= 1);
  await becomes(page, 'and its row', () => document.querySelector('table.steps tbody tr .state')?.classList.contains('complete'));
  ok(await page.evaluate(() => document.querySelector('#task-actions button').isTheSame), 'What is pressed just then is pressed');
  is(await page.locator('table.steps tbody tr').first().locator('.bar').count(), 1, 'which has a bar for its attempt');
  await page.locator('table.steps a', { hasText: 'charge' }).click();
  await appears(page.locator('.panel h2', { hasText: 'charge' }), 'A step can be opened');
  await page.locator('table.steps a', { hasText: 'reserve' }).click();
  await appears(page.locator('.panel pre', { hasText: '<img src=x onerror=alert(1)>' }), 'Results stand there as they are');
  await work('outside', fails('no <b>money</b>'));
  await appears(page.locator('.heading .state.error'), 'A failure shows without a reload');
  await page.locator('table.steps a', { hasText: 'charge' }).click();
  await appears(page.locator('.panel .notice', { hasText: 'no <b>money</b>' }), 'with its error, as it is');
  await appears(page.locator('.stage .node.error'), 'in the graph, too');

  // -- actions
  await page.locator('#task-actions button', { hasText: 'Retry' }).click();
  await page.locator('dialog button', { hasText: 'Retry' }).click();
  await appears(page.locator('.heading .state.in_progress, .heading .state.pending'), 'Retry: the task goes on');
  await page.locator('#task-actions button', { hasText: 'Pause' }).click();
  await page.locator('dialog button', { hasText: 'Pause' }).click();
  await appears(page.locator('.heading .state.paused'), 'Pause');
  await page.locator('#task-actions button', { hasText: 'Resume' }).click();
  await page.locator('dialog button', { hasText: 'Resume' }).click();
  await appears(page.locator('.heading .state.in_progress'), 'Resume');
  await page.locator('#task-actions button', { hasText: 'Edit' }).click();
  is(await page.locator('dialog').getByLabel('Tags').inputValue(), 'express', 'What may be changed is there to be edited');
  await page.locator('dialog').getByLabel('Reason').fill('a <b>better</b> one');
  await page.locator('dialog').getByLabel('Tags').fill('express\n\n one, two \n');
  await page.locator('dialog').getByLabel('Priority').fill('7');
  await page.locator('dialog button', { hasText: 'Save' }).click();
  await appears(page.locator('dd', { hasText: 'a <b>better</b> one' }), 'Edit: what was changed shows');
  await appears(page.locator('dd a.tag', { hasText: 'one, two' }), 'with its tags');
  is(await sql(`SELECT reason, tags, priority FROM tasker.tasks WHERE task_id = ${task}`), 'a <b>better</b> one|{express,"one, two"}|7', 'and is so');
  await page.locator('#task-actions button', { hasText: 'Edit' }).click();
  await page.locator('dialog').getByLabel('Priority').fill('99999999999');
  await page.locator('dialog form').evaluate((form) => form.setAttribute('novalidate', ''));
  await page.locator('dialog button', { hasText: 'Save' }).click();
  await appears(page.locator('.notice.bad[role="alert"]'), 'What can not be is refused, and it is said why');
  noComplaints('Nothing but that was complained of', isRefusal);
  await page.locator('.panel button', { hasText: 'Resolve step' }).click();
  await page.locator('dialog textarea').fill('{"by": "hand"}');
  await page.locator('dialog input').fill('paid in cash');
  await page.locator('dialog button', { hasText: 'Resolve step' }).click();
  await appears(page.locator('table.steps .state.resolved_manually'), 'A step is resolved by hand');
  await page.locator('#task-actions button', { hasText: 'Cancel' }).click();
  await page.locator('dialog button', { hasText: 'Back' }).click();
  is(await sql(`SELECT state FROM tasker.tasks WHERE task_id = ${task}`), 'in_progress', 'What is not confirmed is not done');
  await page.locator('#task-actions button', { hasText: 'Cancel' }).click();
  await page.locator('dialog input').fill('changed <i>mind</i>');
  await page.locator('dialog button', { hasText: 'Cancel' }).last().click();
  await appears(page.locator('.heading .state.cancelled'), 'Cancel');
  await page.locator('details summary', { hasText: 'History' }).click();
  await appears(page.locator('.log li', { hasText: 'Task' }), 'The history has what happened');
  is(await page.evaluate(() => globalThis.isTheSame), true, 'and all of it on a page that was never loaded anew');
  noComplaints('Nothing was complained of in the browser');

  // -- a task is started by the form of its schema
  await go(page, base, '/templates');
  await page.locator('td a', { hasText: 'place_order' }).click();
  await appears(page.locator('.stage .node'), 'A template has its graph');
  await page.getByLabel('Order id').fill('0');
  await page.getByLabel('Reason').fill('by hand');
  await page.evaluate(() => document.querySelector('main form').setAttribute('novalidate', ''));
  await page.locator('form button[type="submit"]').click();
  await appears(page.locator('.notice.bad'), 'A context that the schema refuses is not taken, and it is said why');
  await page.getByLabel('Order id').fill('18');
  await page.locator('form button[type="submit"]').click();
  await page.waitForURL(/#\/tasks\/\d+/);
  const made = /tasks\/(\d+)/.exec(page.url())[1];
  is(await sql(`SELECT context ->> 'order_id' || ' ' || reason || ' ' || (context ->> 'country') FROM tasker.tasks WHERE task_id = ${made}`), '18 by hand DE', 'one that it takes makes a task');
  noComplaints('Nothing but the refusal was complained of', isRefusal);

  // -- filters, pages
  await go(page, base, '/tasks');
  await page.getByLabel('State').selectOption('cancelled');
  await becomes(page, 'A filter shows what it names', () => document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody .state.cancelled'));
  ok(/status=cancelled/.test(page.url()), 'and stands in the address');
  await page.locator('form a', { hasText: 'Clear' }).click();
  await sql("SELECT count(tasker.create_task('greet', namespace => 'shop')) FROM generate_series(1, 30)");
  await appears(page.locator('nav a', { hasText: 'Older' }), 'More tasks than a page has go on');
  await page.locator('nav a', { hasText: 'Older' }).click();
  await appears(page.locator('tr[data-key="1"]'), 'to the oldest');
  await page.goBack();
  await becomes(page, 'and back', () => !document.querySelector('tr[data-key="1"]') && document.querySelectorAll('tbody tr').length === 25);

  // -- the stream of events
  await page.locator('header nav a', { hasText: 'Events' }).click();
  await appears(page.locator('#live[data-state="live"]'), 'The stream of events is live');
  const told = await create('greet');
  await appears(page.locator('.stream li', { hasText: 'task.completed' }).filter({ hasText: `#${told}` }), 'An event appears as it happens');

  // -- the agent dies and comes back; it has not answered who asked for the graph
  const itself = new RegExp(`/tasker/tasks/${made}$`);
  await page.route('**/diagram?*', (route) => route.abort());
  await go(page, base, `/tasks/${made}`);
  await appears(page.locator('.graph .note', { hasText: 'There is no picture of it' }), 'Without its graph a task says so');
  await appears(page.locator('#live[data-state="live"]'), 'A task is live');
  await stopAgent('SIGKILL');
  await appears(page.locator('#live[data-state="waiting"]'), 'Without an agent it says so');
  await work('outside', completes({}));
  // The first answer that it has may be that it has no database yet.
  await page.unroute('**/diagram?*');
  await page.route(itself, (route) => route.fulfill({ status: 503, contentType: 'application/problem+json', body: '{"title": "Not yet"}' }), { times: 1 });
  await startAgent('--listen', `127.0.0.1:${port}`);
  await becomes(page, 'and when there is one again shows what happened meanwhile', () => document.querySelector('table.steps .state.complete'));
  await becomes(page, 'in the graph, too', () => document.querySelector('.stage .node.complete'));
  is(await page.locator('.lost').count(), 0, 'and no trouble is left');
  noComplaints('But for the lost connection nothing was complained of', (text) => /ERR_|Failed to load|network/.test(text));
  await sql(`SELECT tasker.cancel_task(${made})`);
  await page.context().close();
}

// -- where there are no events to be had
{
  const page = await open('desktop', 'light');
  await page.route('**/tasker/events*', (route) => route.fulfill({ status: 501, contentType: 'application/problem+json', body: '{}' }));
  await page.route('**/assets/chart.js', (route) => route.fulfill({ status: 404, body: '' }));
  await go(page, base, '/tasks');
  await appears(page.locator('#live[data-state="polling"]'), 'Without the stream the page asks again and again');
  const task = await create('greet');
  await appears(page.locator(`tr[data-key="${task}"]`), 'and shows what is new');
  await go(page, base, '/health');
  await appears(page.locator('details[open] table', { hasText: 'In progress' }).or(page.locator('details[open] table')), 'Without the library of charts there are tables');
  await page.context().close();
  complaints.length = 0;
}

// -- by keyboard alone
{
  const page = await open('desktop', 'light', { reducedMotion: 'reduce' });
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
  await go(page, base, '/tasks');
  await page.locator('tr[data-key]').first().waitFor();
  await page.keyboard.press('Tab');
  is(await focused(), 'Skip to content', 'The first stop skips to the content');
  await page.keyboard.press('Enter');
  is(await page.evaluate(() => document.activeElement.id), 'main', 'and does');
  const stops = [];
  for (let i = 0; i < 40 && !/#\d/.test(stops.at(-1) ?? ''); i++) {
    await page.keyboard.press('Tab');
    stops.push(await focused());
  }
  ok(/#\d/.test(stops.at(-1)), 'A task can be reached', stops.join(', '));
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  is(outline, 'solid', 'and one sees where one is');
  await go(page, base, `/tasks/${finished}`);
  await page.locator('table.steps a').first().focus();
  await page.keyboard.press('Enter');
  await becomes(page, 'A step opens, and has the focus', () => document.activeElement.id === 'step-title');
  await page.keyboard.press('Tab');
  for (let i = 0; i < 10 && (await focused()) !== 'Close'; i++) await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await becomes(page, 'closed, it gives it back to where it came from', () => document.activeElement.closest('table.steps') !== null);
  await page.locator('#task-actions button').first().focus();
  await page.keyboard.press('Enter');
  await appears(page.locator('dialog[open]'), 'An action asks');
  await page.keyboard.press('Escape');
  await becomes(page, 'and is left by Escape', () => !document.querySelector('dialog'));
  await page.locator('header nav a', { hasText: 'Health' }).focus();
  await page.keyboard.press('Enter');
  await becomes(page, 'A new page has the focus on its title', () => document.activeElement.tagName === 'H1' && document.activeElement.textContent === 'Health');
  await becomes(page, 'and is said', () => document.getElementById('say').textContent === 'Health' && document.title.startsWith('Health'));
  is(await page.evaluate(() => {
    const row = document.createElement('tr');
    row.className = 'new';
    row.append(document.createElement('td'));
    document.body.append(row);
    return getComputedStyle(row.firstChild).animationName;
  }), 'none', 'Nothing moves for those who want less of it');
  await page.context().close();
}

// -- the theme
{
  const page = await open('desktop', 'dark');
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await go(page, base, '/tasks');
  const dark = await ground();
  await page.locator('#theme').click();
  const light = await ground();
  ok(dark !== light, 'The theme is that of the system until another is chosen');
  await page.reload();
  await page.locator('main h1').waitFor();
  is(await ground(), light, 'which stays');
  await page.context().close();
}

// -- every page, by size and theme
const broken = await create('place_order', { order_id: 20 });
await work('outside', completes({ reserved: true }));
await work('outside', fails('The card was declined'));
const running = await create('place_order', { order_id: 21 });
await work('outside', completes({ reserved: true }));
await work('outside', completes({ charged: 49.9, currency: 'EUR' }));
await work('outside', begins);
const step = BigInt(broken) * 16384n + 2n;
const PAGES = {
  tasks: '/tasks', task: `/tasks/${running}`, step: `/tasks/${broken}?step=${step}`, templates: '/templates',
  template: '/templates/shop/place_order', workers: '/workers', health: '/health', events: '/events', missing: '/nothing',
};
// Those that doc/pages.md shows (make screenshots).
const PICTURES = ['tasks-desktop', 'task-desktop', 'step-phone', 'template-desktop', 'health-desktop'];
const pictures = process.env.SCREENSHOTS;
if (pictures) mkdirSync(pictures, { recursive: true });
// Charts with something in them.
async function drawSomething(page) {
  const samples = () => page.evaluate(() => JSON.parse(sessionStorage.getItem('tasker.samples') ?? '[]').length);

  for (let round = 1; (await samples()) < 15; round++) {
    await sql(`SELECT count(tasker.create_task('greet', namespace => 'shop')) FROM generate_series(1, ${10 + (round * 7) % 23})`);
    await sql('SELECT pg_sleep(1)');
  }
}

for (const [size, theme] of [['desktop', 'light'], ['phone', 'dark']]) {
  const page = await open(size, theme);
  for (const [name, hash] of Object.entries(PAGES)) {
    await go(page, base, hash);
    if (name === 'task' || name === 'step' || name === 'template') await page.locator('.stage .node').first().waitFor();
    if (name === 'step') await page.locator('#step-title').waitFor();
    if (name === 'health') await page.locator('.chart canvas').first().waitFor();
    if (name === 'health' && pictures && size === 'desktop') await drawSomething(page);
    if (name === 'events') {
      await page.locator('#live[data-state="live"]').waitFor();
      await create('greet');
      await page.locator('.stream li').first().waitFor();
    }
    is(await axeFindings(page), [], `axe finds nothing serious: ${name}, ${size}, ${theme}`);
    ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `nothing is wider than the window: ${name}, ${size}, ${theme}`);
    if (pictures && PICTURES.includes(`${name}-${size}`)) {
      await page.setViewportSize({ ...SIZES[size], height: 1100 });
      await page.screenshot({ path: `${pictures}/${name}-${size}.png` });
      await page.setViewportSize(SIZES[size]);
    }
  }
  await page.context().close();
}
noComplaints('Nothing was complained of on any page');
is(await stopAgent('SIGTERM'), 0, 'The agent ends well');

// -- a server that wants a token
{
  const secured = await startAgent('--listen', '127.0.0.1:0', '--auth', 'on');
  const token = await sql("SELECT tasker.create_token(current_user, 'pages')");
  const page = await open('phone', 'light');
  await page.goto(`${secured}#/tasks`);
  await appears(page.locator('dialog', { hasText: 'Sign in' }), 'Without a token one is asked for');
  is(await axeFindings(page), [], 'in a dialog that axe finds nothing serious in');
  await page.getByLabel('Token').fill('tsk_wrong');
  await page.locator('dialog button').click();
  await appears(page.locator('dialog [role="alert"]'), 'A wrong one is refused');
  await page.getByLabel('Token').fill(token);
  await page.locator('dialog button').click();
  await appears(page.locator('tr[data-key]'), 'with the right one there are the tasks');
  await appears(page.locator('#live[data-state="live"]'), 'and the stream');
  ok(await page.evaluate(() => localStorage.getItem('tasker.token') === null && document.cookie === ''), 'It is kept for this tab only');
  await page.locator('#sign-out').click();
  await appears(page.locator('dialog', { hasText: 'Sign in' }), 'One signs out');

  // A role that may look at one namespace.
  await sql(`SELECT tasker.register_task('{"name": "hidden", "namespace_name": "bank", "step_templates": [{"name": "only", "handler_class": "quick"}]}')`);
  await sql('CREATE ROLE clerk');
  await sql("SELECT tasker.grant('clerk', '{viewer}', 'shop')");
  const clerk = await sql("SELECT tasker.create_token('clerk')");
  await sql('SELECT tasker.enforce_access()');
  await page.getByLabel('Token').fill(clerk);
  await page.locator('dialog button').click();
  await appears(page.locator('#live[data-state="live"]'), 'A role that may only look is let in');
  const hidden = await sql("SELECT tasker.create_task('hidden', namespace => 'bank')");
  await sql(`SELECT tasker.wait_for_task(${hidden})`);
  const shown = await create('greet');
  await appears(page.locator(`tr[data-key="${shown}"] .state.complete`), 'and sees what happens in its namespace');
  ok(!(await page.content()).includes('hidden #'), 'but nothing of another');
  await go(page, secured, `/tasks/${running}`);
  await appears(page.locator('.stage .node').or(page.locator('.graph .note')), 'It may look at a task');
  is(await page.locator('#task-actions button').count(), 0, 'but is offered nothing to do with it');
  await go(page, secured, `/tasks/${hidden}`);
  await appears(page.locator('.notice.bad'), 'One of another namespace is not there');
  await go(page, secured, '/templates/shop/greet');
  await appears(page.getByText('You may not create tasks'), 'and it is offered no form to start one');
  noComplaints('Only refusals were complained of', isRefusal);
  await page.context().close();
  is(await stopAgent('SIGTERM'), 0, 'and the agent ends well');
}

await browser.close();
console.log('done');
process.exit(0);
