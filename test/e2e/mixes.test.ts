// Mixes of adapters on the real engine and the demo model: what a mix is equal to, what it is called,
// and what is refused. PEFT's numbers for mixes are in goldens.test.ts, their place in a batch in
// exact.test.ts.
import { embed, generateText, streamText } from 'ai';
import { createLorax } from 'lorax-js';
import type { AdapterMix, GenerateRequest, LoraxProvider } from 'lorax-js';
import { createLorax as createLoraxV3 } from 'lorax-js/ai6';
import { ChatLorax, LoraxEmbeddings, LoraxLLM } from 'lorax-js/langchain';
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const names = readdirSync(`${demo}/adapters`).sort();
const options = {
  ...{ model: demo, ...exactDevice },
  adapters: {
    ...Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
    again: `${demo}/adapters/pirate`,
  } as Record<string, string>,
};
const question = 'Where is my order 4821?';
const mix: AdapterMix = { pirate: 0.7, json: 0.3 };

let lorax: LoraxProvider;
beforeAll(() => {
  lorax = createLorax({ ...options, defaults: { maxOutputTokens: 24 } });
});
afterAll(() => lorax.dispose());

/** Tokens with their logprobs, which show a difference before the tokens do. */
async function answer(adapter: string | AdapterMix) {
  const request: GenerateRequest = {
    ...{ messages: [{ role: 'user', content: question }], adapter },
    sampling: { maxOutputTokens: 16, temperature: 0, logprobs: 0 },
  };
  const tokens: { tokenId: number; logprob: number }[] = [];
  for await (const event of lorax.engine.generate(request)) {
    if (event.type === 'delta') tokens.push(...(event.logprobs ?? []));
  }
  return tokens;
}

async function refusal(adapter: unknown) {
  return answer(adapter as AdapterMix).catch((error: unknown) => error);
}

describe('a mix', () => {
  it('of one adapter with the weight 1 is that adapter', async () => {
    expect(await answer({ pirate: 1 })).toEqual(await answer('pirate'));
    expect(lorax.mix({ pirate: 1 }).modelId).toBe('pirate');
  });

  it('of two names of the same weights is those weights times the sum', async () => {
    expect(await answer({ pirate: 0.25, again: 0.75 })).toEqual(await answer('pirate'));
    expect(await answer({ pirate: 0.25, again: 0.5 })).toEqual(await answer({ pirate: 0.75 }));
  });

  it('does not depend on the order of names, but on every weight', async () => {
    const one = await answer(mix);
    expect(await answer({ json: 0.3, pirate: 0.7 })).toEqual(one);
    const others: AdapterMix[] = [
      { pirate: 0.7, json: 0.31 },
      { pirate: -0.7, json: 0.3 },
      { pirate: 0.7 },
      { json: 0.3 },
      { pirate: 0.7, french: 0.3 },
    ];
    for (const other of others) expect(await answer(other)).not.toEqual(one);
    expect(await answer('base')).not.toEqual(one);
  });

  it('of as many as there may be answers', async () => {
    const all = Object.fromEntries([...names, 'again'].map((name, i) => [name, 0.1 * (i + 1)]));
    expect(Object.keys(all)).toHaveLength(8);
    expect(await answer(all)).toHaveLength(16);
  });

  it('says what it is made of, and its hash tells it from others', async () => {
    const { text, providerMetadata } = await generateText({
      model: lorax.mix(mix),
      prompt: question,
    });
    const listed = await lorax.adapters.list();
    const hashOf = (name: string) => listed.find((info) => info.name === name)!.hash;
    const lines = [`${hashOf('pirate')} 0.7\n`, `${hashOf('json')} 0.3\n`].sort().join('');
    expect(providerMetadata?.lorax).toMatchObject({
      adapter: '0.7*pirate + 0.3*json',
      adapterHash: createHash('sha256').update(lines).digest('hex'),
    });
    expect(text).not.toBe('');
    const request = { prompt: 'Once', adapter: mix, sampling: { maxOutputTokens: 1 } };
    const events = lorax.engine.generate(request)[Symbol.asyncIterator]();
    const start = await events.next();
    expect(start.value).toMatchObject({
      adapter: {
        mix: [
          { name: 'pirate', hash: hashOf('pirate'), weight: 0.7 },
          { name: 'json', hash: hashOf('json'), weight: 0.3 },
        ],
      },
    });
  });

  it('goes on while one of its adapters is removed, and is unknown afterwards', async () => {
    const own = createLorax(options);
    const model = own.mix({ french: 0.5, german: 0.5 });
    const ask = () => streamText({ model, prompt: question, temperature: 0, maxOutputTokens: 40 });
    const alone = await ask().text;
    const reader = ask().textStream[Symbol.asyncIterator]();
    let text = (await reader.next()).value as string;
    await own.adapters.remove('german');
    for (let next = await reader.next(); !next.done; next = await reader.next()) text += next.value;
    expect(text).toBe(alone);
    await expect(generateText({ model, prompt: question })).rejects.toMatchObject({
      name: 'AI_NoSuchModelError',
      modelId: '0.5*french + 0.5*german',
    });
    await own.dispose();
  });
});

describe('one and the same mix', () => {
  it('answers through every door', async () => {
    const settings = { temperature: 0, maxOutputTokens: 24 };
    const { text } = await generateText({ model: lorax.mix(mix), prompt: question, ...settings });
    const v3 = createLoraxV3(options);
    const asked = {
      prompt: [{ role: 'user' as const, content: [{ type: 'text' as const, text: question }] }],
      ...settings,
    };
    const { content } = await v3.mix(mix).doGenerate(asked);
    expect(content).toEqual([expect.objectContaining({ text })]);
    const fields = { engine: lorax.engine, temperature: 0, maxTokens: 24 };
    const own = await new ChatLorax({ ...fields, adapter: mix }).invoke(question);
    expect(own.text).toBe(text);
    expect(own.response_metadata).toMatchObject({ model_name: '0.7*pirate + 0.3*json' });
    const perCall = await new ChatLorax({ ...fields, adapter: 'pirate' }).invoke(question, {
      adapter: mix,
    });
    expect(perCall.text).toBe(text);
    const plain = new LoraxLLM({ ...fields, adapter: mix, maxTokens: 6 });
    expect(await plain.invoke('Once')).not.toBe(await plain.invoke('Once', { adapter: 'base' }));
    await v3.dispose();
  });

  it('embeds', async () => {
    const value = question;
    const { embedding } = await embed({ model: lorax.embeddingMix(mix), value });
    const { embeddings, adapter } = await lorax.engine.embed({ input: [value], adapter: mix });
    expect(Array.from(embeddings[0]!)).toEqual(embedding);
    expect(adapter?.name).toBe('0.7*pirate + 0.3*json');
    const langchain = new LoraxEmbeddings({ engine: lorax.engine, adapter: mix });
    expect(await langchain.embedQuery(value)).toEqual(embedding);
    const { embedding: other } = await embed({ model: lorax.embeddingModel('pirate'), value });
    expect(other).not.toEqual(embedding);
  });
});

describe('what is no mix is refused by name, and what runs goes on', () => {
  it.each<[string, unknown, string, string]>([
    ['nothing in it', {}, 'INVALID_OPTIONS', 'names no adapter'],
    ['a list', ['pirate'], 'INVALID_OPTIONS', 'must be a name, or an object'],
    ['a weight 0', { pirate: 1, json: 0 }, 'INVALID_OPTIONS', 'weight 0 it would do nothing'],
    ['no number', { pirate: '0.7' }, 'INVALID_OPTIONS', '["pirate"] must be a finite weight'],
    ['NaN', { pirate: NaN }, 'INVALID_OPTIONS', 'must be a finite weight, not NaN'],
    ['more than 32 bits hold', { pirate: 1e60 }, 'INVALID_OPTIONS', 'must be a finite weight'],
    ['the base', { base: 0.5, json: 0.5 }, 'INVALID_OPTIONS', 'base model is always there'],
    ['no name', { '../pirate': 1 }, 'INVALID_OPTIONS', 'a name has letters'],
    [
      'nine',
      Object.fromEntries([...names, 'again', 'one-more'].map((name) => [name, 1])),
      'INVALID_OPTIONS',
      'at most 8',
    ],
    ['a stranger', { pirate: 0.5, nobody: 0.5 }, 'ADAPTER_NOT_FOUND', 'named "nobody"'],
    ['a mix in a string', '0.7*pirate + 0.3*json', 'ADAPTER_NOT_FOUND', 'no adapter named'],
  ])('%s', async (_, adapter, code, message) => {
    const running = answer('pirate');
    const error = await refusal(adapter);
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) as string });
    expect(await running).toEqual(await answer('pirate'));
  });

  it('at once, where a model is made of it', () => {
    expect(() => lorax.mix({ pirate: 0 })).toThrow('weights["pirate"]: with the weight 0');
    expect(() => lorax.embeddingMix({})).toThrow('weights names no adapter');
    const adapter = { base: 1 };
    expect(() => new ChatLorax({ engine: lorax.engine, adapter })).toThrow(
      'options.adapter["base"]',
    );
  });
});
