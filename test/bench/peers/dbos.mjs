import { DBOS, DBOSClient } from "@dbos-inc/dbos-sdk";
import { arrivalOf, called, chainSteps, connectionString, fanSteps, inBatches, inTransaction, note, pool, range, run } from "./peer.mjs";

const workload = process.argv[2];
const queue = "bench";
const application = { name: "bench", applicationVersion: "1" };
const ok = { ok: true };

const step = (name) =>
  DBOS.runStep(
    async () => {
      called();
      return ok;
    },
    { name },
  );

const workflows = {
  // The cheapest form of one durable unit: the workflow itself, with no step inside.
  async one({ n }) {
    called(n);
    return ok;
  },
  async diamond() {
    await step("a");
    await Promise.all([step("b"), step("c")]);
    return step("d");
  },
  async chain() {
    for (let i = 0; i < chainSteps; i++) await step("link");
  },
  async fan() {
    await step("first");
    await Promise.all(range(0, fanSteps).map(() => step("middle")));
    await step("last");
  },
};
for (const [name, workflow] of Object.entries(workflows)) workflows[name] = DBOS.registerWorkflow(workflow, { name });

const sql = pool(8);
let client;

const enqueue = (connection, name, n) =>
  client.enqueueInTransaction(connection, { queueName: queue, workflowName: name, appVersion: "1" }, { n });

await run({
  steps: workload === "diamond" ? 4 : 1,

  async install() {
    const url = connectionString();
    DBOS.setConfig({ ...application, systemDatabaseUrl: url, systemDatabasePoolSize: 20, logLevel: "error" });
    await DBOS.migrate(url);
    client = await DBOSClient.create({ systemDatabaseUrl: url, applicationName: application.name });
    await client.registerQueue(queue, { minPollingIntervalMs: 10, workerConcurrency: 100, applicationName: application.name });
    if (workload === "chain" || workload === "fan") await note("workflows started directly in the process, pool 20");
    else await note("queue polled at 10 ms, workerConcurrency 100, pool 20; created by enqueueInTransaction");
    if (workload === "one" || workload === "latency") await note("a task is a workflow with no step inside");
    else await note("steps inside one workflow, run in the process that runs the workflow; no hand-out between them");
  },

  create: (n) =>
    inBatches(
      n,
      (from, to) =>
        inTransaction(sql, async (connection) => {
          for (let i = from; i < to; i++) await enqueue(connection, workload, i);
        }),
      { size: 250, connections: 8 },
    ),

  start: () => DBOS.launch(),

  async stop() {
    await DBOS.shutdown();
    await client.destroy();
  },

  async runOne() {
    const handle = await DBOS.startWorkflow(workflows[workload])();
    await handle.getResult();
  },

  createIn: (connection, n) => enqueue(connection, "one", n),

  // Without the queue, for who runs the workflow where it is made.
  async afterwards() {
    const times = [];
    for (const n of range(1e6, 1e6 + 100)) {
      const arrival = arrivalOf(n);
      const asked = performance.now();
      await (await DBOS.startWorkflow(workflows.one)({ n })).getResult();
      times.push((await arrival) - asked);
    }
    await note(`started directly in the process, with no queue: p50 ${times.sort((a, b) => a - b)[50].toFixed(2)} ms from the call to the handler`);
  },

  unfinished: async () =>
    (await sql.query("select count(*)::int as n from dbos.workflow_status where status <> 'SUCCESS'")).rows[0].n,
});
