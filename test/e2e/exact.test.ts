/** "Exact" on the demo model with its own adapters, in both precisions. */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeExact } from './suites/exact.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const names = readdirSync(`${demo}/adapters`).slice(0, 4);

for (const precision of ['bfloat16', 'float32'] as const) {
  describeExact('demo model', {
    model: demo,
    adapters: Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
    precision,
    longestPrompt: 180,
    chunkTokens: 64,
    outputTokens: 72,
    smallPoolPages: (pageTokens, adapterPages) => adapterPages + Math.ceil((5 * 252) / pageTokens),
  });
}
