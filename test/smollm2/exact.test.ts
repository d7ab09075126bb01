/** "Exact" on SmolLM2-135M-Instruct with four adapters of the goldens, ranks 4 to 64. */
import path from 'node:path';

import { describeExact } from '../e2e/suites/exact.js';
import { device, goldens, model } from './places.js';

const adapter = (name: string) => path.join(goldens, 'adapters', name);

describeExact('SmolLM2-135M-Instruct', {
  model,
  device,
  adapters: {
    r4: adapter('all-r4-bf16'),
    r16: adapter('all-r16-f32'),
    r32: adapter('all-r32-f16'),
    r64: adapter('all-r64-bf16'),
  },
  precision: 'bfloat16',
  longestPrompt: 180,
  chunkTokens: 64,
  outputTokens: 72,
  smallPoolPages: (pageTokens, adapterPages) => adapterPages + Math.ceil((5 * 252) / pageTokens),
});
