// Reading YAML: tasker.yaml_to_jsonb() within one SQL statement, beside npm's yaml
// and js-yaml in threads of this process, on the same texts, in turns; README.md has
// the protocol.  The packages come from where the peers have theirs.
import { deepStrictEqual } from 'node:assert';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';

const peer = createRequire(new URL('../peers/', import.meta.url));
const pg = peer('pg');
const PACKAGES = ['yaml', 'js-yaml'];
const ROUNDS = Number(process.env.BENCH_K ?? 5);
const ROUND_MS = 300;
const WARM_UP_MS = 1000;

const say = (line) => new Promise((resolve) => process.stdout.write(`${line}\n`, resolve));

const step = (i) => `  - name: step_${i}
    description: "Step number ${i}: takes what step ${i >> 1} has left, and goes on"
    handler_class: Bench::Handler${i}
    depends_on_steps: [${i === 0 ? '' : `step_${i >> 1}`}]
    retry: *retry
    timeout: ${i} s
    handler_config:
      type: bench
      url: https://example.com/steps/${i}?full=yes
      params: {page: ${i}, share: 0.${i}, debug: false, note: null}
      # for whom it may concern
      text: |
        The first line of ${i},
        and the second one.
`;

// A definition with what people put into definitions.
const definition = (steps) => `name: bench/definition
version: 1.0.0
x-retry: &retry
  limit: 5
  base_delay: 2 s
schema:
  type: object
  required: [cart_id]
  properties:
    cart_id: {type: integer, minimum: 1}
step_templates:
${Array.from({ length: steps }, (_, i) => step(i)).join('')}`;

const TEXTS = {
  order: readFileSync(new URL('order.yaml', import.meta.url), 'utf8'),
  steps_200: definition(200),
  kb_500: definition(1088),
};

const db = new pg.Client();
await db.connect();
await db.query('CREATE EXTENSION tasker');
const threads = Object.fromEntries(PACKAGES.map((name) =>
  [name, new Worker(new URL('yaml_thread.mjs', import.meta.url), { workerData: name })]));

async function ask(name, message) {
  threads[name].postMessage(message);
  return (await once(threads[name], 'message'))[0];
}

// Milliseconds for so many times.  The planner must not see a constant, or it
// would be read only once.
async function inServer(text, times) {
  const from = performance.now();
  await db.query({
    name: 'read',
    text: `WITH source AS MATERIALIZED (SELECT $1::text AS yaml)
           SELECT count(tasker.yaml_to_jsonb(s.yaml)) FROM source AS s CROSS JOIN generate_series(1, $2)`,
    values: [text, times],
  });
  return performance.now() - from;
}

const inThread = (name) => async (text, times) => (await ask(name, { text, times })).ms;

const readers = { tasker: inServer, ...Object.fromEntries(PACKAGES.map((name) => [name, inThread(name)])) };

// How often it reads the text in a round; by then it is compiled.
async function warmUp(read, text) {
  let times = 1;
  let last;
  for (let spent = 0; spent < WARM_UP_MS; spent += last) {
    last = await read(text, times);
    times = Math.max(1, Math.round(times * ROUND_MS / last));
  }
  return times;
}

for (const [name, text] of Object.entries(TEXTS)) {
  const { rows: [{ value }] } = await db.query('SELECT tasker.yaml_to_jsonb($1) AS value', [text]);
  for (const who of PACKAGES) deepStrictEqual(value, (await ask(who, { text, times: 1, wantsValue: true })).value);
  const times = {};
  for (const [who, read] of Object.entries(readers)) times[who] = await warmUp(read, text);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [who, read] of Object.entries(readers)) {
      await say(`value ${who}.${name} ${(times[who] * 1000 / (await read(text, times[who]))).toFixed(3)}`);
    }
  }
  await say(`note ${name}: ${Buffer.byteLength(text).toLocaleString('en')} bytes`);
}
await say(`note beside yaml ${peer('yaml/package.json').version} and js-yaml ${peer('js-yaml/package.json').version}`);
await db.end();
await Promise.all(Object.values(threads).map((thread) => thread.terminate()));
await say('done');
