// The V3 wrapper under ai 6.
import { createProviderRegistry, embed, embedMany, generateText, streamText } from 'ai6';
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

  it("is one tenant's view", async () => {
    const acme = lorax.tenant('acme');
    const { text } = await generateText({ model: acme('pirate'), prompt: 'hi' });
    expect(text).toBe('Arr: hi');
    expect(acme.specificationVersion).toBe('v3');
    expect((await acme.stats()).totals).toMatchObject({ finished: 1 });
    expect((await acme.prefetch('pirate')).name).toBe('pirate');
    await expect(generateText({ model: acme('other'), prompt: 'hi' })).rejects.toThrow('other');
  });

  it('embeds', async () => {
    const model = lorax.embeddingModel('pirate');
    const one = await embed({ model, value: 'hello there' });
    expect(one.embedding).toHaveLength(32);
    expect(one.usage).toEqual({ tokens: 2 });
    expect(one.providerMetadata?.lorax).toMatchObject({ adapter: 'pirate' });
    const providerOptions = { lorax: { pooling: 'last', normalize: false } };
    const values = ['hello there', 'there'];
    const many = await embedMany({ model, values, providerOptions });
    expect(many.embeddings[0]).toEqual(many.embeddings[1]);
    const registry = createProviderRegistry({ lorax });
    const base = registry.embeddingModel('lorax:base');
    expect(base.specificationVersion).toBe('v3');
    expect(lorax.textEmbeddingModel().modelId).toBe('base');
    expect((await embed({ model: base, value: 'hello there' })).embedding).not.toEqual(
      one.embedding,
    );
    await expect(embed({ model: lorax.embeddingModel('nobody'), value: 'x' })).rejects.toThrow(
      /nobody/,
    );
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
