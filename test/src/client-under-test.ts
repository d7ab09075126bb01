/** Set-up and reading shared by the tests of the engine client, on a scripted worker. */
import { createEngineOn } from '../../src/create-engine.js';
import { LoraxError } from '../../src/errors.js';
import type { EngineOptions, GenerateRequest, TokenEvent } from '../../src/types.js';
import { FakeWorker } from '../fakes/fake-worker.js';
import type { FakeWorkerScript } from '../fakes/fake-worker.js';

export function setUp(script: FakeWorkerScript = {}, options: Partial<EngineOptions> = {}) {
  const worker = new FakeWorker(script);
  const engine = createEngineOn(worker.connect, { model: './models/any', ...options });
  return { worker, engine };
}

export function ask(
  content = 'one two three',
  extra: Partial<GenerateRequest> = {},
): GenerateRequest {
  return { messages: [{ role: 'user', content }], ...extra } as GenerateRequest;
}

export async function read(
  events: AsyncIterable<TokenEvent>,
): Promise<{ text: string; types: string[] }> {
  let text = '';
  const types: string[] = [];
  for await (const event of events) {
    types.push(event.type);
    if (event.type === 'delta') text += event.text;
  }
  return { text, types };
}

export const turn = () => new Promise((resolve) => setImmediate(resolve));
export const settled = async () => {
  for (let i = 0; i < 6; i++) await turn();
};

export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (LoraxError.isInstance(error)) return error.code;
    throw error;
  }
  throw new Error('it did not fail');
}

export function raise(message: string): never {
  throw new Error(message);
}

/** A small seeded generator, so that a failing schedule can be run again. */
export function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
