// A thread of yaml.mjs that reads with one npm package: on a heap of its own, as
// none is to collect another's garbage.  Answers with the milliseconds that it took
// to read a text so many times, and with the value where that is asked for.
import { createRequire } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';

const peer = createRequire(new URL('../peers/', import.meta.url));
const parse = {
  yaml: () => (text) => peer('yaml').parse(text, { maxAliasCount: -1 }),
  'js-yaml': () => peer('js-yaml').load,
}[workerData]();

parentPort.on('message', ({ text, times, wantsValue }) => {
  const from = performance.now();
  let value;
  for (let i = 0; i < times; i++) value = parse(text);
  parentPort.postMessage({ ms: performance.now() - from, value: wantsValue ? value : undefined });
});
