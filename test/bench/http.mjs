#!/usr/bin/env node
// HTTP steps against a server that answers after a while: how long they take beside
// the ideal, what processor time that costs, and what memory the agent has.
//
//     node test/bench/http.mjs [STEPS [DELAY_MS [CONNECTIONS]]]
//
// The database is the one of libpq's environment, an empty one on this machine with the
// extension and running executors; tasker-agent and psql are those of PATH.  `make bench-http`
// has all that.
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
// Processor time so far, in the 10 ms that the kernel counts by.
const ticks = (pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
    return Number(fields[11]) + Number(fields[12]);
};
const WARM = 10_000;

let requests = 0;
let warm = null;
const server = createServer((request, response) => {
    if (++requests === WARM) warm = resident(agent.pid);
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
process.on('exit', () => agent.kill('SIGKILL'));
await new Promise((resolve) => agent.stdout.once('data', resolve));

// Some first, so that connections, plans and caches are there, and this server is compiled.
const create = (count) => psql(`SELECT count(*) FROM tasker.create_tasks('bench/http',
    (SELECT array_agg(jsonb_build_object('id', n)) FROM generate_series(1, ${count}) AS n))`);
const open = () => psql("SELECT count(*) FROM tasker.tasks WHERE name = 'bench/http' AND finished_at IS NULL");
await create(connections * 10);
while (await open() !== '0') await pause(200);

const sessions = JSON.parse(await psql("SELECT json_object_agg(application_name, pid) FROM pg_stat_activity WHERE application_name LIKE 'tasker-agent http%'"));
const spenders = { agent: agent.pid, claims: sessions['tasker-agent http'], ends: sessions['tasker-agent http results'], server: process.pid };
const since = await psql('SELECT clock_timestamp()');
const before = resident(agent.pid);
const samples = [];
requests = 0;
const spent = Object.fromEntries(Object.entries(spenders).map(([who, pid]) => [who, ticks(pid)]));
await create(steps);
// The database is asked when all have been requested, or to see that none is missing.
for (let n = 1; requests < steps || await open() !== '0'; n++) {
    if (n % 100 === 0 && await open() === '0') break;
    samples.push(resident(agent.pid));
    await pause(steps > 10_000 ? 1000 : 100);
}
const took = Number(await psql(`SELECT extract(epoch FROM max(finished_at) - min(created_at)) FROM tasker.tasks WHERE created_at >= '${since}'`));
const ideal = (steps / connections) * delay / 1000;
const failed = await psql(`SELECT count(*) FROM tasker.tasks WHERE created_at >= '${since}' AND state <> 'complete'`);
samples.push(resident(agent.pid));

console.log(`${steps} steps, ${delay} ms, ${connections} connections: ${took.toFixed(2)} s, ideal ${ideal.toFixed(2)} s, ratio ${(took / ideal).toFixed(2)}`);
console.log(`µs of processor a step: ${Object.entries(spenders).map(([who, pid]) => `${who} ${Math.round((ticks(pid) - spent[who]) * 10_000 / steps)}`).join(', ')}`);
console.log(`requests ${requests}, not complete ${failed}, agent's memory ${before} kB before, ${warm === null ? '' : `${warm} kB at ${WARM}, `}at most ${Math.max(...samples)} kB, ${samples.at(-1)} kB after`);
agent.kill('SIGTERM');
await new Promise((resolve) => agent.once('exit', resolve));
server.close();
server.closeAllConnections();
