/** "Steady" for a moment; `node scripts/check-steady.mjs` runs it for long. */
import { expect, it } from 'vitest';

import { runSteady } from './suites/steady.mjs';
import { onGpu } from './suites/test-device.js';

it('serves random requests over more adapters than fit', { timeout: 120_000 }, async () => {
  const { problems } = await runSteady({
    ...{ requests: 300, device: onGpu ? 'cuda' : 'cpu', adapters: 24, memoryBytes: 4 << 20 },
    ...{ concurrency: 64, goldens: 12, stallMs: 30_000 },
  });
  expect(problems).toEqual([]);
});
