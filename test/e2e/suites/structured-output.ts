/**
 * "Structured": whatever the weights, what is generated under a schema parses and validates, within
 * its budget of tokens.
 *
 * One suite for any model: every schema of test/worker/grammar/schemas.ts many times in one batch, at
 * temperature 1.5, each with a budget somewhere between the least that its grammar can be closed in and
 * some more. ajv is the judge. Run with random weights and three tokenizers and on the demo model by
 * `npm test`, on SmolLM2 by `npm run check:smollm2`.
 */
import { createEngine, LoraxError } from 'lorax-js/engine';
import type { Constraint, Engine, EngineOptions, Usage } from 'lorax-js/engine';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compileSchema } from '../../worker/grammar/ajv.js';
import { SCHEMAS } from '../../worker/grammar/schemas.js';
import { Random } from '../../worker/random.js';

export interface StructuredCase {
  model: string;
  /** Generations in all, over all schemas. */
  generations: number;
  device?: Partial<EngineOptions>;
  /** What may be added to the least budget, tokens. */
  spareTokens?: number;
}

interface Answer {
  text: string;
  reason: string;
  rawReason: string;
  usage: Usage;
}

const TEMPERATURE = 1.5;

export function describeStructured(name: string, how: () => StructuredCase): void {
  describe(`structured output of ${name}`, () => {
    let engine: Engine;
    let given: StructuredCase;

    beforeAll(async () => {
      given = how();
      engine = createEngine({ model: given.model, maxQueued: 100_000, ...given.device });
      await engine.ready();
    }, 120_000);
    afterAll(() => engine.dispose());

    async function answer(
      constraint: Constraint | undefined,
      sampling: { maxOutputTokens: number; seed: number },
    ): Promise<Answer> {
      let text = '';
      const request = {
        prompt: `Number ${sampling.seed}:`,
        ...(constraint === undefined ? {} : { constraint }),
        sampling: { temperature: TEMPERATURE, ...sampling },
      };
      for await (const event of engine.generate(request)) {
        if (event.type === 'delta') text += event.text;
        if (event.type === 'finish') {
          const { reason, rawReason, usage } = event;
          return { text, reason, rawReason, usage };
        }
      }
      throw new Error('no finish');
    }

    /** The fewest tokens that the engine takes the constraint with; told by its refusal. */
    async function leastTokens(constraint: Constraint): Promise<number> {
      try {
        await answer(constraint, { maxOutputTokens: 1, seed: 0 });
        return 1;
      } catch (error) {
        if (!LoraxError.isInstance(error) || error.code !== 'INVALID_OPTIONS') throw error;
        return Number(error.data.shortestTokens);
      }
    }

    it('is always valid and within its budget', { timeout: 600_000 }, async () => {
      const random = new Random(20261129);
      const perSchema = Math.ceil(given.generations / SCHEMAS.length);
      const faults: string[] = [];
      let answers = 0;
      let cut = 0;
      await Promise.all(
        SCHEMAS.map(async ({ name: schemaName, schema }, index) => {
          const constraint: Constraint = { type: 'json', schema };
          const isValid = compileSchema(schema);
          const least = await leastTokens(constraint);
          const one = async (round: number) => {
            const maxOutputTokens = least + random.below(given.spareTokens ?? 48);
            const seed = index * 1000 + round;
            const { text, reason, usage } = await answer(constraint, { maxOutputTokens, seed });
            answers++;
            if (usage.outputTokens >= maxOutputTokens - 1) cut++;
            const fault = faultOf(text, reason, usage.outputTokens, maxOutputTokens, isValid);
            if (fault !== null) faults.push(`${schemaName}, seed ${seed}: ${fault}: ${text}`);
          };
          await Promise.all(Array.from({ length: perSchema }, (_, round) => one(round)));
        }),
      );
      expect(faults).toEqual([]);
      expect(answers).toBeGreaterThanOrEqual(given.generations);
      // Not all were short by chance: many had to be closed in time.
      expect(cut).toBeGreaterThan(answers / 50);
    });

    it('matches patterns, choices and grammars', { timeout: 120_000 }, async () => {
      const choices = ['red', 'green', 'greenish', 'blue sky'];
      const grammar = 'root ::= "<" item ("," item){1,3} ">"\nitem ::= [a-c]+ | "[" item "]"';
      const cases: [Constraint, (text: string) => boolean][] = [
        [{ type: 'choice', choices }, (text) => choices.includes(text)],
        [
          { type: 'regex', pattern: '[A-Z][a-z]{2,8}: \\d+(?:\\.\\d\\d)?' },
          (text) => /^[A-Z][a-z]{2,8}: \d+(?:\.\d\d)?$/.test(text),
        ],
        [
          { type: 'regex', pattern: '(?=.*ß)[^\\n]{3,9}' },
          (text) => /^(?=.*ß)[^\n]{3,9}$/u.test(text),
        ],
        [{ type: 'grammar', grammar }, (text) => /^<[a-c[\]]+(,[a-c[\]]+){1,3}>$/.test(text)],
      ];
      for (const [constraint, holds] of cases) {
        const least = await leastTokens(constraint);
        const texts = await Promise.all(
          Array.from({ length: 25 }, (_, seed) =>
            answer(constraint, { maxOutputTokens: least + (seed % 20), seed }),
          ),
        );
        expect(texts.filter(({ text, reason }) => !holds(text) || reason !== 'stop')).toEqual([]);
        expect(new Set(texts.map(({ text }) => text)).size).toBeGreaterThan(1);
      }
    });

    it('jumps over what is forced', { timeout: 60_000 }, async () => {
      const value = 'the quick brown fox jumps over the lazy dog, and over every other dog too';
      const constraint: Constraint = { type: 'choice', choices: [value] };
      const before = (await engine.stats()).totals;
      const { text, usage } = await answer(constraint, { maxOutputTokens: 200, seed: 1 });
      const { totals } = await engine.stats();
      expect(text).toBe(value);
      expect(totals.steps - before.steps).toBeLessThan(usage.outputTokens / 2);
    });

    it(
      'changes nothing for those without, in one batch with them',
      { timeout: 60_000 },
      async () => {
        const constraint: Constraint = { type: 'json', schema: { type: 'array', items: {} } };
        const free = (seed: number) => answer(undefined, { maxOutputTokens: 24, seed });
        const alone: string[] = [];
        for (let seed = 0; seed < 4; seed++) alone.push((await free(seed)).text);
        const [together] = await Promise.all([
          Promise.all(alone.map((_, seed) => free(seed))),
          ...alone.map((_, seed) => answer(constraint, { maxOutputTokens: 24, seed })),
        ]);
        expect(together.map(({ text }) => text)).toEqual(alone);
      },
    );

    it('is refused by name where it cannot be, and the engine goes on', async () => {
      const code = (constraint: Constraint) =>
        answer(constraint, { maxOutputTokens: 20, seed: 1 }).catch((error: LoraxError) => [
          error.code,
          error.data,
        ]);
      expect(await code({ type: 'json', schema: { contains: {} } })).toEqual([
        'CONSTRAINT_UNSUPPORTED',
        { keyword: 'contains', pointer: '#' },
      ]);
      expect(await code({ type: 'grammar', grammar: 'root ::= "a\n' })).toMatchObject([
        'GRAMMAR_INVALID',
        { line: 1 },
      ]);
      const schema = { enum: ['x'.repeat(400)] };
      expect(await code({ type: 'json', schema })).toMatchObject(['INVALID_OPTIONS', {}]);
      const { text } = await answer(
        { type: 'json', schema: { const: 7 } },
        { maxOutputTokens: 9, seed: 1 },
      );
      expect(text).toBe('7');
    });
  });
}

function faultOf(
  text: string,
  reason: string,
  outputTokens: number,
  maxOutputTokens: number,
  isValid: ReturnType<typeof compileSchema>,
): string | null {
  if (outputTokens > maxOutputTokens) return `${outputTokens} tokens of ${maxOutputTokens}`;
  if (reason !== 'stop') return `ended by ${reason}`;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'no JSON';
  }
  return isValid(value) ? null : JSON.stringify(isValid.errors);
}
