// Checks by json_schema_is_valid(): many values in one statement; README.md has the
// protocol.  pg comes from where the peers have theirs.
import { createRequire } from 'node:module';

import { cases } from '../validation.mjs';

const pg = createRequire(new URL('../peers/', import.meta.url))('pg');
const SIZE = Number(process.env.BENCH_N ?? 100);

const say = (line) => new Promise((resolve) => process.stdout.write(`${line}\n`, resolve));

const db = new pg.Client();
await db.connect();
await db.query('CREATE EXTENSION IF NOT EXISTS tasker');
await db.query('SET max_parallel_workers_per_gather = 0');
await db.query('SET jit = off');
for (const { name, schema, values, times } of cases) {
  // What is read is the value, not what compresses it.
  await db.query(`CREATE TABLE ${name}_value (value jsonb)`);
  await db.query(`ALTER TABLE ${name}_value ALTER value SET STORAGE PLAIN`);
  await db.query(`INSERT INTO ${name}_value SELECT jsonb_array_elements($1::jsonb)`, [JSON.stringify(values)]);
  await db.query(`VACUUM ANALYZE ${name}_value`);
  const rounds = SIZE * times;
  const statement = `SELECT count(*) FILTER (WHERE tasker.json_schema_is_valid(${pg.escapeLiteral(JSON.stringify(schema))}, value)) AS valid
    FROM generate_series(1, $1) CROSS JOIN ${name}_value`;
  await db.query(statement, [1]);
  const begin = process.hrtime.bigint();
  const { rows: [{ valid }] } = await db.query(statement, [rounds]);
  const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
  if (Number(valid) !== rounds * values.length) throw new Error(`${name}: only ${valid} are valid`);
  await say(`value ${name} ${valid / seconds}`);
}
await db.end();
await say('note the values are checked in one statement over a table, without compression, JIT or parallel workers');
await say('done');
process.exit(0);
