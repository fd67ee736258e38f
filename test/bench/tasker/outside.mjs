// Workers outside in Node: claim, do nothing, complete; README.md has the protocol.
// pg comes from where the peers have theirs.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const pg = createRequire(new URL('../peers/', import.meta.url))('pg');
const TASKS = Number(process.env.BENCH_N ?? 1000);
const WORKERS = Number(process.env.BENCH_CONNECTIONS ?? 2);
const CREATE_BATCH = 1000;
const CLAIM_BATCH = 500;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (line) => new Promise((resolve) => process.stdout.write(`${line}\n`, resolve));

async function mark(name) {
  await say(`mark ${name}`);
  if ((await answers.next()).done) throw new Error('the harness is gone');
}

// Runs the work with a connection of its own.  A session reports its counters
// when it ends.
async function connected(work) {
  const db = new pg.Client();
  await db.connect();
  try {
    return await work(db);
  } finally {
    await db.end();
  }
}

async function create(db) {
  for (let n = 1; n <= TASKS; n += CREATE_BATCH) {
    const contexts = Array.from({ length: Math.min(CREATE_BATCH, TASKS - n + 1) }, (_, i) => JSON.stringify({ n: n + i }));
    await db.query("SELECT max(id) FROM tasker.create_tasks('outside', $1::jsonb[]) AS id", [contexts]);
  }
}

const handler = async () => ({ ok: true });

let completed = 0;

async function work(db, name) {
  while (completed < TASKS) {
    const { rows: steps } = await db.query({
      name: 'claim',
      text: "SELECT step_id, context FROM tasker.claim_steps($1, ARRAY['outside'], max_steps => $2)",
      values: [name, CLAIM_BATCH],
    });
    if (steps.length === 0) {
      await sleep(1);
      continue;
    }
    const results = await Promise.all(steps.map(handler));
    const { rows: [taken] } = await db.query({
      name: 'complete',
      text: 'SELECT count(*)::integer AS count FROM tasker.complete_steps($1, $2::jsonb[], worker => $3)',
      values: [steps.map((step) => step.step_id), results.map((result) => JSON.stringify(result)), name],
    });
    completed += taken.count;
  }
}

async function check(db) {
  const { rows: [tasks] } = await db.query("SELECT count(*)::integer AS count FROM tasker.tasks WHERE state = 'complete'");
  if (tasks.count !== TASKS) throw new Error(`${tasks.count} tasks are complete`);
  const { rows: [problem] } = await db.query('SELECT * FROM tasker.verify()');
  if (problem) throw new Error(`verify(): ${JSON.stringify(problem)}`);
}

await connected(async (db) => {
  await db.query(readFileSync(new URL('setup.sql', import.meta.url), 'utf8'));
  await db.query('SELECT tasker.deactivate()');
});
await mark('create');
await connected(create);
await mark('created');
const clients = await Promise.all(Array.from({ length: WORKERS }, async () => {
  const db = new pg.Client();
  await db.connect();
  return db;
}));
await mark('run');
const before = process.cpuUsage();
await clients[0].query('SELECT tasker.activate()');
await Promise.all(clients.map((db, i) => work(db, `node/${i}`)));
const { user, system } = process.cpuUsage(before);
await Promise.all(clients.map((db) => db.end()));
await mark('ran');
await say(`value client_cpu_us ${user + system}`);
await say(`note ${WORKERS} connections in one Node process, claims of up to ${CLAIM_BATCH} steps`);
await connected(check);
await say('done');
process.exit(0);
