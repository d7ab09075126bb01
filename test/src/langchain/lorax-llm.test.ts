// LoraxLLM on scripted answers: a text in, a text out, no chat template.
import { directorySource } from '../../../src/adapter-source.js';
import { BaseCallbackHandler } from '@langchain/core/callbacks/base';
import { InMemoryCache } from '@langchain/core/caches';
import { load } from '@langchain/core/load';
import { PromptTemplate } from '@langchain/core/prompts';
import { describe, expect, it } from 'vitest';
import { LoraxError } from '../../../src/errors.js';
import { LoraxLLM } from '../../../src/langchain/lorax-llm.js';
import type { LoraxLLMFields } from '../../../src/langchain/lorax-llm.js';
import type { FakeAnswer } from '../../../src/testing/fake-answer.js';
import { RecordedEngine } from './recorded-engine.js';

const echo: FakeAnswer = ({ adapter, messages }) => `${adapter}: ${messages[0]?.content}`;

function setUp(fields: LoraxLLMFields = {}, base: FakeAnswer = echo) {
  const engine = new RecordedEngine({ base, pirate: echo });
  return { engine, llm: new LoraxLLM({ engine, ...fields }) };
}

describe('LoraxLLM', () => {
  it('sends the prompt as it is, with the settings of model and call', async () => {
    const { llm, engine } = setUp({
      adapter: 'pirate',
      temperature: 0.5,
      maxTokens: 9,
      stop: ['.'],
    });
    expect(await llm.invoke('Once upon')).toBe('pirate: Once upon');
    expect(engine.request).toEqual({
      ...{ prompt: 'Once upon', adapter: 'pirate' },
      sampling: { temperature: 0.5, maxOutputTokens: 9, stop: ['.'] },
    });
    const constraint = { type: 'regex' as const, pattern: '[a-z]+' };
    await llm.invoke('x', { adapter: 'base', seed: 1, stop: [], constraint });
    expect(engine.request).toMatchObject({
      ...{ adapter: 'base', constraint },
      sampling: { temperature: 0.5, seed: 1, stop: [] },
    });
  });

  it('runs several prompts at once and tells what each cost', async () => {
    const { llm, engine } = setUp();
    const { generations, llmOutput } = await llm.generate(['a', 'b c']);
    expect(generations.map(([first]) => first?.text)).toEqual(['base: a', 'base: b c']);
    expect(generations[1]?.[0]?.generationInfo).toMatchObject({
      ...{ adapter: null, model_name: 'base', finish_reason: 'stop' },
      usage_metadata: { input_tokens: 2, output_tokens: 3, input_token_details: { cache_read: 0 } },
    });
    expect(llmOutput).toEqual({
      tokenUsage: { promptTokens: 3, completionTokens: 5, totalTokens: 8 },
    });
    expect(engine.requests).toHaveLength(2);
  });

  it('streams, tells callbacks, and ends with usage', async () => {
    const { llm } = setUp();
    const tokens: string[] = [];
    let info: unknown;
    const callbacks = [
      BaseCallbackHandler.fromMethods({
        handleLLMNewToken: (token) => void tokens.push(token),
        handleLLMEnd: ({ generations }) => void (info = generations[0]?.[0]?.generationInfo),
      }),
    ];
    const pieces: string[] = [];
    for await (const piece of await llm.stream('a b', { callbacks })) pieces.push(piece);
    expect(pieces).toEqual(['base:', ' a', ' b', '']);
    expect(tokens).toEqual(pieces);
    expect(info).toMatchObject({ finish_reason: 'stop', usage_metadata: { output_tokens: 3 } });
  });

  it('works in a chain, and its events are of a plain model', async () => {
    const { llm } = setUp();
    const chain = PromptTemplate.fromTemplate('Say {word}').pipe(llm);
    expect(await chain.invoke({ word: 'hi' })).toBe('base: Say hi');
    const names = new Set<string>();
    for await (const { event } of chain.streamEvents({ word: 'hi' }, { version: 'v2' })) {
      names.add(event);
    }
    expect([...names]).toEqual(
      expect.arrayContaining(['on_llm_start', 'on_llm_stream', 'on_llm_end']),
    );
  });

  it('is cached by weights and settings', async () => {
    const cache = new InMemoryCache();
    const { llm, engine } = setUp({ adapter: 'pirate', cache });
    expect(await llm.invoke('x')).toBe(await llm.invoke('x'));
    expect(engine.requests).toHaveLength(1);
    engine.declareAdapter('pirate', directorySource('/other/content'));
    await llm.invoke('x');
    expect(engine.requests).toHaveLength(2);
  });

  it('rejects with typed errors, aborts, and is not retried without need', async () => {
    const { llm, engine } = setUp({}, new LoraxError('POOL_EXHAUSTED', 'full'));
    await expect(llm.invoke('x')).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
    expect(engine.requests).toHaveLength(1);
    await expect(llm.invoke('x', { signal: AbortSignal.abort() })).rejects.toThrow();
    expect(() => new LoraxLLM({ engine, tools: [] } as never)).toThrow(/has no option "tools"/);
  });

  it('survives serialization', async () => {
    const llm = new LoraxLLM({ model: './m', adapter: 'p', adapters: { p: './p' }, topK: 3 });
    const json = JSON.stringify(llm);
    const loaded = await load<LoraxLLM>(json, { importMap: { llms__lorax: { LoraxLLM } } });
    expect(loaded).toBeInstanceOf(LoraxLLM);
    expect(loaded._identifyingParams()).toEqual(llm._identifyingParams());
    expect(loaded._identifyingParams()).toMatchObject({ adapter: 'p', topK: 3 });
  });
});
