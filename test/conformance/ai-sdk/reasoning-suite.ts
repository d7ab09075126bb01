// Reasoning as parts of its own: found, counted, turned off, and before calls and structured output.
import type { LanguageModelV4CallOptions, LanguageModelV4StreamPart } from '@ai-sdk/provider';
import type { LoraxProvider } from 'lorax-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as templates from '../../chat-templates.js';
import { demoVariant, type DemoVariant, type VariantOptions } from '../../demo-variant.js';
import type { Sdk } from './sdk.js';
import { user } from './sdk.js';

/** The prompt opens the reasoning, so that weights that know nothing of it reason all the same. */
const MODELS: Record<string, { template: string; tokens: VariantOptions }> = {
  'tags that are text': { template: templates.HERMES_OPEN_THINKING, tokens: {} },
  'tags that are special tokens': {
    template: templates.HERMES_OPEN_THINKING.replaceAll('<think>', '[THINK]'),
    tokens: { special: ['[THINK]', '[/THINK]'] },
  },
};
const constraint = { choice: ['yes', 'no'] };
const tools = [
  {
    ...{ type: 'function' as const, name: 'now', description: 'The time' },
    inputSchema: { type: 'object' as const, properties: { utc: { type: 'boolean' as const } } },
  },
];

export function describeReasoning({ ai, createLorax }: Sdk): void {
  describe.each(Object.entries(MODELS))('%s', (_name, { template, tokens }) => {
    let variant: DemoVariant;
    let lorax: LoraxProvider;
    beforeAll(() => {
      variant = demoVariant(template, tokens);
      lorax = createLorax({ model: variant.directory });
    });
    afterAll(async () => {
      await lorax.dispose();
      variant.remove();
    });

    const read = async (seed: number, more: Partial<LanguageModelV4CallOptions>) => {
      const { stream } = await lorax().doStream({
        ...{ prompt: user('Do you ship to Norway?'), maxOutputTokens: 80, temperature: 1.5, seed },
        ...more,
      });
      const parts: LanguageModelV4StreamPart[] = [];
      for await (const part of stream) parts.push(part as LanguageModelV4StreamPart);
      const join = (type: 'text-delta' | 'reasoning-delta') =>
        parts.map((part) => (part.type === type ? part.delta : '')).join('');
      const { usage, finishReason } = parts.at(-1) as LanguageModelV4StreamPart & {
        type: 'finish';
      };
      return {
        ...{ parts, text: join('text-delta'), reasoning: join('reasoning-delta') },
        ...{ usage: usage.outputTokens, finishReason },
      };
    };

    it('comes first, and its tokens are counted', async () => {
      for (let seed = 0; seed < 6; seed++) {
        const providerOptions = { lorax: constraint };
        const { parts, text, reasoning, usage } = await read(seed, { providerOptions });
        expect(['yes', 'no']).toContain(text);
        expect(reasoning).not.toMatch(/^\s|\s$|think|THINK/);
        expect(parts.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1])).toEqual(
          [
            ...['stream-start', 'response-metadata'],
            ...['reasoning-start', 'reasoning-delta', 'reasoning-end'],
            ...['text-start', 'text-delta', 'text-end', 'finish'],
          ],
        );
        expect(usage.reasoning).toBeGreaterThan(0);
        expect(usage.text! + usage.reasoning!).toBe(usage.total);
        // It was closed in time for the answer.
        expect(usage.total).toBeLessThanOrEqual(80);
      }
    });

    it('before a call', async () => {
      for (let seed = 0; seed < 6; seed++) {
        const more = { tools, toolChoice: { type: 'required' } as const };
        const { parts, text, reasoning, finishReason } = await read(seed, more);
        expect(text).toBe('');
        expect(reasoning).not.toBe('');
        expect(finishReason.unified).toBe('tool-calls');
        const call = parts.find((part) => part.type === 'tool-call');
        expect(JSON.parse((call as { input: string }).input)).toBeTypeOf('object');
      }
    });

    it('may take all there is, where nothing has to follow', async () => {
      const providerOptions = { lorax: { ignoreEos: true } };
      for (const more of [{}, { tools }]) {
        const options = { providerOptions, maxOutputTokens: 20, ...more };
        const { text, usage, finishReason } = await read(1, options);
        expect(finishReason.unified).toBe('length');
        expect([text, usage.reasoning]).toEqual(['', 20]);
      }
    });

    it.each([
      [{ reasoning: 'none' as const }],
      [{ providerOptions: { lorax: { ...constraint, reasoning: false } } }],
    ])('is off with %j', async (more) => {
      const { reasoning, text, usage } = await read(2, more);
      expect(reasoning).toBe('');
      expect(text).not.toBe('');
      expect(usage.reasoning).toBeUndefined();
    });

    it('is what generateText and streamText give as reasoning', async () => {
      const options = {
        ...{ model: lorax(), prompt: 'Do you ship to Norway?', maxOutputTokens: 60, seed: 3 },
        providerOptions: { lorax: constraint },
      };
      const generated = await ai.generateText(options);
      const streamed = ai.streamText(options);
      expect(await streamed.reasoningText).toBe(generated.reasoningText);
      expect(generated.reasoningText).not.toBe('');
      expect(generated.usage.outputTokenDetails.reasoningTokens).toBeGreaterThan(0);
    });
  });
}
