// What the adapters share: the protocol with the harness, and each workload's course.
// An adapter describes its engine to run() with these functions (all may be async):
//
//   install(workload)  schema, queues, pools, registration: what is not measured
//   create(n)          one, diamond: makes n tasks, in batches
//   start(), stop()    the workers
//   unfinished()       how many tasks the engine's own tables don't show as done
//   runOne()           chain, fan: makes one graph and resolves when it is complete
//   createIn(client, n)  latency: makes task n in the client's open transaction
//   afterwards()       latency: what else a note should say (optional)
//   steps              how many handler calls a task of one or diamond means
//
// Its handlers call called(n), with the n of the payload, on their first line.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

export const chainSteps = 50;
export const fanSteps = 500;

// Stdout belongs to the protocol.
console.log = console.info = console.debug = console.error;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function say(line) {
  return new Promise((resolve) => process.stdout.write(line + "\n", resolve));
}

async function mark(name) {
  await say(`mark ${name}`);
  if ((await lines.next()).done) throw new Error("the harness has gone");
}

export const note = (text) => say(`note ${text}`);

const value = (key, number) => say(`value ${key} ${number}`);

// Ends this process in the way that leaves the table's cell to the reason.
export async function cannot(reason) {
  await note(reason);
  process.exit(3);
}

export const pool = (max) =>
  new pg.Pool({ max }).on("error", console.error).on("connect", (client) => client.on("error", console.error));

// Not every engine reads libpq's environment by itself.
export const connectionString = () => {
  const { PGUSER, PGHOST, PGPORT, PGDATABASE } = process.env;
  return `postgresql://${PGUSER}@localhost:${PGPORT}/${PGDATABASE}?host=${encodeURIComponent(PGHOST)}`;
};

export const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);

// Calls make(from, to) for n tasks in batches, on several connections at once.
export async function inBatches(n, make, { size = 1000, connections = 4 } = {}) {
  let next = 0;
  const connection = async () => {
    while (next < n) {
      const from = next;
      next = Math.min(n, from + size);
      await make(from, next);
    }
  };
  await Promise.all(Array.from({ length: connections }, connection));
}

export async function inTransaction(from, work) {
  const client = await from.connect();
  await client.query("begin");
  await work(client);
  await client.query("commit");
  client.release();
}

let calls = 0;
let expected = { calls: Infinity, resolve() {} };
let arrived = () => {};

export function called(n) {
  arrived(n, performance.now());
  if (++calls >= expected.calls) expected.resolve();
}

// Resolves at the so many-th handler call from now on.
export function callsFromNow(count) {
  const { promise, resolve } = Promise.withResolvers();
  expected = { calls: calls + count, resolve };
  return promise;
}

async function measured(work) {
  await mark("run");
  const before = process.cpuUsage();
  await work();
  const used = process.cpuUsage(before);
  await mark("ran");
  await value("client_cpu_us", used.user + used.system);
}

async function untilFinished(engine, pause) {
  for (let tries = 0; (await engine.unfinished()) > 0; tries++) {
    // The last completions may still be under way in the engine; a minute is beyond doubt.
    if (tries * pause > 60_000) throw new Error(`${await engine.unfinished()} tasks are not complete`);
    await sleep(pause);
  }
}

const clients = pool(1);

async function throughput(engine, n) {
  await mark("create");
  await engine.create(n);
  await mark("created");
  // As autovacuum would have done on a table that did not fill within a second.
  await clients.query("analyze");
  await measured(async () => {
    const all = callsFromNow(n * engine.steps);
    await engine.start();
    await all;
    await untilFinished(engine, 10);
  });
}

async function oneByOne(engine, k) {
  await engine.start();
  await engine.runOne();
  await measured(async () => {
    for (let i = 0; i < k; i++) await engine.runOne();
  });
}

// When the handler's first line for task n is reached.
export function arrivalOf(n) {
  const { promise, resolve } = Promise.withResolvers();
  arrived = (which, when) => which === n && resolve(when);
  return promise;
}

async function latency(engine, k) {
  const client = await clients.connect();
  const measure = async (n) => {
    const arrival = arrivalOf(n);
    await client.query("begin");
    await engine.createIn(client, n);
    const sent = performance.now();
    const answered = client.query("commit").then(() => performance.now());
    const times = [(await arrival) - sent, (await answered) - sent];
    await sleep(Math.random() * 10);
    return times;
  };
  await engine.start();
  for (const n of range(-20, 0)) await measure(n);
  const times = [];
  await measured(async () => {
    for (const n of range(0, k)) times.push(await measure(n));
  });
  client.release();
  for (const [toHandler, toAnswer] of times) {
    await value("latency_ms", toHandler.toFixed(4));
    await value("commit_ms", toAnswer.toFixed(4));
  }
  await engine.afterwards?.();
}

export async function run(engine) {
  const workload = process.argv[2];
  const n = Number(process.env.BENCH_N ?? 1000);
  const k = Number(process.env.BENCH_K ?? 10);
  const course = { one: throughput, diamond: throughput, chain: oneByOne, fan: oneByOne, latency }[workload];
  if (!course) throw new Error(`no such workload: ${workload}`);
  await engine.install(workload);
  await course(engine, course === throughput ? n : k);
  await untilFinished(engine, 100);
  await engine.stop();
  await say("done");
  process.exit(0);
}
