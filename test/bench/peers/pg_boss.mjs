import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { PgBoss } from "pg-boss";
import { called, callsFromNow, chainSteps, connectionString, fanSteps, inBatches, note, pool, range, run } from "./peer.mjs";

const workload = process.argv[2];
const queue = "step";
const sql = pool(2);
const boss = new PgBoss({
  connectionString: connectionString(),
  max: 12,
  useListenNotify: true,
  flowIntervalSeconds: 1,
});
boss.on("error", console.error);

const graphs = workload === "diamond" || workload === "fan";
const settings = {
  one: { workers: 2, batchSize: 1000 },
  diamond: { workers: 2, batchSize: 500, perJobResults: true },
  fan: { workers: 2, batchSize: 500, perJobResults: true },
  chain: { workers: 1, batchSize: 1 },
  latency: { workers: 1, batchSize: 1 },
}[workload];
const workers = [];
let resolving = false;

// Children are released by a background pass, once a second at most by its settings. An application in a hurry
// may ask for the pass itself, and wake the workers when it released something.
boss.on("flow", () => workers.forEach((id) => boss.notifyWorker(id)));

async function resolveFlows() {
  resolving = true;
  while (resolving) {
    await boss.resolveFlow();
    await sleep(10);
  }
}

// A handler that wants its parents' results reads them: one query for a batch.
async function parentsResults(jobs) {
  const ids = jobs.flatMap((job) => job.data.parents ?? []);
  if (ids.length === 0) return;
  const { rows } = await sql.query("select id, output from pgboss.job where name = $1 and id = any($2::uuid[])", [queue, ids]);
  if (rows.length !== new Set(ids).size || rows.some((row) => !row.output.ok)) throw new Error("a parent's result is missing");
}

async function work(jobs) {
  if (graphs) await parentsResults(jobs);
  for (const { data } of jobs) {
    called(data.n);
    if (data.left > 1) await boss.send(queue, { left: data.left - 1 });
  }
  return graphs ? jobs.map(({ id }) => ({ id, status: "completed", output: { ok: true } })) : undefined;
}

const job = (id, parents = []) => ({
  ref: id,
  name: queue,
  data: { parents },
  dependsOn: parents,
  options: { id },
});

function diamond() {
  const [a, b, c, d] = range(0, 4).map(() => randomUUID());
  return [job(a), job(b, [a]), job(c, [a]), job(d, [b, c])];
}

function fan() {
  const first = randomUUID();
  const middle = range(0, fanSteps).map(() => randomUUID());
  return [job(first), ...middle.map((id) => job(id, [first])), job(randomUUID(), middle)];
}

await run({
  steps: workload === "diamond" ? 4 : 1,

  async install() {
    await note(
      `batchSize ${settings.batchSize}, workers ${settings.workers}, NOTIFY mode, burstWhenBatchFull, polling 0.5 s`,
    );
    if (workload === "one") await note("a batch is one unit: it is completed, or failed and retried, as a whole, and keeps no results");
    if (workload === "chain") await note("emulated: each handler sends the next job (its flows release children in a background pass)");
    if (graphs) await note("flow(), results a job; resolveFlow() called every 10 ms and workers woken by its event");
    await boss.start();
    await boss.createQueue(queue, { notify: true });
  },

  create: (n) =>
    workload === "one"
      ? inBatches(n, (from, to) => boss.insert(queue, range(from, to).map((n) => ({ data: { n } }))))
      : inBatches(n, (from, to) => boss.flow(range(from, to).flatMap(diamond)), { size: 250 }),

  async start() {
    const { workers: count, ...batches } = settings;
    const options = { pollingIntervalSeconds: 0.5, notifyPollingIntervalSeconds: 0.5, burstWhenBatchFull: true, ...batches };
    for (let i = 0; i < count; i++) workers.push(await boss.work(queue, options, work));
    if (graphs) resolveFlows();
  },

  async stop() {
    resolving = false;
    await boss.stop({ graceful: false });
  },

  async runOne() {
    const complete = callsFromNow(workload === "chain" ? chainSteps : fanSteps + 2);
    await (workload === "chain" ? boss.send(queue, { left: chainSteps }) : boss.flow(fan()));
    await complete;
  },

  createIn: (client, n) =>
    boss.send(queue, { n }, { db: { executeSql: (text, values) => client.query(text, values) } }),

  unfinished: async () =>
    (await sql.query("select count(*)::int as n from pgboss.job where name = $1 and state <> 'completed'", [queue])).rows[0].n,
});
