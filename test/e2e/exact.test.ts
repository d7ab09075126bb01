/** "Exact" on the demo model with its own adapters, in both precisions. */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeExact } from './suites/exact.js';
import { onGpu } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const names = readdirSync(`${demo}/adapters`).slice(0, 4);

const demoCase = {
  model: demo,
  adapters: Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
  longestPrompt: 180,
  chunkTokens: 64,
  outputTokens: 72,
  smallPoolPages: (pageTokens: number, adapterPages: number) =>
    adapterPages + Math.ceil((5 * 252) / pageTokens),
};

for (const precision of ['bfloat16', 'float32'] as const) {
  describeExact('demo model', { ...demoCase, precision });
}
if (onGpu) {
  describeExact('demo model on the GPU', { ...demoCase, precision: 'bfloat16', device: 'cuda' });
}
