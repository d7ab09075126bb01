// ChatLorax as its users meet it, on scripted answers: calls, options, what an answer tells.
import { directorySource } from '../../../src/adapter-source.js';
import { BaseCallbackHandler } from '@langchain/core/callbacks/base';
import { InMemoryCache } from '@langchain/core/caches';
import { ContextOverflowError, getRetryable } from '@langchain/core/errors';
import { load } from '@langchain/core/load';
import { AIMessage, AIMessageChunk, HumanMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { LoraxError } from '../../../src/errors.js';
import { ChatLorax } from '../../../src/langchain/chat-lorax.js';
import type { ChatLoraxFields } from '../../../src/langchain/chat-lorax.js';
import type { FakeAnswer } from '../../../src/testing/fake-answer.js';
import { RecordedEngine } from './recorded-engine.js';

const echo: FakeAnswer = ({ adapter, messages }) => `${adapter} says ${messages.at(-1)?.content}`;

function setUp(fields: ChatLoraxFields = {}, answers: Record<string, FakeAnswer> = {}) {
  const engine = new RecordedEngine({ base: echo, pirate: echo, ...answers });
  return { engine, llm: new ChatLorax({ engine, ...fields }) };
}

async function collect(stream: AsyncIterable<AIMessageChunk>): Promise<AIMessageChunk[]> {
  const chunks: AIMessageChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

function join_(chunks: AIMessageChunk[]): AIMessageChunk {
  return chunks.reduce((all, chunk) => all.concat(chunk));
}

const hash = expect.stringMatching(/^[0-9a-f]{64}$/);

describe('calls', () => {
  it('invoke answers with text, usage and what it is made of', async () => {
    const { llm } = setUp({ adapter: 'pirate' });
    const answer = await llm.invoke('good day to you');
    expect(answer).toBeInstanceOf(AIMessage);
    expect(answer.content).toBe('pirate says good day to you');
    expect(answer.id).toMatch(/^lorax-/);
    expect(answer.usage_metadata).toEqual({
      ...{ input_tokens: 4, output_tokens: 6, total_tokens: 10 },
      input_token_details: { cache_read: 0 },
    });
    expect(answer.response_metadata).toEqual({
      ...{ model_provider: 'lorax', model: 'pirate', model_name: 'pirate' },
      ...{ adapter: 'pirate', adapter_hash: hash },
      ...{ finish_reason: 'stop', raw_finish_reason: 'eos' },
      timing: {
        queue_ms: 0,
        time_to_first_token_ms: expect.any(Number),
        total_ms: expect.any(Number),
      },
      tokenUsage: { promptTokens: 4, completionTokens: 6, totalTokens: 10 },
    });
  });

  it('stream gives a chunk a token, and the same message in the end', async () => {
    const { llm } = setUp({ adapter: 'pirate' });
    const chunks = await collect(await llm.stream('good day'));
    expect(chunks.map(({ content }) => content)).toEqual(['pirate', ' says', ' good', ' day', '']);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks.filter(({ usage_metadata }) => usage_metadata)).toEqual([chunks.at(-1)]);
    const whole = join_(chunks);
    const { tokenUsage: _, timing: __, ...told } = (await llm.invoke('good day')).response_metadata;
    expect(whole.response_metadata).toMatchObject(told);
    expect(whole.usage_metadata?.input_token_details).toEqual({ cache_read: 0 });
  });

  it('batch asks everything at once', async () => {
    const { llm, engine } = setUp();
    const texts = ['a', 'b', 'c'];
    const pending = llm.batch(texts);
    await vi.waitFor(() => expect(engine.requests).toHaveLength(3));
    expect((await pending).map(({ text }) => text)).toEqual(
      texts.map((text) => `base says ${text}`),
    );
  });

  it('generate sums the usage of several prompts', async () => {
    const { llm } = setUp();
    const { llmOutput } = await llm.generate([[new HumanMessage('a')], [new HumanMessage('b c')]]);
    expect(llmOutput).toEqual({
      tokenUsage: { promptTokens: 3, completionTokens: 7, totalTokens: 10 },
    });
  });

  it('streamEvents (v2) tells start, stream and end', async () => {
    const { llm } = setUp();
    const events = [];
    for await (const event of llm.streamEvents('hi', { version: 'v2' })) events.push(event);
    expect(events.map(({ event }) => event)).toEqual([
      'on_chat_model_start',
      ...Array.from({ length: 4 }, () => 'on_chat_model_stream'),
      'on_chat_model_end',
    ]);
    expect(events[0]?.metadata).toMatchObject({ ls_provider: 'lorax', ls_model_name: 'base' });
    expect((events.at(-1)?.data.output as AIMessage).text).toBe('base says hi');
  });

  it('tells callbacks of every token when streaming, and of invoke if told to', async () => {
    const { engine } = setUp();
    const tokens = async (fields: ChatLoraxFields, stream: boolean) => {
      const seen: string[] = [];
      const callbacks = [
        BaseCallbackHandler.fromMethods({ handleLLMNewToken: (token) => void seen.push(token) }),
      ];
      const llm = new ChatLorax({ engine, ...fields });
      if (stream) await collect(await llm.stream('hi', { callbacks }));
      else await llm.invoke('hi', { callbacks });
      return seen.join('|');
    };
    expect(await tokens({}, true)).toBe('base| says| hi|');
    expect(await tokens({ streaming: true }, false)).toBe('base| says| hi');
    expect(await tokens({}, false)).toBe('');
  });
});

describe('options', () => {
  it('reach the engine under its names; a call comes before the model', async () => {
    const { llm, engine } = setUp({
      ...{ adapter: 'pirate', temperature: 0.5, topP: 0.9, maxTokens: 50, seed: 1 },
      ...{ stopSequences: ['END'], reasoning: false },
    });
    await llm.invoke('x');
    expect(engine.request).toEqual({
      messages: [{ role: 'user', content: 'x' }],
      adapter: 'pirate',
      sampling: { temperature: 0.5, topP: 0.9, maxOutputTokens: 50, seed: 1, stop: ['END'] },
      reasoning: false,
    });
    await llm.invoke('x', {
      ...{ adapter: 'base', temperature: 1, topK: 3, minP: 0.1, repetitionPenalty: 1.1 },
      ...{ frequencyPenalty: 0.1, presencePenalty: 0.2, logitBias: { 5: 1 }, logprobs: 1 },
      ...{ stop: ['STOP'], stopTokenIds: [7], ignoreEos: true, maxTokens: 9, reasoning: true },
    });
    expect(engine.request).toMatchObject({
      ...{ adapter: 'base', reasoning: true },
      sampling: {
        ...{ temperature: 1, topP: 0.9, seed: 1, topK: 3, minP: 0.1, repetitionPenalty: 1.1 },
        ...{ frequencyPenalty: 0.1, presencePenalty: 0.2, logitBias: { 5: 1 }, logprobs: 1 },
        ...{ stop: ['STOP'], stopTokenIds: [7], ignoreEos: true, maxOutputTokens: 9 },
      },
    });
  });

  it('that are bound belong to the bound model alone', async () => {
    const { llm, engine } = setUp({ temperature: 0 });
    await llm.withConfig({ adapter: 'pirate', temperature: 2 }).invoke('x');
    expect(engine.request).toMatchObject({ adapter: 'pirate', sampling: { temperature: 2 } });
    await llm.invoke('x');
    expect(engine.request).toMatchObject({ adapter: 'base', sampling: { temperature: 0 } });
  });

  it('cut at stop strings and at the maximum', async () => {
    const { llm } = setUp();
    const stopped = await llm.invoke('a b c', { stop: [' b'] });
    expect(stopped.text).toBe('base says a');
    expect(stopped.response_metadata).toMatchObject({
      ...{ finish_reason: 'stop', raw_finish_reason: 'stop-string: b' },
    });
    const cut = await llm.invoke('a b c', { maxTokens: 2 });
    expect(cut.response_metadata).toMatchObject({ finish_reason: 'length' });
  });

  it('of a wrong shape are refused by name', async () => {
    const { llm, engine } = setUp();
    const refused = (fields: object) => () => new ChatLorax(fields as ChatLoraxFields);
    expect(refused({ temprature: 1 })).toThrow(/Did you mean "temperature"/);
    expect(refused({ model: './m', maxTokens: 0 })).toThrow(/options\.maxTokens/);
    expect(refused({ engine: {} })).toThrow(/options\.engine must be/);
    expect(refused({ engine, model: './m', adapters: {} })).toThrow(/leave out model, adapters/);
    expect(refused({ device: 'cpu' })).toThrow(/options\.model is missing/);
    expect(refused({ model: './m', adapters: { '../x': './x' } })).toThrow(/adapters\["\.\.\/x"\]/);
    await expect(llm.invoke('x', { topP: 2 })).rejects.toMatchObject({
      ...{ code: 'INVALID_OPTIONS', data: { field: 'options.topP' } },
    });
    await expect(llm.invoke('x', { adapter: '../../etc' })).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
    await expect(llm.invoke('x', { adapter: 'nobody' })).rejects.toMatchObject({
      ...{ code: 'ADAPTER_NOT_FOUND', data: { known: ['pirate'] } },
    });
  });

  it('that other providers have need not be taken out', () => {
    const { llm } = setUp({ apiKey: 'secret', streaming: true, timeout: 1000, maxRetries: 1 });
    expect(JSON.stringify(llm)).not.toContain('secret');
  });
});

describe('failures', () => {
  const busy = () => new LoraxError('QUEUE_FULL', '1 request waits already.');

  it.each(['invoke', 'stream'] as const)('%s tries again while the queue is full', async (way) => {
    vi.useFakeTimers();
    try {
      let attempts = 0;
      const { llm } = setUp({}, { base: () => (++attempts < 3 ? busy() : 'at last') });
      const answer =
        way === 'invoke'
          ? llm.invoke('x')
          : llm.stream('x').then(async (stream) => join_(await collect(stream)));
      const settled = answer.then(({ text }) => text);
      while (attempts < 3) await vi.advanceTimersByTimeAsync(1000);
      vi.useRealTimers();
      expect(await settled).toBe('at last');
    } finally {
      vi.useRealTimers();
    }
  });

  it('gives up after maxRetries, and says that a later try may succeed', async () => {
    const { llm, engine } = setUp({ maxRetries: 0 }, { base: busy });
    const error: unknown = await llm.invoke('x').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'QUEUE_FULL' });
    expect(getRetryable(error)).toBe(true);
    expect(engine.requests).toHaveLength(1);
  });

  it('tries nothing else again', async () => {
    const lost = new LoraxError('ENGINE_LOST', 'gone');
    const { llm, engine } = setUp({}, { base: lost });
    const error: unknown = await llm.invoke('x').catch((reason: unknown) => reason);
    expect([error, getRetryable(error)]).toEqual([lost, false]);
    expect(engine.requests).toHaveLength(1);
  });

  it('leaves the judgement to onFailedAttempt, where given', async () => {
    const seen: unknown[] = [];
    const onFailedAttempt = (error: unknown) => {
      seen.push(error);
      throw error;
    };
    const { llm } = setUp({ onFailedAttempt }, { base: busy });
    await expect(llm.invoke('x')).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    expect(seen).toHaveLength(1);
  });

  it('are ContextOverflowErrors where the prompt is too long', async () => {
    const { llm } = setUp({}, { base: new LoraxError('CONTEXT_TOO_LONG', '9 tokens of 8') });
    const error: unknown = await llm.invoke('x').catch((reason: unknown) => reason);
    expect(ContextOverflowError.isInstance(error)).toBe(true);
    expect((error as Error).cause).toMatchObject({ code: 'CONTEXT_TOO_LONG' });
  });

  it('end a stream after what came before', async () => {
    const thenFail = new LoraxError('POOL_EXHAUSTED', 'full');
    const { llm } = setUp({}, { base: { text: 'so far', thenFail } });
    const seen: string[] = [];
    const read = async () => {
      for await (const { text } of await llm.stream('x')) seen.push(text);
    };
    await expect(read()).rejects.toBe(thenFail);
    expect(seen.join('')).toBe('so far');
  });
});

describe('abort', () => {
  const endless: FakeAnswer = 'a b c d e f g h i j k l m n o p q r s t u v w x y z';

  it('by signal ends one call and no other', async () => {
    const engine = new RecordedEngine({ base: endless }, 2);
    const llm = new ChatLorax({ engine });
    const controller = new AbortController();
    const stopped = llm.invoke('x', { signal: controller.signal });
    const other = llm.invoke('x');
    setTimeout(() => controller.abort(), 10);
    await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
    expect((await other).text).toBe(endless);
    expect((await engine.stats()).totals).toMatchObject({ aborted: 1, finished: 1 });
  });

  it('by leaving a stream ends its request', async () => {
    const engine = new RecordedEngine({ base: endless }, 1);
    for await (const _ of await new ChatLorax({ engine }).stream('x')) break;
    await vi.waitFor(async () => expect((await engine.stats()).totals.aborted).toBe(1));
  });

  it('in the middle of a stream rejects it', async () => {
    const engine = new RecordedEngine({ base: endless }, 1);
    const controller = new AbortController();
    let seen = 0;
    const read = async () => {
      const stream = await new ChatLorax({ engine }).stream('x', { signal: controller.signal });
      for await (const _ of stream) if (++seen === 3) controller.abort();
    };
    await expect(read()).rejects.toThrow();
    expect(seen).toBe(3);
    expect((await engine.stats()).requests.running).toBe(0);
  });

  it("by the model's timeout", async () => {
    const engine = new RecordedEngine({ base: endless }, 20);
    const llm = new ChatLorax({ engine, timeout: 30 });
    await expect(llm.invoke('x')).rejects.toMatchObject({ name: 'TimeoutError' });
    await vi.waitFor(async () => expect((await engine.stats()).requests.running).toBe(0));
  });

  it('before the call asks nothing', async () => {
    const { llm, engine } = setUp();
    const signal = AbortSignal.abort();
    await expect(llm.invoke('x', { signal })).rejects.toThrow();
    expect((await engine.stats()).totals.promptTokens).toBe(0);
  });
});

describe('identity', () => {
  it('holds base, adapter, its hash, and what decides the answers', async () => {
    const { llm } = setUp({ adapter: 'pirate', temperature: 0.5 });
    expect(llm._identifyingParams()).toEqual({ adapter: 'pirate', temperature: 0.5 });
    await llm.invoke('x');
    await llm.ready();
    expect(llm._identifyingParams()).toEqual({
      ...{ base: '/fake', adapter: 'pirate', adapter_hash: hash, temperature: 0.5 },
    });
    const base = new ChatLorax({ model: './m' });
    expect(base._identifyingParams()).toMatchObject({
      ...{ base: expect.stringMatching(/\/m$/), adapter: 'base', adapter_hash: null },
    });
  });

  it('is a cache key: same weights and settings hit, others miss', async () => {
    const cache = new InMemoryCache();
    const { llm, engine } = setUp({ adapter: 'pirate', cache });
    const first = await llm.invoke('x');
    expect((await llm.invoke('x')).text).toBe(first.text);
    expect(engine.requests).toHaveLength(1);
    const asked = async (fields: ChatLoraxFields, options = {}) => {
      const before = engine.requests.length;
      await new ChatLorax({ engine, cache, ...fields }).invoke('x', options);
      return engine.requests.length - before;
    };
    expect(await asked({ adapter: 'pirate' })).toBe(0);
    expect(await asked({}, { adapter: 'pirate' })).toBe(0);
    expect(await asked({ adapter: 'pirate' }, { seed: 1 })).toBe(1);
    expect(await asked({ adapter: 'pirate', outputVersion: 'v1' })).toBe(1);
    expect(await asked({ adapter: 'pirate', temperature: 1 })).toBe(1);
    expect(await asked({ adapter: 'base' })).toBe(1);
    const named = (name: string) => ({ tools: [tool(() => '', { name, schema: z.object({}) })] });
    expect(await asked({ adapter: 'pirate' }, named('one'))).toBe(1);
    expect(await asked({ adapter: 'pirate' }, named('two'))).toBe(1);
    expect(await asked({ adapter: 'pirate' }, named('one'))).toBe(0);
    engine.declareAdapter('pirate', directorySource('/other/content'));
    expect(await asked({ adapter: 'pirate' })).toBe(1);
    await llm.invoke('x', { signal: new AbortController().signal });
    await llm.invoke('x', { signal: new AbortController().signal });
    expect(await asked({ adapter: 'pirate' })).toBe(0);
  });

  it('of a mix is its name and the hash of what is in it', async () => {
    const cache = new InMemoryCache();
    const mix = { pirate: 0.7, json: 0.3 };
    const { llm, engine } = setUp({ adapter: mix, cache });
    engine.declareAdapter('json', directorySource('/json'));
    const shown = '0.7*pirate + 0.3*json';
    expect(llm._identifyingParams()).toMatchObject({ adapter: shown });
    expect(llm._identifyingParams()).not.toHaveProperty('adapter_hash');
    const { response_metadata: told } = await llm.invoke('x');
    expect(told).toMatchObject({ adapter: shown, model_name: shown });
    expect(llm._identifyingParams()).toMatchObject({
      ...{ adapter: shown, adapter_hash: told.adapter_hash as string },
    });
    expect(llm.getLsParams({})).toMatchObject({ ls_model_name: shown });
    const asked = async (fields: ChatLoraxFields, options = {}) => {
      const before = engine.requests.length;
      await new ChatLorax({ engine, cache, ...fields }).invoke('x', options);
      return engine.requests.length - before;
    };
    expect(await asked({ adapter: mix })).toBe(0);
    expect(await asked({}, { adapter: mix })).toBe(0);
    expect(await asked({ adapter: { pirate: 0.7, json: 0.4 } })).toBe(1);
    engine.declareAdapter('json', directorySource('/other/content'));
    expect(await asked({ adapter: mix })).toBe(1);
    await expect(llm.invoke('x', { adapter: { pirate: 0 } })).rejects.toMatchObject({
      ...{ code: 'INVALID_OPTIONS', data: { field: 'options.adapter["pirate"]' } },
    });
    const loaded = await load<ChatLorax>(
      JSON.stringify(new ChatLorax({ model: './m', adapter: mix })),
      {
        importMap: { chat_models__lorax: { ChatLorax } },
      },
    );
    expect(loaded.adapter).toEqual(mix);
  });

  it('is told to LangSmith', () => {
    const { llm } = setUp({ adapter: 'pirate', temperature: 0, maxTokens: 100, stop: ['x'] });
    expect(llm.getLsParams({})).toEqual({
      ...{ ls_provider: 'lorax', ls_model_name: 'pirate', ls_model_type: 'chat' },
      ...{ ls_temperature: 0, ls_max_tokens: 100, ls_stop: ['x'] },
    });
    expect(
      llm.getLsParams({ adapter: 'base', temperature: 1, maxTokens: 1, stop: ['y'] }),
    ).toMatchObject({
      ...{ ls_model_name: 'base', ls_temperature: 1, ls_max_tokens: 1, ls_stop: ['y'] },
    });
    expect(llm.invocationParams({ topK: 3, configurable: {} } as never)).toEqual({
      ...{ adapter: 'pirate', temperature: 0, maxOutputTokens: 100, stop: ['x'], topK: 3 },
    });
  });

  it('has a profile that knows the context once the engine is there', async () => {
    const { llm } = setUp();
    expect(llm.profile).toMatchObject({ toolCalling: true, structuredOutput: true });
    expect(llm.profile).toMatchObject({ imageInputs: false, audioInputs: false });
    expect(llm.profile.maxInputTokens).toBeUndefined();
    await llm.ready();
    expect(llm.profile.maxInputTokens).toBe(4096);
  });

  it('survives serialization, without engine, callbacks and keys', async () => {
    const fields = {
      ...{ model: './m', device: 'cpu', adapters: { 'v1/p@2': './p' }, adapter: 'v1/p@2' },
      ...{ temperature: 0.5, topP: 0.9, maxTokens: 7, stop: ['a'], logitBias: { 5: -1 } },
      ...{ reasoning: true, maxRetries: 2, tags: ['t'] },
    } as const satisfies Record<string, unknown>;
    const llm = new ChatLorax({
      ...(fields as unknown as ChatLoraxFields),
      ...{ apiKey: 'secret', callbacks: [], cache: true, onProgress: () => undefined },
    });
    expect([llm.lc_serializable, llm.lc_secrets]).toEqual([true, undefined]);
    const json = JSON.stringify(llm);
    expect(json).not.toMatch(/secret|callbacks|onProgress|cache|engine/);
    const importMap = { chat_models__lorax: { ChatLorax } };
    const loaded = await load<ChatLorax>(json, { importMap });
    expect(loaded).toBeInstanceOf(ChatLorax);
    expect(loaded._identifyingParams()).toEqual(llm._identifyingParams());
    expect(JSON.parse(JSON.stringify(loaded))).toEqual(JSON.parse(json));
  });

  it('with a given engine is serialized without it, and served by the ready-made one', async () => {
    const { llm } = setUp({ adapter: 'pirate' });
    const json = JSON.stringify(llm);
    expect(JSON.parse(json).kwargs).toEqual({ adapter: 'pirate' });
    const loaded = await load<ChatLorax>(json, {
      importMap: { chat_models__lorax: { ChatLorax } },
    });
    expect(loaded.adapter).toBe('pirate');
  });
});

describe('dispose', () => {
  it('leaves an engine that was given', async () => {
    const { llm, engine } = setUp();
    await llm.dispose();
    expect((await engine.ready()).architecture).toBe('FakeForCausalLM');
  });

  it('ends the calls of a model with an engine of its own', async () => {
    const model = mkdtempSync(join(tmpdir(), 'lorax-chat-'));
    const llm = new ChatLorax({ model });
    await llm.dispose();
    await expect(llm.invoke('x')).rejects.toMatchObject({ code: 'DISPOSED' });
    rmSync(model, { recursive: true });
  });
});

it('counts tokens without asking a server', async () => {
  const { llm } = setUp();
  const fetched = vi.spyOn(globalThis, 'fetch');
  expect(await llm.getNumTokens('twelve chars')).toBe(3);
  expect(await llm.getNumTokens([{ type: 'text', text: 'four' }])).toBe(1);
  expect(fetched).not.toHaveBeenCalled();
  fetched.mockRestore();
});
