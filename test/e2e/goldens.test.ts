/** "Right" in CI: the demo model with its adapters, and one tiny model per variant of the decoder. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { describeGoldens, readPacked } from './suites/goldens.js';
import { onGpu } from './suites/test-device.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const goldens = path.join(root, 'test/golden');

const families = readPacked(path.join(goldens, 'families'), (model) =>
  path.join(goldens, 'families', model),
);
for (const [model, cases] of families) {
  describeGoldens(path.basename(model), { model, cases });
  // The path every machine has, also where a faster one is.
  describeGoldens(`${path.basename(model)}, portable`, { model, cases, isa: 'portable' });
}

const demo = readPacked(path.join(goldens, 'demo'), () => path.join(root, 'models/demo'));
for (const [model, cases] of demo) describeGoldens('demo', { model, cases });

if (onGpu) {
  for (const [model, cases] of demo) {
    describeGoldens('demo on the GPU', { model, cases, device: 'cuda' });
  }
}
