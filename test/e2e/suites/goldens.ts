/**
 * "Right": what transformers (+ PEFT) computed, against the engine on the same directories, read as
 * the worker reads them. An index lists cases (test/golden/smollm2/README.md says their fields).
 *
 * float32: ||logits - ref|| / ||ref|| <= 1e-4 and the same greedy continuation, through the engine.
 * bfloat16: <= 2e-2, and no further off than transformers' own bfloat16 where a case says that.
 */
import fs from 'node:fs';
import path from 'node:path';
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
  adapter: string | null;
  adapterDir: string | null;
  prompt: string;
  promptTokens: number[];
  logitsFile: string;
  rows: number[];
  vocab: number;
  greedy: number[];
  bf16RelErr?: number;
}

export interface GoldenOptions {
  /** Directory the paths of the cases are relative to. */
  root: string;
  model: string;
  cases: GoldenCase[];
  bfloat16?: boolean;
  memoryBytes?: number;
  /** One for every instruction set to compare; those the machine lacks are not asked for. */
  isa?: NativeEngineConfig['isa'];
}

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
  const { root, cases } = options;
  const addon = loadAddon() as EngineAddon;
  let model: NativeModelSpec;
  beforeAll(async () => {
    model = await readCheckpoint(options.model);
  });

  const config = (precision: NativeEngineConfig['precision']): NativeEngineConfig => ({
    model,
    device: 'cpu',
    precision,
    memoryBytes: options.memoryBytes ?? 64 << 20,
    // Below the longest prompts, so that these are prefilled in chunks.
    maxBatchTokens: 128,
    maxQueued: 1024,
    threads: 0,
    isa: options.isa ?? 'auto',
  });
  const readAdapter = (c: GoldenCase): Promise<NativeAdapterSpec> =>
    readPeftAdapter(path.join(root, c.adapterDir!), model.config);
  const title = (c: GoldenCase) => `${c.adapter ?? 'base'}, ${c.prompt}`;

  for (const precision of ['float32', 'bfloat16'] as const) {
    if (precision === 'bfloat16' && options.bfloat16 === false) continue;
    describe(`${name} in ${precision}: logits`, () => {
      let evaluator: NativeEvaluator;
      const handles = new Map<string, number>();
      beforeAll(() => {
        evaluator = addon.createEvaluator(config(precision));
      });

      it.each(cases.map((c) => [title(c), c] as const))('%s', async (_, c) => {
        let handle = -1;
        if (c.adapterDir !== null) {
          handle = handles.get(c.adapterDir) ?? evaluator.addAdapter(await readAdapter(c));
          handles.set(c.adapterDir, handle);
        }
        const all = evaluator.logits(Int32Array.from(c.promptTokens), handle);
        const logits = chosenRows(all, c.rows, c.vocab);
        const error = relativeError(logits, readFloats(path.join(root, c.logitsFile)));
        const limit = precision === 'float32' ? 1e-4 : Math.min(2e-2, c.bf16RelErr ?? 2e-2);
        expect(error).toBeLessThanOrEqual(limit);
      });
    });
  }

  describe(`${name} in float32: greedy`, () => {
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
        if (c.adapterDir === null || handles.has(c.adapterDir)) continue;
        handles.set(c.adapterDir, await engine.addAdapter(await readAdapter(c)));
      }
      cases.forEach((c, i) => {
        engine.submit(
          i + 1,
          Int32Array.from(c.promptTokens),
          c.adapterDir === null ? -1 : handles.get(c.adapterDir)!,
          sampling({ maxOutputTokens: c.greedy.length }) as NativeSampling,
        );
      });
      for (const [i, c] of cases.entries()) {
        expect((await log.ended(i + 1)).tokens, title(c)).toEqual(c.greedy);
      }
    });
  });
}
