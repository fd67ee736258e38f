// Checks by Ajv, compiled, of values that were parsed before; README.md has the
// protocol.
import Ajv from 'ajv';
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

import { cases } from '../validation.mjs';

const SIZE = Number(process.env.BENCH_N ?? 100);

const say = (line) => new Promise((resolve) => process.stdout.write(`${line}\n`, resolve));

for (const { name, schema, values, times } of cases) {
  const ajv = new (schema.$schema.includes('2020') ? Ajv2020 : Ajv)({ strict: false });
  addFormats(ajv);
  const validate = ajv.compile(schema);
  const rounds = SIZE * times;
  let valid = 0;
  for (const value of values) valid += validate(value);
  const begin = process.hrtime.bigint();
  for (let round = 0; round < rounds; round++) for (const value of values) valid += validate(value);
  const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
  if (valid !== (rounds + 1) * values.length) throw new Error(`${name}: only ${valid} are valid`);
  await say(`value ${name} ${(rounds * values.length) / seconds}`);
}
await say('done');
process.exit(0);
