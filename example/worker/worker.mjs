// A worker for tasker in Node.  README.md says how to run it.
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

// The work: a function for each handler, called with a tasker.step_context.
// What it returns is the step's result; what it throws fails the attempt, and
// permanent: true in it forbids another one.
const handlers = {
  count_words: async ({ context }) => ({ count: textOf(context).split(/\s+/).filter(Boolean).length }),
  count_bytes: async ({ context }) => ({ count: Buffer.byteLength(textOf(context)) }),
};

function textOf(context) {
  if (typeof context.text === 'string') return context.text;
  throw Object.assign(new Error('the context has no text'), { permanent: true });
}

const LEASE = Number(process.env.WORKER_LEASE ?? 30); // seconds
const BOUND = process.env.WORKER_BOUND === 'yes'; // leases end with the connection
const LISTEN = process.env.WORKER_LISTEN !== 'no'; // 'no' behind a pooler of transactions
const BATCH = 100;
const POLL = 5000; // milliseconds; for the doorbell that was missed
const worker = `${hostname()}/node/${process.pid}`;

let stopping = false;
let wake = () => {};
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => { stopping = true; wake(); });

// Claims a batch for one handler, works on it, hands it in; returns its size.
async function workOnBatch(db, handler) {
  const { rows: steps } = await db.query(
    `SELECT * FROM tasker.claim_steps($1, ARRAY[$2], max_steps => $3,
       lease => make_interval(secs => $4), bound_to_session => $5)`,
    [worker, handler, BATCH, LEASE, BOUND]);
  if (steps.length === 0) return 0;

  // Ids are bigint, which pg gives as strings.
  let held = new Set(steps.map((step) => step.step_id));
  const beat = setInterval(() => {
    db.query('SELECT heartbeat AS id FROM tasker.heartbeat($1, $2, make_interval(secs => $3))', [worker, [...held], LEASE])
      .then(({ rows }) => { held = new Set(rows.map((row) => row.id)); })
      .catch(() => {}); // a lost connection shows when the batch is handed in
  }, LEASE * 1000 / 3);
  const done = [], failed = [], failedForGood = [];
  try {
    await Promise.all(steps.map(async (step) => {
      try {
        const result = await handlers[handler](step);
        done.push([step.step_id, { ...result, worker, attempt: step.attempt }]);
      } catch (error) {
        (error.permanent ? failedForGood : failed).push([step.step_id, { message: error.message, context: error.stack }]);
      }
    }));
  } finally {
    clearInterval(beat);
  }
  await handIn(db, 'tasker.complete_steps($1, $2::jsonb[], worker => $3)', done, held);
  await handIn(db, 'tasker.fail_steps($1, $2::jsonb[], worker => $3)', failed, held);
  await handIn(db, 'tasker.fail_steps($1, $2::jsonb[], retryable => false, worker => $3)', failedForGood, held);
  return steps.length;
}

// Whatever lost its lease is somebody else's by now: the server leaves it out.
async function handIn(db, call, reports, held) {
  const kept = reports.filter(([id]) => held.has(id));
  if (kept.length === 0) return;
  await db.query(`SELECT ${call}`, [kept.map(([id]) => id), kept.map(([, report]) => JSON.stringify(report)), worker]);
}

// Works over one connection until that fails, or the worker is to stop.
async function work(db) {
  let rung = false;
  db.on('notification', () => { rung = true; wake(); });
  db.on('error', () => wake()); // the next query says what happened
  if (LISTEN) await db.query('LISTEN tasker_steps');
  while (!stopping) {
    let found = 0;
    rung = false;
    for (const handler of Object.keys(handlers)) if (!stopping) found += await workOnBatch(db, handler);
    if (found > 0 || rung || stopping) continue;
    await new Promise((resolve) => { wake = resolve; setTimeout(resolve, POLL).unref(); });
  }
}

for (let delay = 100; !stopping; delay = Math.min(delay * 2, 30000)) {
  const db = new pg.Client(process.env.DATABASE_URL); // or PGHOST, PGDATABASE, ...
  try {
    await db.connect();
    delay = 100;
    await work(db);
  } catch (error) {
    console.error(`${worker}: ${error.message}; again in ${delay} ms`);
    await Promise.race([sleep(delay), new Promise((resolve) => { wake = resolve; })]);
  }
  await db.end().catch(() => {});
}
