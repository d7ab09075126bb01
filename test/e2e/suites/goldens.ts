/**
 * "Right": what transformers (+ PEFT) computed, against the engine on the same directories, read as
 * the worker reads them. The two readers below know the forms that goldens lie in.
 *
 * float32: ||logits - ref|| / ||ref|| <= 1e-4 and the same greedy continuation, through the engine.
 * bfloat16: <= 2e-2, and no further off than transformers' own bfloat16 is; and over all cases the same
 * best token, where the goldens say at which positions transformers' noise leaves it the best.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { activeUses, type LeasedUse } from '../../../worker/activation.js';
import type {
  EngineAddon,
  NativeAdapterSpec,
  NativeAdapterUse,
  NativeEngine,
  NativeEngineConfig,
  NativeEvaluator,
  NativeModelSpec,
  NativeSampling,
  StepEvents,
} from '../../../worker/addon.js';
import { readCheckpoint } from '../../../worker/files/checkpoint.js';
import { readPeftAdapter } from '../../../worker/files/peft-adapter.js';
import { packed } from '../../../worker/files/reading-threads.js';
import { EventLog, loadAddon, sampling } from '../addon/tiny-model.mjs';

export interface GoldenCase {
  title: string;
  /** PEFT directories and their weights; empty for the base. */
  adapters: { directory: string; weight: number }[];
  promptTokens: number[];
  /** Prompt positions of the logits. */
  rows: number[];
  vocab: number;
  greedy: number[];
  /** ||l - ref|| / ||ref|| of transformers in bfloat16. */
  bf16RelErr: number;
  /** The same after taking from each row its mean. */
  bf16RelErrCentered?: number;
  /** Of each row: what bfloat16 does to the difference of two of transformers' logits. */
  bf16NoiseRows?: number[];
  /** Of each row: transformers' best token in bfloat16. */
  bf16TopRows?: number[];
  /** [rows, vocab] */
  reference: () => Float32Array;
}

/** What one case came to, in bfloat16. */
export interface GoldenOutcome {
  title: string;
  positions: number;
  /** ||logits - ref|| / ||ref|| of the engine, and of transformers in bfloat16. */
  error: number;
  transformersError: number;
  /** The same after taking from each row its mean, which no sampler sees. */
  centeredError: number;
  transformersCenteredError?: number;
  top: TopCounts;
}

/** Positions where the reference's best two logits are further apart than transformers' noise. */
export interface TopCounts {
  clear: number;
  /** Of these: where the engine's, where transformers' best token is the reference's. */
  equal: number;
  transformersEqual: number;
}

type CaseFields = Omit<GoldenCase, 'title' | 'adapters' | 'reference'>;

/** test/golden/smollm2: a file of logits per case. */
export function readIndex(file: string): GoldenCase[] {
  type Entry = CaseFields & {
    adapter: string | null;
    adapterDir: string | null;
    prompt: string;
    logitsFile: string;
  };
  const root = path.dirname(file);
  return (JSON.parse(fs.readFileSync(file, 'utf8')) as Entry[]).map((entry) => ({
    ...entry,
    title: `${entry.adapter ?? 'base'}, ${entry.prompt}`,
    adapters:
      entry.adapterDir === null
        ? []
        : [{ directory: path.join(root, entry.adapterDir), weight: 1 }],
    reference: () => readFloats(path.join(root, entry.logitsFile)),
  }));
}

/**
 * test/golden/demo, families and formats: all logits in one file. `directoryOf` finds a model's
 * directory; its adapters lie in `adapters`, unless that is given.
 */
export function readPacked(
  directory: string,
  directoryOf: (model: string) => string,
  adapters?: string,
): Map<string, GoldenCase[]> {
  type Entry = CaseFields & {
    model?: string;
    adapter?: string | null;
    mix?: Record<string, number>;
    offset: number;
  };
  const file = path.join(directory, 'goldens.json');
  const floats = readFloats(path.join(directory, 'goldens.f32'));
  const models = new Map<string, GoldenCase[]>();
  for (const entry of JSON.parse(fs.readFileSync(file, 'utf8')) as Entry[]) {
    const model = directoryOf(entry.model ?? '');
    const cases = models.get(model) ?? [];
    models.set(model, cases);
    const mix = entry.mix ?? (entry.adapter ? { [entry.adapter]: 1 } : {});
    cases.push({
      ...entry,
      title: `${Object.keys(mix).join(' + ') || 'base'}, ${entry.promptTokens.length} tokens`,
      adapters: Object.entries(mix).map(([name, weight]) => ({
        directory: path.join(adapters ?? path.join(model, 'adapters'), name),
        weight,
      })),
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
  /** There: how many times that far; 1 unless given. Few rows of a tiny model average over little. */
  cudaFactor?: number;
  /** Called with what all cases came to in bfloat16. */
  onOutcomes?: (outcomes: GoldenOutcome[]) => void;
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

/** relativeError after taking from each row its mean. */
function centeredError(x: Float32Array, y: Float32Array, vocab: number): number {
  let difference = 0;
  let norm = 0;
  for (let row = 0; row < y.length; row += vocab) {
    let [sumOfDifference, sumOfNorm] = [0, 0];
    for (let i = row; i < row + vocab; ++i) {
      difference += (x[i]! - y[i]!) ** 2;
      norm += y[i]! ** 2;
      sumOfDifference += x[i]! - y[i]!;
      sumOfNorm += y[i]!;
    }
    difference -= sumOfDifference ** 2 / vocab;
    norm -= sumOfNorm ** 2 / vocab;
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

/** The best token of a row, and how far the next one is below it. */
function bestOf(row: Float32Array): { token: number; margin: number } {
  let token = 0;
  let next = -Infinity;
  for (let i = 1; i < row.length; ++i) {
    if (row[i]! > row[token]!) {
      next = row[token]!;
      token = i;
    } else if (row[i]! > next) {
      next = row[i]!;
    }
  }
  return { token, margin: row[token]! - next };
}

function countTops(logits: Float32Array, reference: Float32Array, c: GoldenCase): TopCounts {
  const counts = { clear: 0, equal: 0, transformersEqual: 0 };
  c.bf16NoiseRows?.forEach((noise, row) => {
    const rowOf = (all: Float32Array) => all.subarray(row * c.vocab, (row + 1) * c.vocab);
    const { token, margin } = bestOf(rowOf(reference));
    if (margin <= noise) return;
    counts.clear += 1;
    if (bestOf(rowOf(logits)).token === token) counts.equal += 1;
    if (c.bf16TopRows?.[row] === token) counts.transformersEqual += 1;
  });
  return counts;
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
    hostMemoryBytes: 1 << 30,
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
  /** The case's adapters, those added that were not yet. */
  const usesOf = async (
    { adapters, promptTokens }: GoldenCase,
    handles: Map<string, number>,
    add: (spec: NativeAdapterSpec) => number | Promise<number>,
  ): Promise<NativeAdapterUse[]> => {
    const uses: LeasedUse[] = [];
    for (const { directory, weight } of adapters) {
      const { spec, invocationTokens } = packed(await readPeftAdapter(directory, model.config));
      const handle = handles.get(directory) ?? (await add(spec));
      handles.set(directory, handle);
      uses.push({ handle, weight, invocationTokens });
    }
    return activeUses(uses, Int32Array.from(promptTokens));
  };

  const onCuda = options.device === 'cuda';
  for (const precision of onCuda ? (['bfloat16'] as const) : (['float32', 'bfloat16'] as const)) {
    describe(`${name} in ${precision}: logits`, () => {
      let evaluator: NativeEvaluator;
      const outcomes: GoldenOutcome[] = [];
      const handles = new Map<string, number>();
      beforeAll(() => {
        evaluator = addon.createEvaluator(config(precision));
      });

      it.each(cases.map((c) => [c.title, c] as const))('%s', async (_, c) => {
        const uses = await usesOf(c, handles, (spec) => evaluator.addAdapter(spec));
        const all = evaluator.logits(Int32Array.from(c.promptTokens), uses);
        const logits = chosenRows(all, c.rows, c.vocab);
        const reference = c.reference();
        const error = relativeError(logits, reference);
        if (precision === 'bfloat16') {
          outcomes.push({
            title: c.title,
            positions: c.rows.length,
            error,
            transformersError: c.bf16RelErr,
            centeredError: centeredError(logits, reference, c.vocab),
            transformersCenteredError: c.bf16RelErrCentered,
            top: countTops(logits, reference, c),
          });
        }
        const bfloat16Limit = onCuda
          ? c.bf16RelErr * (options.cudaFactor ?? 1)
          : Math.min(2e-2, c.bf16RelErr);
        const limit = precision === 'float32' ? 1e-4 : bfloat16Limit;
        expect(error).toBeLessThanOrEqual(limit);
      });

      if (precision !== 'bfloat16' || !cases.every((c) => c.bf16NoiseRows)) return;
      it('the best token is that of float32 on 99 % of the clear positions', () => {
        options.onOutcomes?.(outcomes);
        const sum = (count: 'clear' | 'equal') =>
          outcomes.reduce((total, { top }) => total + top[count], 0);
        expect(outcomes).toHaveLength(cases.length);
        expect(sum('equal') / sum('clear')).toBeGreaterThanOrEqual(0.99);
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

    // All at once: one batch over the base, every adapter and every mix.
    it('all cases in one batch continue as the reference does', async () => {
      const handles = new Map<string, number>();
      const uses: NativeAdapterUse[][] = [];
      for (const c of cases) {
        uses.push(await usesOf(c, handles, (spec) => engine.addAdapter(spec)));
      }
      cases.forEach((c, i) => {
        engine.submit(
          i + 1,
          Int32Array.from(c.promptTokens),
          uses[i]!,
          sampling({ maxOutputTokens: c.greedy.length }) as NativeSampling,
        );
      });
      for (const [i, c] of cases.entries()) {
        expect((await log.ended(i + 1)).tokens, c.title).toEqual(c.greedy);
      }
    });
  });
}
