/** Many adapters through a small pool; `npm run check:adapters` runs it in full. */
import { expect, it } from 'vitest';

import { runManyAdapters } from './suites/many-adapters.mjs';
import { onGpu } from './suites/test-device.js';

it('every answer is the one that it is alone', { timeout: 120_000 }, async () => {
  const device = onGpu ? 'cuda' : 'cpu';
  const { problems } = await runManyAdapters({ adapters: 60, resident: 6, requests: 400, device });
  expect(problems).toEqual([]);
});
