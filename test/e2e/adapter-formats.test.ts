/** Adapters that are more than A and B of projections, where goldens.test.ts has no golden. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';

import type { EngineAddon, NativeEvaluator, NativeModelSpec } from '../../worker/addon.js';
import { readCheckpoint } from '../../worker/files/checkpoint.js';
import { readPeftAdapter } from '../../worker/files/peft-adapter.js';
import { packed } from '../../worker/files/reading-threads.js';
import { loadAddon } from './addon/tiny-model.mjs';

const golden = fileURLToPath(new URL('../golden', import.meta.url));
const tokens = Int32Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % 128);

describe('a weighted use of an adapter', () => {
  let model: NativeModelSpec;
  let evaluator: NativeEvaluator;
  beforeAll(async () => {
    model = await readCheckpoint(path.join(golden, 'families/llama-untied'));
    evaluator = (loadAddon() as EngineAddon).createEvaluator({
      ...{ model, device: 'cpu', precision: 'float32', memoryBytes: 64 << 20, maxBatchTokens: 128 },
      ...{ hostMemoryBytes: 0, maxQueued: 16, threads: 0, isa: 'auto' },
      cuda: {
        ...{ plugin: '', device: 0, memoryFraction: 0.9, cacheDirectory: '', deterministic: false },
      },
    });
  });

  // The head comes last, so what it adds to the logits is linear in the weight.
  it('weighs the LoRA of a head and the biases of its B', async () => {
    const spec = await readPeftAdapter(path.join(golden, 'formats/head-untied'), model.config);
    expect(spec.modules).toMatchObject([{ module: 7, bBias: { cols: 128 } }]);
    const handle = evaluator.addAdapter(packed(spec).spec);
    const again = evaluator.addAdapter(packed(spec).spec);
    const base = evaluator.logits(tokens, []);
    const adapted = evaluator.logits(tokens, [{ handle, weight: 1 }]);
    const expectMix = (logits: Float32Array, weight: number) => {
      let [error, norm, change] = [0, 0, 0];
      logits.forEach((logit, i) => {
        const delta = adapted[i]! - base[i]!;
        error += (logit - base[i]! - weight * delta) ** 2;
        norm += logit ** 2;
        change += delta ** 2;
      });
      expect(Math.sqrt(error / norm)).toBeLessThan(1e-6);
      expect(Math.sqrt(change / norm)).toBeGreaterThan(0.1);
    };
    expectMix(evaluator.logits(tokens, [{ handle, weight: 0.25 }]), 0.25);
    const both = [
      { handle, weight: 1.5 },
      { handle: again, weight: -0.75 },
    ];
    expectMix(evaluator.logits(tokens, both), 0.75);
  });

  it('changes nothing of the base beside it', async () => {
    for (const format of ['saved-both', 'dora-embedding-head', 'embedding-head']) {
      const directory = path.join(golden, 'formats', format);
      const base = evaluator.logits(tokens, []);
      const adapter = await readPeftAdapter(directory, model.config);
      const handle = evaluator.addAdapter(packed(adapter).spec);
      expect(evaluator.logits(tokens, [{ handle, weight: 1 }])).not.toEqual(base);
      expect(evaluator.logits(tokens, [])).toEqual(base);
    }
  });
});
