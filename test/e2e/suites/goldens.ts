/**
 * "Right": what transformers (+ PEFT) computed, against the engine on the same directories, read as
 * the worker reads them. The two readers below know the forms that goldens lie in.
 *
 * float32: ||logits - ref|| / ||ref|| <= 1e-4 and the same greedy continuation, through the engine.
 * bfloat16: <= 2e-2, and no further off than transformers' own bfloat16 is.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type {
  EngineAddon,
  NativeAdapterSpec,
  NativeEngine,
  NativeEngineConfig,
  NativeEvaluator,
  NativeModelSpec,
  NativeSampling,
  StepEvents,
} from '../../../worker/addon.js';
import { readCheckpoint } from '../../../worker/files/checkpoint.js';
import { readPeftAdapter } from '../../../worker/files/peft-adapter.js';
import { EventLog, loadAddon, sampling } from '../addon/tiny-model.mjs';

export interface GoldenCase {
  title: string;
  /** PEFT directory, or null for the base. */
  adapter: string | null;
  promptTokens: number[];
  /** Prompt positions of the logits. */
  rows: number[];
  vocab: number;
  greedy: number[];
  /** ||l - ref|| / ||ref|| of transformers in bfloat16. */
  bf16RelErr: number;
  /** [rows, vocab] */
  reference: () => Float32Array;
}

type CaseFields = Omit<GoldenCase, 'title' | 'adapter' | 'reference'> & { adapter: string | null };

/** test/golden/smollm2: a file of logits per case. */
export function readIndex(file: string): GoldenCase[] {
  type Entry = CaseFields & { adapterDir: string | null; prompt: string; logitsFile: string };
  const root = path.dirname(file);
  return (JSON.parse(fs.readFileSync(file, 'utf8')) as Entry[]).map((entry) => ({
    ...entry,
    title: `${entry.adapter ?? 'base'}, ${entry.prompt}`,
    adapter: entry.adapterDir && path.join(root, entry.adapterDir),
    reference: () => readFloats(path.join(root, entry.logitsFile)),
  }));
}

/** test/golden/demo and families: all logits in one file. `directoryOf` finds a model's directory. */
export function readPacked(
  directory: string,
  directoryOf: (model: string) => string,
): Map<string, GoldenCase[]> {
  type Entry = CaseFields & { model?: string; offset: number };
  const file = path.join(directory, 'goldens.json');
  const floats = readFloats(path.join(directory, 'goldens.f32'));
  const models = new Map<string, GoldenCase[]>();
  for (const entry of JSON.parse(fs.readFileSync(file, 'utf8')) as Entry[]) {
    const model = directoryOf(entry.model ?? '');
    const cases = models.get(model) ?? [];
    models.set(model, cases);
    cases.push({
      ...entry,
      title: `${entry.adapter ?? 'base'}, ${entry.promptTokens.length} tokens`,
      adapter: entry.adapter && path.join(model, 'adapters', entry.adapter),
      reference: () =>
        floats.subarray(entry.offset, entry.offset + entry.rows.length * entry.vocab),
    });
  }
  return models;
}

export interface GoldenOptions {
  model: string;
  cases: GoldenCase[];
  memoryBytes?: number;
  isa?: NativeEngineConfig['isa'];
  /** 'cuda': in bfloat16 alone, as near to float32 as PEFT's own bfloat16 is. */
  device?: 'cpu' | 'cuda';
}

const CUDA_PLUGIN = fileURLToPath(new URL('../../../build/Release/lorax_cuda.so', import.meta.url));

/** ||x - y|| / ||y|| */
function relativeError(x: Float32Array, y: Float32Array): number {
  expect(x.length).toBe(y.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < y.length; ++i) {
    difference += (x[i]! - y[i]!) ** 2;
    norm += y[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

function readFloats(file: string): Float32Array {
  const bytes = fs.readFileSync(file);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

function chosenRows(logits: Float32Array, rows: number[], vocab: number): Float32Array {
  const out = new Float32Array(rows.length * vocab);
  rows.forEach((row, i) => out.set(logits.subarray(row * vocab, (row + 1) * vocab), i * vocab));
  return out;
}

export function describeGoldens(name: string, options: GoldenOptions): void {
  const { cases } = options;
  const addon = loadAddon() as EngineAddon;
  let model: NativeModelSpec;
  beforeAll(async () => {
    model = await readCheckpoint(options.model);
  });

  const config = (precision: NativeEngineConfig['precision']): NativeEngineConfig => ({
    model,
    device: options.device ?? 'cpu',
    precision,
    memoryBytes: options.memoryBytes ?? 128 << 20,
    // Below the longest prompts, so that these are prefilled in chunks.
    maxBatchTokens: 128,
    maxQueued: 1024,
    threads: 0,
    isa: options.isa ?? 'auto',
    cuda: {
      plugin: options.device === 'cuda' ? CUDA_PLUGIN : '',
      device: 0,
      memoryFraction: 0.9,
      cacheDirectory: '',
      deterministic: false,
    },
  });
  const readAdapter = (directory: string): Promise<NativeAdapterSpec> =>
    readPeftAdapter(directory, model.config);

  const onCuda = options.device === 'cuda';
  for (const precision of onCuda ? (['bfloat16'] as const) : (['float32', 'bfloat16'] as const)) {
    describe(`${name} in ${precision}: logits`, () => {
      let evaluator: NativeEvaluator;
      const handles = new Map<string, number>();
      beforeAll(() => {
        evaluator = addon.createEvaluator(config(precision));
      });

      it.each(cases.map((c) => [c.title, c] as const))('%s', async (_, c) => {
        let handle = -1;
        if (c.adapter !== null) {
          handle = handles.get(c.adapter) ?? evaluator.addAdapter(await readAdapter(c.adapter));
          handles.set(c.adapter, handle);
        }
        const all = evaluator.logits(Int32Array.from(c.promptTokens), handle);
        const logits = chosenRows(all, c.rows, c.vocab);
        const error = relativeError(logits, c.reference());
        const bfloat16Limit = onCuda ? c.bf16RelErr : Math.min(2e-2, c.bf16RelErr);
        const limit = precision === 'float32' ? 1e-4 : bfloat16Limit;
        expect(error).toBeLessThanOrEqual(limit);
      });
    });
  }

  if (onCuda) return;
  describe(`${name} in float32: greedy`, { timeout: 600_000 }, () => {
    let engine: NativeEngine;
    const log = new EventLog();
    beforeAll(async () => {
      engine = await addon.createEngine(
        config('float32'),
        log.onEvents as (events: StepEvents) => void,
        () => undefined,
      );
    });
    afterAll(async () => {
      await engine.stop();
    });

    // All at once: one batch over the base and every adapter.
    it('all cases in one batch continue as the reference does', async () => {
      const handles = new Map<string, number>();
      for (const c of cases) {
        if (c.adapter === null || handles.has(c.adapter)) continue;
        handles.set(c.adapter, await engine.addAdapter(await readAdapter(c.adapter)));
      }
      cases.forEach((c, i) => {
        engine.submit(
          i + 1,
          Int32Array.from(c.promptTokens),
          c.adapter === null ? -1 : handles.get(c.adapter)!,
          sampling({ maxOutputTokens: c.greedy.length }) as NativeSampling,
        );
      });
      for (const [i, c] of cases.entries()) {
        expect((await log.ended(i + 1)).tokens, c.title).toEqual(c.greedy);
      }
    });
  });
}
