import { randomUUID } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { PgflowSqlClient } from "@pgflow/core";
import { compileFlow, Flow } from "@pgflow/dsl";
import postgres from "postgres";
import { called, cannot, chainSteps, fanSteps, inBatches, note, pool, range, run } from "./peer.mjs";

const workload = process.argv[2];
const ok = { ok: true };

const respond = (answer) => (input) => {
  called(input?.run?.n);
  return answer;
};

const flows = {
  one: () => new Flow({ slug: "one" }).step({ slug: "a" }, respond(ok)),
  diamond: () =>
    new Flow({ slug: "diamond" })
      .step({ slug: "a" }, respond(ok))
      .step({ slug: "b", dependsOn: ["a"] }, respond(ok))
      .step({ slug: "c", dependsOn: ["a"] }, respond(ok))
      .step({ slug: "d", dependsOn: ["b", "c"] }, respond(ok)),
  chain: () =>
    range(1, chainSteps).reduce(
      (flow, i) => flow.step({ slug: `s${i}`, dependsOn: [`s${i - 1}`] }, respond(ok)),
      new Flow({ slug: "chain" }).step({ slug: "s0" }, respond(ok)),
    ),
  fan: () =>
    new Flow({ slug: "fan" })
      .array({ slug: "first" }, respond(range(0, fanSteps)))
      .map({ slug: "middle", array: "first" }, respond(ok))
      .step({ slug: "last", dependsOn: ["middle"] }, respond(ok)),
  latency: () => flows.one(),
};
const flow = flows[workload]();
const lastStep = flow.stepOrder.at(-1);

// The batch is its edge worker's own: start_tasks takes time with the square of it.
const readers = workload === "chain" || workload === "latency" ? 1 : 4;
const batchSize = 10;
const sql = pool(8);
const host = process.env.PGHOST;
const connection = postgres({ host, port: Number(process.env.PGPORT), max: 20 + readers, onnotice() {} });
const client = new PgflowSqlClient(connection);
const waiting = new Map();
let working = true;

// pgmq is not on npm: an installed extension or, given by path, its SQL file.
async function installQueue() {
  const file = process.env.BENCH_PGMQ_SQL;
  if (file) return sql.query(await readFile(file, "utf8"));
  const { rows } = await sql.query("select from pg_available_extensions where name = 'pgmq'");
  if (rows.length === 0) await cannot("pgflow's SQL needs pgmq, which no npm or Debian package carries (BENCH_PGMQ_SQL may name its SQL file)");
  await sql.query("create extension pgmq");
}

async function installSchema() {
  // Supabase's own function for live updates to browsers.
  await sql.query(`create schema realtime;
    create function realtime.send(jsonb, text, text, boolean) returns void language sql return null`);
  const migrations = new URL("supabase/migrations/", import.meta.resolve("@pgflow/core"));
  for (const name of (await readdir(migrations)).filter((name) => name.endsWith(".sql")).sort()) {
    const migration = await readFile(new URL(name, migrations), "utf8");
    await sql.query(migration.replace(/^CREATE EXTENSION .*$/m, ""));
  }
  for (const statement of compileFlow(flow)) await sql.query(statement);
}

// The loop of its edge worker, which is written for Deno and not on npm: read messages, start their tasks, complete each.
async function work(workerId) {
  while (working) {
    const messages = await client.readMessages(flow.slug, 60, batchSize, 1, 10);
    if (messages.length === 0) continue;
    const tasks = await client.startTasks(flow.slug, messages.map((message) => message.msg_id), workerId);
    await Promise.all(tasks.map(complete));
  }
}

async function complete(task) {
  await client.completeTask(task, await flow.getStepDefinition(task.step_slug).handler(task.input));
  if (task.step_slug === lastStep) waiting.get(task.run_id)?.();
}

await run({
  steps: workload === "diamond" ? 4 : 1,

  async install() {
    await installQueue();
    await installSchema();
    await note(
      `its edge worker's loop over its own SQL functions, in Node: ${readers} reader(s) of ${batchSize} messages polling at 10 ms, 20 connections; realtime.send is an empty function`,
    );
  },

  create: (n) =>
    inBatches(
      n,
      (from, to) =>
        sql.query("select pgflow.start_flow($1, jsonb_build_object('n', i)) from generate_series($2::int, $3::int) i", [
          flow.slug,
          from,
          to - 1,
        ]),
      { size: 250 },
    ),

  async start() {
    for (let i = 0; i < readers; i++) {
      const id = randomUUID();
      await sql.query("insert into pgflow.workers (worker_id, queue_name, function_name) values ($1, $2, 'bench')", [id, flow.slug]);
      work(id);
    }
  },

  async stop() {
    working = false;
  },

  async runOne() {
    const { promise, resolve } = Promise.withResolvers();
    const runId = randomUUID();
    waiting.set(runId, resolve);
    await client.startFlow(flow.slug, {}, runId);
    await promise;
    waiting.delete(runId);
  },

  createIn: (connection, n) => connection.query("select pgflow.start_flow($1, jsonb_build_object('n', $2::int))", [flow.slug, n]),

  unfinished: async () =>
    (await sql.query("select count(*)::int as n from pgflow.runs where status <> 'completed'")).rows[0].n,
});
