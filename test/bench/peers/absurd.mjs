import { readFile } from "node:fs/promises";
import { Absurd } from "absurd-sdk";
import { called, cannot, chainSteps, fanSteps, inBatches, note, pool, range, run } from "./peer.mjs";

const workload = process.argv[2];
const task = workload === "latency" ? "one" : workload;
const queue = "bench";
const ok = { ok: true };
const sql = pool(20);
const finished = new Map();

function finish(id) {
  if (!finished.has(id)) finished.set(id, Promise.withResolvers());
  return finished.get(id);
}

const absurd = new Absurd({
  db: sql,
  queueName: queue,
  hooks: {
    async wrapTaskExecution(context, execute) {
      await execute();
      if (workload === "chain" || workload === "fan") finish(context.taskID).resolve();
    },
  },
});

const step = (context, name) =>
  context.step(name, async () => {
    called();
    return ok;
  });

const tasks = {
  // The cheapest form of one durable unit: the task itself, with no step inside.
  async one({ n }) {
    called(n);
    return ok;
  },
  async diamond(_, context) {
    await step(context, "a");
    await Promise.all([step(context, "b"), step(context, "c")]);
    return step(context, "d");
  },
  async chain(_, context) {
    for (const i of range(0, chainSteps)) await step(context, `s${i}`);
  },
  async fan(_, context) {
    await step(context, "first");
    await Promise.all(range(0, fanSteps).map((i) => step(context, `m${i}`)));
    await step(context, "last");
  },
};

let worker;

await run({
  steps: workload === "diamond" ? 4 : 1,

  async install() {
    // The npm package holds the client only; absurdctl, which installs the schema, is a Python package.
    const file = process.env.BENCH_ABSURD_SQL;
    if (!file) await cannot("its absurd.sql is in no npm or Debian package (BENCH_ABSURD_SQL may name it)");
    await sql.query(await readFile(file, "utf8"));
    await absurd.createQueue();
    for (const [name, handler] of Object.entries(tasks)) absurd.registerTask({ name }, handler);
    await note("claims in batches of 50, concurrency 50, polled at 10 ms, pool 20");
    if (task === "one") await note("a task has no step inside");
    else await note("steps inside one task, run in the process that claimed it; no hand-out between them");
  },

  create: (n) =>
    inBatches(n, (from, to) =>
      sql.query(
        "select absurd.spawn_task($1, $2, jsonb_build_object('n', i)) from generate_series($3::int, $4::int) i",
        [queue, task, from, to - 1],
      ),
    ),

  async start() {
    worker = await absurd.startWorker({ concurrency: 50, batchSize: 50, pollInterval: 0.01 });
  },

  stop: () => worker.close(),

  async runOne() {
    const { taskID } = await absurd.spawn(task, {});
    await finish(taskID).promise;
    finished.delete(taskID);
  },

  createIn: (client, n) => absurd.bindToConnection(client).spawn(task, { n }),

  unfinished: async () =>
    (await sql.query(`select count(*)::int as n from absurd.t_${queue} where state <> 'completed'`)).rows[0].n,
});
