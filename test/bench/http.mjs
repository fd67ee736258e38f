#!/usr/bin/env node
// HTTP steps against a server that answers after a while: how long they take beside
// the ideal, and what memory the agent has.
//
//     node test/bench/http.mjs [STEPS [DELAY_MS [CONNECTIONS]]]
//
// The database is the one of libpq's environment, an empty one with the extension
// and running executors; tasker-agent and psql are those of PATH.
import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { promisify } from 'node:util';

const [steps = 2000, delay = 50, connections = 100] = process.argv.slice(2).map(Number);

// Never in the way of the server, which is in this process.
const run = promisify(execFile);
const psql = async (sql) => (await run('psql', ['-XqAt', '-v', 'ON_ERROR_STOP=1', '-c', sql])).stdout.trim();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const resident = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);

let requests = 0;
const server = createServer((request, response) => {
    requests++;
    setTimeout(() => {
        response.setHeader('Content-Type', 'application/json');
        response.end('{"ok": true}');
    }, delay);
});
server.keepAliveTimeout = 60_000;
await new Promise((resolve) => server.listen(0, '127.0.0.1', 1024, resolve));
const { port } = server.address();

await psql(`SET client_min_messages = error;
      SELECT tasker.register_task($y$
name: bench/http
step_templates:
  - {name: only, handler_config: {type: api, url: "http://127.0.0.1:${port}/x/\${context.id}"}}
$y$, replace => true)`);
const agent = spawn('tasker-agent', ['--roles', 'http', '--allow-hosts', `127.0.0.1:${port}`,
    '--max-requests', connections, '--max-requests-per-host', connections], { stdio: ['ignore', 'pipe', 'inherit'] });
await new Promise((resolve) => agent.stdout.once('data', resolve));

// Some first, so that connections, plans and caches are there.
const create = (count) => psql(`SELECT count(*) FROM tasker.create_tasks('bench/http',
    (SELECT array_agg(jsonb_build_object('id', n)) FROM generate_series(1, ${count}) AS n))`);
const open = () => psql("SELECT count(*) FROM tasker.tasks WHERE name = 'bench/http' AND finished_at IS NULL");
await create(connections);
while (await open() !== '0') await pause(200);

const since = await psql('SELECT clock_timestamp()');
const before = resident(agent.pid);
const samples = [];
requests = 0;
await create(steps);
while (await open() !== '0') {
    samples.push(resident(agent.pid));
    await pause(steps > 10_000 ? 2000 : 300);
}
const took = Number(await psql(`SELECT extract(epoch FROM max(finished_at) - min(created_at)) FROM tasker.tasks WHERE created_at >= '${since}'`));
const ideal = (steps / connections) * delay / 1000;
const failed = await psql(`SELECT count(*) FROM tasker.tasks WHERE created_at >= '${since}' AND state <> 'complete'`);
samples.push(resident(agent.pid));

console.log(`${steps} steps, ${delay} ms, ${connections} connections: ${took.toFixed(2)} s, ideal ${ideal.toFixed(2)} s, ratio ${(took / ideal).toFixed(2)}`);
console.log(`requests ${requests}, not complete ${failed}, agent's memory ${before} kB before, at most ${Math.max(...samples)} kB, ${samples.at(-1)} kB after`);
agent.kill('SIGTERM');
await new Promise((resolve) => agent.once('exit', resolve));
server.close();
server.closeAllConnections();
