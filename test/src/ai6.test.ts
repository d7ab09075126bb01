// The V3 wrapper under ai 6.
import { createProviderRegistry, generateText, streamText } from 'ai6';
import { describe, expect, it } from 'vitest';
import { asProviderV3 } from '../../src/ai6.js';
import { createFakeLorax } from '../../src/test.js';

const lorax = asProviderV3(
  createFakeLorax({
    answers: { base: 'plain answer', pirate: ({ messages }) => `Arr: ${messages.at(-1)?.content}` },
  }),
);

describe('ai 6', () => {
  it('generates', async () => {
    const result = await generateText({ model: lorax('pirate'), prompt: 'hello there' });
    expect(result.text).toBe('Arr: hello there');
    expect(result.finishReason).toBe('stop');
    expect(result.usage).toMatchObject({ inputTokens: 2, outputTokens: 3 });
    expect(result.providerMetadata?.lorax).toMatchObject({ adapter: 'pirate' });
  });

  it('streams, and works in a registry', async () => {
    const registry = createProviderRegistry({ lorax });
    const model = registry.languageModel('lorax:base');
    expect(model.specificationVersion).toBe('v3');
    const result = streamText({ model, prompt: 'x' });
    let text = '';
    for await (const delta of result.textStream) text += delta;
    expect(text).toBe('plain answer');
  });

  it('refuses what it cannot do', async () => {
    await expect(
      generateText({
        model: lorax(),
        messages: [
          {
            role: 'user',
            content: [{ type: 'image', image: new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]) }],
          },
        ],
      }),
    ).rejects.toThrow(/not supported/);
    await expect(generateText({ model: lorax('nobody'), prompt: 'x' })).rejects.toThrow(/nobody/);
  });
});
