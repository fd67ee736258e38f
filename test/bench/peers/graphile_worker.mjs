import { Logger, makeWorkerUtils, run as startWorker } from "graphile-worker";
import { called, callsFromNow, cannot, chainSteps, fanSteps, inBatches, note, pool, range, run } from "./peer.mjs";

const pgPool = pool(26);
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

// After its performance page; it does a single job's latency no harm.
const preset = {
  worker: { logger, concurrentJobs: 24, localQueue: { size: 1000 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
};

let utils, runner;

const tasks = {
  step({ n }) {
    called(n);
  },
  async link({ left }, { addJob }) {
    called();
    if (left > 1) await addJob("link", { left: left - 1 });
  },
  async split(_, { addJobs }) {
    called();
    await addJobs(range(0, fanSteps).map((n) => ({ identifier: "step", payload: { n } })));
  },
};

await run({
  steps: 1,

  async install(workload) {
    if (workload === "diamond") await cannot("no joins");
    if (workload === "fan") await note("no join: 1 to 500, without the last step; the handler of the first adds the jobs of the others");
    if (workload === "chain") await note("emulated: each handler adds the next job");
    await note("concurrentJobs 24, localQueue 1000, completeJobBatchDelay 0, LISTEN; deletes what is done, keeps no result");
    utils = await makeWorkerUtils({ pgPool, preset });
    await utils.migrate();
  },

  create: (n) =>
    inBatches(n, (from, to) =>
      utils.addJobs(range(from, to).map((n) => ({ identifier: "step", payload: { n } }))),
    ),

  async start() {
    runner = await startWorker({ pgPool, preset, taskList: tasks, noHandleSignals: true });
  },

  async stop() {
    await runner.stop();
    await utils.release();
  },

  async runOne() {
    const chain = process.argv[2] === "chain";
    const complete = callsFromNow(chain ? chainSteps : 1 + fanSteps);
    await utils.addJob(chain ? "link" : "split", { left: chainSteps });
    await complete;
  },

  createIn: (client, n) =>
    client.query("select graphile_worker.add_job('step', json_build_object('n', $1::int))", [n]),

  unfinished: async () =>
    (await pgPool.query("select count(*)::int as n from graphile_worker._private_jobs")).rows[0].n,
});
