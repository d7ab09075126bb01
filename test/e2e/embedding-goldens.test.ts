/** Embeddings of the demo model with its adapters, and of one tiny model per decoder variant. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { describeEmbeddingGoldens, readEmbeddingGoldens } from './suites/embedding-goldens.js';
import { onGpu } from './suites/test-device.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const demo = path.join(root, 'models/demo');
const goldens = readEmbeddingGoldens(path.join(root, 'test/golden/embeddings'), (model) =>
  model === null ? demo : path.join(root, 'test/golden/families', model),
);

for (const [model, cases] of goldens) {
  describeEmbeddingGoldens(path.basename(model), { model, cases });
  if (model === demo) continue;
  // The path every machine has, also where a faster one is.
  describeEmbeddingGoldens(`${path.basename(model)}, portable`, { model, cases, isa: 'portable' });
}

if (onGpu) {
  const cases = goldens.get(demo) ?? [];
  describeEmbeddingGoldens('demo on the GPU', { model: demo, cases, device: 'cuda' });
}
