// What apps put around a model: middleware, registries, custom providers, the global provider.
import type { LoraxProvider } from 'lorax-js';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { demoVariant, type DemoVariant } from '../../demo-variant.js';
import type { Sdk } from './sdk.js';

const QUESTION = 'Where is my order 4821?';

export function describeEcosystem({ ai, createLorax, specificationVersion }: Sdk): void {
  let variant: DemoVariant;
  let lorax: LoraxProvider;
  beforeAll(() => {
    variant = demoVariant(null);
    const directory = (name: string) => `${variant.directory}/adapters/${name}`;
    const adapters = { pirate: directory('pirate'), caps: directory('caps') };
    lorax = createLorax({ model: variant.directory, adapters, defaults: { maxOutputTokens: 60 } });
  });
  afterAll(async () => {
    await lorax.dispose();
    variant.remove();
  });
  const say = async (model: Parameters<typeof ai.generateText>[0]['model']) =>
    (await ai.generateText({ model, prompt: QUESTION })).text;

  it('wrapLanguageModel: parameters in, answers out', async () => {
    const model = ai.wrapLanguageModel({
      model: lorax('pirate'),
      middleware: {
        specificationVersion: specificationVersion as 'v4',
        transformParams: async ({ params }) => ({ ...params, maxOutputTokens: 2 }),
        wrapGenerate: async ({ doGenerate }) => {
          const result = await doGenerate();
          return { ...result, content: [...result.content, { type: 'text', text: '!' }] };
        },
      },
    });
    const { text, usage, finishReason } = await ai.generateText({ model, prompt: QUESTION });
    expect([usage.outputTokens, finishReason]).toEqual([2, 'length']);
    expect(text).toMatch(/!$/);
  });

  it('extractReasoningMiddleware: for models whose template tells nothing of reasoning', async () => {
    const model = ai.wrapLanguageModel({
      model: lorax(),
      middleware: ai.extractReasoningMiddleware({ tagName: 'think' }),
    });
    // A model that was trained to think aloud, as far as its text goes.
    const grammar = 'root ::= "<think>" "so " "it is" "</think>" "Tuesday."';
    const providerOptions = { lorax: { grammar } };
    const generated = await ai.generateText({ model, prompt: QUESTION, providerOptions });
    expect(generated.reasoningText).toBe('so it is');
    expect(generated.text).toBe('Tuesday.');
    const result = ai.streamText({ model, prompt: QUESTION, providerOptions });
    let reasoning = '';
    for await (const part of result.fullStream) {
      if (part.type === 'reasoning-delta') reasoning += part.text;
    }
    expect(reasoning).toBe('so it is');
  });

  it('createProviderRegistry and customProvider: by id, without a warning', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const registry = ai.createProviderRegistry({
      lorax,
      support: ai.customProvider({ languageModels: { loud: lorax('caps') } }),
    });
    const model = registry.languageModel('lorax:pirate');
    expect(model.specificationVersion).toBe(specificationVersion);
    expect(await say(model)).toBe(await say(lorax('pirate')));
    expect(await say(registry.languageModel('support:loud'))).toBe(await say(lorax('caps')));
    await expect(say(registry.languageModel('lorax:../x'))).rejects.toSatisfy(
      ai.NoSuchModelError.isInstance,
    );
    const fallback = ai.customProvider({ languageModels: {}, fallbackProvider: lorax });
    expect(await say(fallback.languageModel('pirate'))).toBe(await say(lorax('pirate')));
    expect(warn).not.toHaveBeenCalled();
    warn.mockRestore();
  });

  it('the global provider: a plain id is an adapter', async () => {
    const globals = globalThis as { AI_SDK_DEFAULT_PROVIDER?: unknown };
    globals.AI_SDK_DEFAULT_PROVIDER = lorax;
    try {
      expect(await say('pirate' as never)).toBe(await say(lorax('pirate')));
    } finally {
      delete globals.AI_SDK_DEFAULT_PROVIDER;
    }
  });

  describe('structured output', () => {
    it('is an object that matches', async () => {
      const { output } = await ai.generateText({
        ...{ model: lorax(), prompt: QUESTION, maxOutputTokens: 80, temperature: 1.5 },
        output: ai.Output.object({
          schema: ai.jsonSchema<{ day: string }>({
            ...{ type: 'object', required: ['day'], additionalProperties: false },
            properties: { day: { enum: ['Monday', 'Tuesday'] } },
          }),
        }),
      });
      expect(['Monday', 'Tuesday']).toContain((output as { day: string }).day);
    });
  });
}
