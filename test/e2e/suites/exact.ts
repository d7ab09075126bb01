/**
 * "Exact": whoever shares the batch, a sequence's tokens are those of the same request alone.
 *
 * One suite for any model: 16 sequences over the base, four adapters and two mixes of them, arriving one
 * after another,
 * with prompts longer than a chunk, in a pool so small that sequences are preempted, greedy and
 * sampled. Half of them report the log-probabilities of their tokens, equal to the last bit, where a
 * difference that has not yet changed a token shows. Run on the demo model by `npm test` and on SmolLM2 by `npm run check:smollm2`.
 */
import { createEngine } from 'lorax-js/engine';
import type { AdapterMix, Engine, EngineOptions, GenerateRequest, Sampling } from 'lorax-js/engine';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

export interface ExactCase {
  model: string;
  /** name -> PEFT directory; four, of different ranks. */
  adapters: Record<string, string>;
  precision: 'bfloat16' | 'float32';
  /** Tokens of the longest prompt; chunks are `chunkTokens`. */
  longestPrompt: number;
  chunkTokens: number;
  outputTokens: number;
  /** Of the small pool: fewer than the 16 sequences need, more than any one of them does. */
  smallPoolPages: (pageTokens: number, adapterPages: number) => number;
  /** Of the engine; on a GPU the promise is that of `deterministic`. */
  device?: EngineOptions['device'];
}

const NUM_SEQUENCES = 16;

/** Deterministic numbers in [0, 1), so that a failing case can be run again. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function samplingOf(index: number, outputTokens: number): Sampling {
  const base: Sampling = { maxOutputTokens: outputTokens, ignoreEos: true, seed: 1000 + index };
  if (index % 2 === 0) base.logprobs = 0;
  if (index % 3 === 0) return { ...base, temperature: 0 };
  if (index % 3 === 1) return { ...base, temperature: 0.9, topP: 0.95 };
  return { ...base, temperature: 1.2, topK: 40, repetitionPenalty: 1.1, frequencyPenalty: 0.2 };
}

interface Answer {
  tokens: number[];
  logprobs: number[];
}

async function answerOf(engine: Engine, request: GenerateRequest): Promise<Answer> {
  const answer: Answer = { tokens: [], logprobs: [] };
  for await (const event of engine.generate(request)) {
    if (event.type !== 'delta') continue;
    answer.tokens.push(...event.tokenIds);
    answer.logprobs.push(...(event.logprobs ?? []).map((each) => each.logprob));
  }
  return answer;
}

export function describeExact(name: string, config: ExactCase): void {
  describe(`${name}, ${config.precision}: tokens do not depend on the batch`, () => {
    const names = Object.keys(config.adapters);
    const mixed = (...weights: number[]): AdapterMix =>
      Object.fromEntries(weights.map((weight, i) => [names[i]!, weight]));
    const chosen = [undefined, ...names, mixed(0.7, 0.3), mixed(0.5, 0.75, -0.25)];
    let requests: GenerateRequest[];
    let alone: Answer[];
    const engines: Engine[] = [];

    async function start(options: { memoryBytes?: number; maxBatchTokens?: number }) {
      const engine = createEngine({
        model: config.model,
        precision: config.precision,
        device: config.device ?? 'cpu',
        ...(config.device === 'cuda' ? { deterministic: true, memoryBytes: 256 << 20 } : {}),
        ...options,
      });
      engines.push(engine);
      for (const [adapter, directory] of Object.entries(config.adapters)) {
        await engine.adapters.add(adapter, directory);
      }
      return engine;
    }

    beforeAll(async () => {
      const engine = await start({});
      const { vocabSize } = await engine.ready();
      const random = randomNumbers(7);
      requests = Array.from({ length: NUM_SEQUENCES }, (_, index) => {
        const length =
          index % 4 === 0 ? config.longestPrompt : 1 + Math.floor(random() * config.longestPrompt);
        const adapter = chosen[index % chosen.length];
        return {
          promptTokens: Array.from({ length }, () => Math.floor(random() * vocabSize)),
          ...(adapter === undefined ? {} : { adapter }),
          sampling: samplingOf(index, config.outputTokens),
        };
      });
      alone = [];
      for (const request of requests) alone.push(await answerOf(engine, request));
      await engine.dispose();
    }, 600_000);

    afterAll(() => Promise.all(engines.map((engine) => engine.dispose())));

    it('adapters and seeds matter (or equality would show nothing)', () => {
      expect(new Set(alone.map((each) => String(each.tokens))).size).toBe(NUM_SEQUENCES);
      for (const [index, { tokens, logprobs }] of alone.entries()) {
        expect(tokens).toHaveLength(config.outputTokens);
        expect(logprobs).toHaveLength(index % 2 === 0 ? config.outputTokens : 0);
      }
    });

    it('staggered arrivals, prompts longer than a chunk', { timeout: 600_000 }, async () => {
      const engine = await start({ maxBatchTokens: config.chunkTokens });
      const together = await Promise.all(
        requests.map(async (request, index) => {
          await sleep(index * 7);
          return answerOf(engine, request);
        }),
      );
      const { totals, recentSteps } = await engine.stats();
      await engine.dispose();
      expect(together).toEqual(alone);
      expect(totals.preemptions).toBe(0);
      expect(Math.max(...recentSteps.map((step) => step.adapters))).toBeGreaterThan(1);
      expect(recentSteps.some((step) => step.prefillTokens > 0 && step.decodeTokens > 0)).toBe(
        true,
      );
    });

    it('a pool too small for all of them: preempted, none lost', { timeout: 600_000 }, async () => {
      const probe = await start({});
      const { pageBytes, blockTokens } = await probe.ready();
      const listed = await probe.adapters.list();
      await probe.dispose();
      const adapterPages = listed.reduce((sum, each) => sum + Math.ceil(each.bytes / pageBytes), 0);
      const pages = config.smallPoolPages(blockTokens, adapterPages);
      const engine = await start({
        memoryBytes: pages * pageBytes,
        maxBatchTokens: config.chunkTokens,
      });
      const together = await Promise.all(requests.map((request) => answerOf(engine, request)));
      const { totals, pages: left } = await engine.stats();
      await engine.dispose();
      expect(together).toEqual(alone);
      expect(totals.preemptions).toBeGreaterThan(0);
      expect(totals.finished).toBe(NUM_SEQUENCES);
      expect(left.kv).toBe(0);
    });
  });
}
