/**
 * "Right", for embeddings: what transformers (+ PEFT) pooled, against the engine on the same
 * directories; base and adapters, all poolings, raw and normalized, all in one batch.
 *
 * float32: ||e - ref|| / ||ref|| <= 1e-4. bfloat16: no further off than transformers' own bfloat16 is.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type {
  EngineAddon,
  NativeEmbedding,
  NativeEngine,
  NativeEngineConfig,
  StepEvents,
} from '../../../worker/addon.js';
import { readCheckpoint } from '../../../worker/files/checkpoint.js';
import { readPeftAdapter } from '../../../worker/files/peft-adapter.js';
import { packed } from '../../../worker/files/reading-threads.js';
import { EventLog, loadAddon } from '../addon/tiny-model.mjs';

export const POOLINGS = ['mean', 'last', 'cls'] as const;

export interface EmbeddingGolden {
  /** PEFT directory, or null for the base. */
  adapter: string | null;
  promptTokens: number[];
  /** In the order of POOLINGS: ||e - ref|| / ||ref|| of transformers in bfloat16. */
  bf16RelErr: number[];
  /** In the order of POOLINGS, [hidden] each. */
  reference: Float32Array[];
}

/** test/golden/embeddings, by model directory. */
export function readEmbeddingGoldens(
  directory: string,
  directoryOf: (model: string | null) => string,
): Map<string, EmbeddingGolden[]> {
  interface Entry {
    model: string | null;
    adapter: string | null;
    promptTokens: number[];
    hidden: number;
    offset: number;
    bf16RelErr: number[];
  }
  const bytes = fs.readFileSync(path.join(directory, 'embeddings.f32'));
  const floats = new Float32Array(new Uint8Array(bytes).buffer);
  const text = fs.readFileSync(path.join(directory, 'embeddings.json'), 'utf8');
  const models = new Map<string, EmbeddingGolden[]>();
  for (const { model: name, hidden, offset, ...entry } of JSON.parse(text) as Entry[]) {
    const model = directoryOf(name);
    const cases = models.get(model) ?? [];
    models.set(model, cases);
    cases.push({
      ...entry,
      adapter: entry.adapter && path.join(model, 'adapters', entry.adapter),
      reference: POOLINGS.map((_, i) =>
        floats.subarray(offset + i * hidden, offset + (i + 1) * hidden),
      ),
    });
  }
  return models;
}

const CUDA_PLUGIN = fileURLToPath(new URL('../../../build/Release/lorax_cuda.so', import.meta.url));

/** ||x - y|| / ||y|| */
function relativeError(x: Float32Array, y: Float32Array): number {
  expect(x.length).toBe(y.length);
  return Math.hypot(...x.map((value, i) => value - y[i]!)) / Math.hypot(...y);
}

/** How far from the reference, in bfloat16: the engine's embedding and transformers' own. */
export interface EmbeddingError {
  engine: number;
  transformers: number;
}

export interface EmbeddingGoldenOptions {
  model: string;
  cases: EmbeddingGolden[];
  isa?: NativeEngineConfig['isa'];
  device?: 'cpu' | 'cuda';
  /** Each embedding's in bfloat16 is added. */
  errors?: EmbeddingError[];
}

export function describeEmbeddingGoldens(name: string, options: EmbeddingGoldenOptions): void {
  const { cases, device = 'cpu', isa = 'auto' } = options;
  const addon = loadAddon() as EngineAddon;
  const precisions =
    device === 'cuda' ? (['bfloat16'] as const) : (['float32', 'bfloat16'] as const);
  describe.each(precisions)(`${name} in %s: embeddings`, (precision) => {
    let engine: NativeEngine;
    let lastId = 0;
    const log = new EventLog();
    const handles = new Map<string, number>();

    beforeAll(async () => {
      const model = await readCheckpoint(options.model);
      engine = await addon.createEngine(
        {
          ...{ model, device, precision, isa, memoryBytes: 64 << 20, threads: 0, maxQueued: 1024 },
          hostMemoryBytes: 1 << 30,
          // Below most prompts, so that these come in chunks.
          maxBatchTokens: 48,
          cuda: {
            ...{ plugin: device === 'cuda' ? CUDA_PLUGIN : '', device: 0, memoryFraction: 0.9 },
            ...{ cacheDirectory: '', deterministic: false },
          },
        },
        log.onEvents as (events: StepEvents) => void,
        () => undefined,
      );
      for (const { adapter } of cases) {
        if (adapter === null || handles.has(adapter)) continue;
        const { spec } = packed(await readPeftAdapter(adapter, model.config));
        handles.set(adapter, await engine.addAdapter(spec));
      }
    });
    afterAll(() => engine.stop());

    /** Of all cases, submitted at once. */
    function embedAll(embedding: NativeEmbedding): Promise<Float32Array[]> {
      const ids = cases.map(({ promptTokens, adapter }) => {
        const uses = adapter === null ? [] : [{ handle: handles.get(adapter)!, weight: 1 }];
        engine.embed(++lastId, Int32Array.from(promptTokens), uses, embedding);
        return lastId;
      });
      return Promise.all(
        ids.map(async (id) => {
          const { end } = await log.ended(id);
          if (end?.embedding === undefined) throw new Error(JSON.stringify(end));
          return end.embedding;
        }),
      );
    }

    it.each(POOLINGS)('%s', async (pooling) => {
      const index = POOLINGS.indexOf(pooling);
      const raw = await embedAll({ pooling, normalize: false });
      const normalized = await embedAll({ pooling, normalize: true });
      for (const [i, { adapter, reference, bf16RelErr, promptTokens }] of cases.entries()) {
        const title = `${adapter ?? 'base'}, ${promptTokens.length} tokens`;
        const expected = reference[index]!;
        const transformers = bf16RelErr[index]!;
        // One vector of a tiny model is as near as its roundings happen to fall: all together are
        // compared by whoever asked for the errors.
        const limit = precision === 'float32' ? 1e-4 : 2 * transformers;
        const engineError = relativeError(raw[i]!, expected);
        expect(engineError, title).toBeLessThanOrEqual(limit);
        if (precision === 'bfloat16') options.errors?.push({ engine: engineError, transformers });
        const length = Math.hypot(...expected);
        const unit = expected.map((value) => value / length);
        expect(relativeError(normalized[i]!, unit), title).toBeLessThanOrEqual(limit);
        expect(Math.abs(Math.hypot(...normalized[i]!) - 1)).toBeLessThan(1e-6);
      }
    });
  });
}
