// What the addon says to arguments that are not what worker/addon.ts asks for: a TypeError that
// names the way to the value, or a typed failure; and it goes on serving.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { EngineAddon, NativeEngine, NativeEngineConfig } from '../../worker/addon.js';
import type { NativeSampling, StepEvents } from '../../worker/addon.js';
import { EventLog, loadAddon, sampling, tinyConfig } from './addon/tiny-model.mjs';

let folder: string;
let addon: EngineAddon;
let config: NativeEngineConfig;
const nothing = () => undefined;

beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-addon-'));
  addon = loadAddon() as EngineAddon;
  config = tinyConfig(folder) as NativeEngineConfig;
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

/** A copy of the config with one value changed: ['model.config.headDim', 0]. */
function changed(place: string, value: unknown): NativeEngineConfig {
  const copy = structuredClone(config) as unknown as Record<string, unknown>;
  const keys = place.split('.');
  let owner = copy;
  for (const key of keys.slice(0, -1)) owner = owner[key] as Record<string, unknown>;
  owner[keys.at(-1)!] = value;
  return copy as unknown as NativeEngineConfig;
}

describe('createEngine', () => {
  it.each([
    ['model', 5],
    ['model.config.headDim', '16'],
    ['model.config.headDim', 16.5],
    ['model.config.vocabSize', -1],
    ['model.config.vocabSize', 2 ** 40],
    ['model.config.tiedEmbeddings', 1],
    ['model.config.ropeTheta', NaN],
    ['model.config.rope.type', 'longrope'],
    ['model.files', 'model.bin'],
    ['model.tensors', {}],
    ['model.tensors.3.offset', -1],
    ['model.tensors.3.dtype', 'I8'],
    ['device', 'tpu'],
    ['precision', 'int8'],
    ['memoryBytes', Infinity],
    ['maxBatchTokens', -1],
    ['threads', null],
    ['isa', 'neon'],
    ['cuda', undefined],
    ['cuda.plugin', null],
    ['cuda.device', -1],
    ['cuda.memoryFraction', 0],
    ['cuda.memoryFraction', 1.5],
    ['cuda.deterministic', 1],
  ])('refuses %s = %j by name', async (place, value) => {
    const name = `config.${place}`.replace('.3.', '[3].');
    const refused = addon.createEngine(changed(place, value), nothing, nothing);
    await expect(refused).rejects.toThrow(TypeError);
    await expect(refused).rejects.toThrow(name);
  });

  it('refuses callbacks that are none', async () => {
    const none = null as unknown as () => void;
    await expect(addon.createEngine(config, none, nothing)).rejects.toThrow(/onEvents/);
    await expect(addon.createEngine(config, nothing, none)).rejects.toThrow(/onProgress/);
  });

  it('names file and tensor of a model that lies', async () => {
    const cut = path.join(folder, 'cut.bin');
    fs.copyFileSync(config.model.files[0]!, cut);
    fs.truncateSync(cut, 1000);
    await expect(
      addon.createEngine(changed('model.files', [cut]), nothing, nothing),
    ).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      data: { file: cut, tensor: 'model.embed_tokens.weight' },
    });
    const absent = path.join(folder, 'absent.bin');
    await expect(
      addon.createEngine(changed('model.files', [absent]), nothing, nothing),
    ).rejects.toMatchObject({ code: 'MODEL_INVALID', data: { file: absent } });
  });

  it('reports progress up to the last byte', async () => {
    const seen: [number, number][] = [];
    const engine = await addon.createEngine(config, nothing, (...now) => seen.push(now));
    await engine.stop();
    const total = fs.statSync(config.model.files[0]!).size;
    expect(seen.at(-1)).toEqual([total, total]);
    expect(seen).toEqual([...seen].sort((a, b) => a[0] - b[0]));
  });
});

describe('an engine', () => {
  let engine: NativeEngine;
  const log = new EventLog();

  beforeAll(async () => {
    engine = await addon.createEngine(config, log.onEvents as (e: StepEvents) => void, nothing);
  });
  afterAll(async () => {
    await engine.stop();
  });

  it.each<[string, Partial<Record<keyof NativeSampling, unknown>>]>([
    ['sampling.temperature', { temperature: NaN }],
    ['sampling.temperature', { temperature: -1 }],
    ['sampling.topK', { topK: -1 }],
    ['sampling.topP', { topP: 1.5 }],
    ['sampling.minP', { minP: -0.1 }],
    ['sampling.repetitionPenalty', { repetitionPenalty: 0 }],
    ['sampling.frequencyPenalty', { frequencyPenalty: Infinity }],
    ['sampling.maxOutputTokens', { maxOutputTokens: -5 }],
    ['sampling.logprobs', { logprobs: 21 }],
    ['sampling.seed', { seed: 1 }],
    ['sampling.seed[1]', { seed: [0, -1] }],
    ['sampling.logitBiasIds[0]', { logitBiasIds: Int32Array.of(384) }],
    ['sampling.logitBiasValues', { logitBiasIds: Int32Array.of(3) }],
    ['sampling.stopTokenIds', { stopTokenIds: [1, 2] }],
  ])('refuses %s = %j by name', (name, wrong) => {
    const all = { ...sampling(), ...wrong } as unknown as NativeSampling;
    expect(() => engine.submit(9, Int32Array.of(1), [], all)).toThrow(TypeError);
    expect(() => engine.submit(9, Int32Array.of(1), [], all)).toThrow(name);
  });

  it('refuses requests, tokens and adapters out of range by name', () => {
    const all = sampling() as NativeSampling;
    expect(() => engine.submit(0, Int32Array.of(1), [], all)).toThrow(/request must be/);
    expect(() => engine.submit(1, Int32Array.of(1, 384), [], all)).toThrow(/promptTokens\[1\]/);
    expect(() => engine.submit(1, Int32Array.of(1, -3), [], all)).toThrow(/promptTokens\[1\]/);
    expect(() => engine.submit(1, [1] as unknown as Int32Array, [], all)).toThrow(/promptTokens/);
    expect(() => engine.cancel('x' as unknown as number)).toThrow(/request must be a number/);
  });

  it.each<[RegExp, unknown]>([
    [/adapters must be an array/, 3],
    [/adapters must be an array/, undefined],
    [/adapters\[0\] must be an object/, [4]],
    [/adapters\[0\]\.handle must be an integer/, [{ handle: -1, weight: 1 }]],
    [/adapters\[1\]\.handle must be a number/, [{ handle: 0, weight: 1 }, { weight: 1 }]],
    [/adapters\[0\]\.weight must be a number/, [{ handle: 0 }]],
    [/adapters\[0\]\.weight must be a finite number/, [{ handle: 0, weight: NaN }]],
    [/adapters\[0\]\.weight must be a finite 32-bit float/, [{ handle: 0, weight: 1e300 }]],
    [
      /adapters\[1\]\.handle must be another than those before it/,
      [
        { handle: 2, weight: 1 },
        { handle: 2, weight: 2 },
      ],
    ],
    [
      /adapters must be an array of at most 8/,
      Array.from({ length: 9 }, (_, handle) => ({ handle, weight: 1 })),
    ],
  ])('refuses adapters out of shape: %s', (message, adapters) => {
    const submit = (...args: unknown[]) =>
      (engine.submit as (...all: unknown[]) => void).call(engine, ...args);
    expect(() => submit(9, Int32Array.of(1), adapters, sampling())).toThrow(TypeError);
    expect(() => submit(9, Int32Array.of(1), adapters, sampling())).toThrow(message);
  });

  it.each<[RegExp, unknown]>([
    [/service must be an object/, 3],
    [/service\.tenant must be a string/, { tenant: 7 }],
    [/service\.tenantWeight must be a finite number/, { tenantWeight: NaN }],
    [/service\.tenantWeight must be above 0/, { tenantWeight: 0 }],
    [/service\.priority must be an integer/, { priority: 0.5 }],
    [/service\.priority must be an integer/, { priority: 1001 }],
    [/service\.deadlineMs must be a finite number/, { deadlineMs: Infinity }],
    [/service\.cacheScope must be a string/, { cacheScope: null }],
  ])('refuses a service out of shape: %s', (message, service) => {
    const submit = (...args: unknown[]) =>
      (engine.submit as (...all: unknown[]) => void).call(engine, ...args);
    const one = Int32Array.of(1);
    expect(() => submit(9, one, [], sampling(), undefined, service)).toThrow(TypeError);
    expect(() => submit(9, one, [], sampling(), undefined, service)).toThrow(message);
    const embed = (...args: unknown[]) =>
      (engine.embed as (...all: unknown[]) => void).call(engine, ...args);
    const mean = { pooling: 'mean', normalize: true };
    expect(() => embed(9, one, [], mean, service)).toThrow(message);
  });

  it('refuses embeddings out of shape by name', () => {
    const embed = (...args: unknown[]) =>
      (engine.embed as (...all: unknown[]) => void).call(engine, ...args);
    const one = Int32Array.of(1);
    const mean = { pooling: 'mean', normalize: true };
    expect(() => embed(0, one, [], mean)).toThrow(/request must be/);
    expect(() => embed(1, Int32Array.of(384), [], mean)).toThrow(/promptTokens\[0\]/);
    expect(() => embed(1, one, -2, mean)).toThrow(/adapters must be an array/);
    expect(() => embed(1, one, [])).toThrow(/embedding must be an object/);
    expect(() => embed(1, one, [], { pooling: 'max', normalize: true })).toThrow(
      /embedding\.pooling must be one of mean, last, cls/,
    );
    expect(() => embed(1, one, [], { pooling: 'cls', normalize: 1 })).toThrow(
      /embedding\.normalize must be a boolean/,
    );
  });

  it('rejects an adapter spec by name', async () => {
    const whole = [0, 0, 4, 1, 3, 0, 0, 4, 8, 0, 1, 0, 0, 8, 4, 0, 1];
    const cases: [number[], string, string][] = [
      [[0, 9], '', 'spec.modules[0].module must be'],
      [[0, 0, 4, Number.NaN], '', 'spec.modules[0].scale must be a finite number'],
      [[0, 0, 4, 1, 1], '', 'spec.modules[0].has must be A and B'],
      [[0, 0, 4, 1, 3, 0, 3], '', 'spec.modules[0].a.dtype must be'],
      [[0, 0, 4, 1, 3, 0, 0, 4, 8, 0.5], '', 'spec.modules[0].a.offset must be an integer'],
      [whole.slice(0, -1), 'a', 'spec.modules[0].b.name must be a number'],
      [whole, 'a', 'spec.modules[0].b.name must be within the names'],
      [whole, 'abc', 'names must be those of the tensors'],
      [[...whole, 0], 'ab', 'spec.modules[1].module must be a number'],
    ];
    for (const [numbers, names, message] of cases) {
      const modules = { numbers: Float64Array.from(numbers), names: Buffer.from(names) };
      const adding = engine.addAdapter({ hash: 'x', files: [], modules });
      await expect(adding, message).rejects.toThrow(message);
    }
    const spec = { hash: 'x', files: [], modules: [] };
    await expect(
      engine.addAdapter(spec as unknown as Parameters<NativeEngine['addAdapter']>[0]),
    ).rejects.toThrow('spec.modules.numbers must be a Float64Array');
  });

  it('serves after all of that, and cancels', async () => {
    engine.submit(
      7,
      Int32Array.of(1, 2, 3),
      [],
      sampling({ maxOutputTokens: 4 }) as NativeSampling,
    );
    expect((await log.ended(7)).tokens).toHaveLength(4);
    engine.embed(6, Int32Array.of(1, 2, 3), [], { pooling: 'mean', normalize: true });
    const { end } = await log.ended(6);
    expect(end?.embedding).toHaveLength(96);
    expect(Math.hypot(...(end?.embedding ?? []))).toBeCloseTo(1, 5);
    engine.submit(8, Int32Array.of(1, 2, 3), [], sampling() as NativeSampling);
    await log.streaming(8);
    engine.cancel(8);
    expect((await log.ended(8)).end).toEqual({ aborted: true });
    expect(engine.stats()).toMatchObject({ finished: 2, aborted: 1, running: 0 });
    expect(engine.info()).toMatchObject({ device: 'cpu' });
  });
});

describe('an evaluator', () => {
  it('agrees with the engine and with itself in other chunks', async () => {
    const tokens = Int32Array.from({ length: 40 }, (_, i) => (i * 37) % 384);
    const whole = addon.createEvaluator(config).logits(tokens, []);
    expect(whole).toHaveLength(40 * 384);
    expect(whole.every(Number.isFinite)).toBe(true);
    const chunked = addon.createEvaluator({ ...config, maxBatchTokens: 7 }).logits(tokens, []);
    expect(chunked).toEqual(whole);

    const log = new EventLog();
    const engine = await addon.createEngine(
      config,
      log.onEvents as (e: StepEvents) => void,
      nothing,
    );
    engine.submit(1, tokens, [], sampling({ maxOutputTokens: 1 }) as NativeSampling);
    const last = whole.subarray(39 * 384);
    expect((await log.ended(1)).tokens).toEqual([last.indexOf(Math.max(...last))]);
    await engine.stop();
  });

  it('refuses unknown adapters and too many tokens', () => {
    const evaluator = addon.createEvaluator(config);
    expect(() => evaluator.logits(Int32Array.of(1), [{ handle: 0, weight: 1 }])).toThrow(
      /adapters has a handle/,
    );
    expect(() => evaluator.logits(new Int32Array(5000), [])).toThrow(/context holds 4096/);
  });
});
