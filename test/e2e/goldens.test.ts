/**
 * "Right" in CI: the demo model with its adapters, one tiny model per variant of the decoder, and one
 * adapter per format.
 */
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

const formats = path.join(goldens, 'formats');
const modelOfFormat = (model: string) => path.join(goldens, 'families', model);
for (const [model, cases] of readPacked(formats, modelOfFormat, formats)) {
  const name = `formats of ${path.basename(model)}`;
  describeGoldens(name, { model, cases });
  describeGoldens(`${name}, portable`, { model, cases, isa: 'portable' });
  if (onGpu) describeGoldens(`${name} on the GPU`, { model, cases, device: 'cuda', cudaFactor: 2 });
}

const demo = readPacked(path.join(goldens, 'demo'), () => path.join(root, 'models/demo'));
for (const [model, cases] of demo) describeGoldens('demo', { model, cases });

if (onGpu) {
  for (const [model, cases] of demo) {
    describeGoldens('demo on the GPU', { model, cases, device: 'cuda' });
  }
}
