/** Embeddings of the demo model with its adapters, and of one tiny model per decoder variant. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

import {
  describeEmbeddingGoldens,
  readEmbeddingGoldens,
  type EmbeddingError,
} from './suites/embedding-goldens.js';
import { onGpu } from './suites/test-device.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const demo = path.join(root, 'models/demo');
const goldens = readEmbeddingGoldens(path.join(root, 'test/golden/embeddings'), (model) =>
  model === null ? demo : path.join(root, 'test/golden/families', model),
);

const errors: EmbeddingError[] = [];
for (const [model, cases] of goldens) {
  describeEmbeddingGoldens(path.basename(model), { model, cases, errors });
  if (model === demo) continue;
  // The path every machine has, also where a faster one is.
  describeEmbeddingGoldens(`${path.basename(model)}, portable`, {
    ...{ model, cases, errors },
    isa: 'portable',
  });
}

const errorsOnGpu: EmbeddingError[] = [];
if (onGpu) {
  const cases = goldens.get(demo) ?? [];
  describeEmbeddingGoldens('demo on the GPU', {
    ...{ model: demo, cases, errors: errorsOnGpu },
    device: 'cuda',
  });
}

it.each(onGpu ? [{ of: errors }, { of: errorsOnGpu }] : [{ of: errors }])(
  "all in all no further from float32 than transformers' bfloat16",
  ({ of }) => {
    const rms = (values: number[]) => Math.hypot(...values) / Math.sqrt(values.length);
    const engine = rms(of.map((error) => error.engine));
    const transformers = rms(of.map((error) => error.transformers));
    console.log(`embeddings: ${engine.toFixed(5)}, transformers' ${transformers.toFixed(5)}`);
    expect(of.length).toBeGreaterThan(20);
    expect(engine).toBeLessThanOrEqual(transformers);
  },
);
