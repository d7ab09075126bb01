// LangChain's standard integration tests without tools, in our own words, on the real engine: the
// list's numbers, and the three that its runner leaves out.
import { InMemoryCache } from '@langchain/core/caches';
import {
  AIMessage,
  AIMessageChunk,
  getBufferString,
  HumanMessage,
  SystemMessage,
} from '@langchain/core/messages';
import type { BaseMessage } from '@langchain/core/messages';
import { afterAll, describe, expect, it } from 'vitest';
import { fold, makeModel } from './fixtures.js';

const model = makeModel();
const pirate = makeModel({ adapter: 'pirate' });
afterAll(() => Promise.all([model.dispose(), pirate.dispose()]));

function expectAnswer(answer: BaseMessage): void {
  expect(answer).toBeInstanceOf(AIMessage);
  expect(answer.content).toBeTypeOf('string');
  expect(answer.text).not.toBe('');
}

describe('standard integration tests: text', () => {
  it('1 invoke', async () => {
    expectAnswer(await model.invoke('Hello'));
  });

  it('2 stream: the same answer in pieces', async () => {
    const chunks: AIMessageChunk[] = [];
    for await (const chunk of await model.stream('Hello')) chunks.push(chunk);
    expect(chunks.every((chunk) => chunk instanceof AIMessageChunk)).toBe(true);
    expect(chunks.length).toBeGreaterThan(1);
    expect(chunks.map(({ text }) => text).join('')).toBe((await model.invoke('Hello')).text);
  });

  it('3 batch: each input has its answer', async () => {
    const answers = await model.batch(['Hello', 'Where is my order 4821?']);
    answers.forEach(expectAnswer);
    expect(answers[0]?.text).toBe((await model.invoke('Hello')).text);
    expect(answers[1]?.text).toMatch(/4821/);
  });

  it('4 conversation', async () => {
    const answer = await model.invoke([
      new HumanMessage('Where is my order?'),
      new AIMessage('Please tell me your order number.'),
      new HumanMessage('4821'),
    ]);
    expectAnswer(answer);
    expect(answer.text).toMatch(/4821/);
  });

  it('double messages: turns of one role after another', async () => {
    const answer = await model.invoke([
      ...[new SystemMessage('hello'), new SystemMessage('hello')],
      ...[new HumanMessage('hello'), new HumanMessage('hello')],
      ...[new AIMessage('hello'), new AIMessage('hello')],
      new HumanMessage('how are you'),
    ]);
    expectAnswer(answer);
  });

  it('stream events: start, pieces, and an end that is their sum', async () => {
    const events = [];
    for await (const event of model.streamEvents('Hello', { version: 'v2' })) events.push(event);
    expect(events.length).toBeGreaterThanOrEqual(3);
    expect(events[0]?.event).toBe('on_chat_model_start');
    expect(events.at(-1)?.event).toBe('on_chat_model_end');
    const pieces = events.slice(1, -1);
    expect(new Set(pieces.map(({ event }) => event))).toEqual(new Set(['on_chat_model_stream']));
    const text = pieces.map(({ data }) => (data.chunk as AIMessageChunk).text).join('');
    expect((events.at(-1)?.data.output as AIMessageChunk).text).toBe(text);
    expect(text).not.toBe('');
  });

  it('stop sequences, of the call and of the model', async () => {
    const question = 'Where is my order 4821?';
    const whole = (await model.invoke(question)).text;
    const [before] = whole.split('arrives');
    for (const answer of [
      await model.invoke(question, { stop: ['arrives'] }),
      await makeModel({ stop: ['arrives'] }).invoke(question),
      await makeModel({ stopSequences: ['arrives'] }).invoke(question),
    ]) {
      expect(answer.text).toBe(before);
      expect(answer.response_metadata.raw_finish_reason).toBe('stop-string:arrives');
    }
    expect(before).not.toBe(whole);
  });
});

describe('standard integration tests: usage', () => {
  it.each(['5 invoke', '6 stream'])('%s', async (way) => {
    const adapted = { adapter: 'pirate', adapter_hash: expect.stringMatching(/^[0-9a-f]{64}$/) };
    const answer =
      way === '5 invoke' ? await pirate.invoke('Hello') : await fold(await pirate.stream('Hello'));
    const { usage_metadata: usage, response_metadata: told } = answer;
    expect(usage?.input_tokens).toBeGreaterThan(5);
    expect(usage?.output_tokens).toBeGreaterThan(1);
    expect(usage?.total_tokens).toBe((usage?.input_tokens ?? 0) + (usage?.output_tokens ?? 0));
    expect(usage?.input_token_details?.cache_read).toBeTypeOf('number');
    expect(usage?.input_token_details?.cache_read).toBeLessThanOrEqual(usage?.input_tokens ?? 0);
    expect(told).toMatchObject({
      ...{ model: 'pirate', model_name: 'pirate', model_provider: 'lorax', ...adapted },
      ...{ finish_reason: 'stop', raw_finish_reason: 'eos' },
      timing: { total_ms: expect.any(Number), queue_ms: expect.any(Number) },
    });
  });

  it('of invoke and of stream are the same, and so are logprobs', async () => {
    const options = { logprobs: 2 };
    const invoked = await pirate.invoke('Hello', options);
    const streamed = await fold(await pirate.stream('Hello', options));
    expect(streamed.usage_metadata).toMatchObject({
      ...{ input_tokens: invoked.usage_metadata?.input_tokens },
      output_tokens: invoked.usage_metadata?.output_tokens,
    });
    const logprobs = invoked.response_metadata.logprobs as { logprob: number; top: unknown[] }[];
    expect(logprobs).toHaveLength(invoked.usage_metadata?.output_tokens ?? -1);
    expect(logprobs[0]?.top).toHaveLength(2);
    expect(streamed.response_metadata.logprobs).toEqual(logprobs);
  });
});

describe('standard integration tests: caching', () => {
  it.each(['base', 'pirate'])('14 of messages in parts, %s', async (adapter) => {
    const cache = new InMemoryCache();
    const cached = makeModel({ adapter, cache });
    const message = new HumanMessage({ content: [{ type: 'text', text: 'Hello there!' }] });
    const first = await cached.invoke([message]);
    const key = cached._getSerializedCacheKeyParametersForCall({});
    const found = await cache.lookup(getBufferString([message]), key);
    expect(found).toHaveLength(1);
    const [generation] = found ?? [];
    const { finished } = (await cached.engine.stats()).totals;
    const again = await cached.invoke([message]);
    expect(again).toEqual((generation as { message?: AIMessage } | undefined)?.message);
    expect(again.text).toBe(first.text);
    expect((await cached.engine.stats()).totals.finished).toBe(finished);
    expect(await cache.lookup(getBufferString([message]), key)).toEqual(found);
    await cached.dispose();
  });
});

describe('standard integration tests: content blocks', () => {
  const ask = (block: object) => model.invoke([new HumanMessage({ content: [block as never] })]);
  const base64 = (text: string) => Buffer.from(text).toString('base64');

  it('22 text', async () => {
    expectAnswer(await ask({ type: 'text', source_type: 'text', text: 'Hello' }));
    expectAnswer(await ask({ type: 'text', text: 'Hello' }));
  });

  // The list skips what a model cannot do. Here it is an error that says so.
  it.each([
    { type: 'image', source_type: 'url', url: 'https://example.org/a.png' },
    { type: 'image', source_type: 'base64', data: 'AAAA', mime_type: 'image/png' },
    { type: 'image', source_type: 'url', url: 'data:image/png;base64,AAAA' },
    { type: 'image_url', image_url: { url: 'https://example.org/a.png' } },
  ])('23 images are refused by name: %#', async (block) => {
    await expect(ask(block)).rejects.toThrow(/block of type "image", and lorax-js reads text only/);
  });

  it.each([
    { type: 'audio', source_type: 'url', url: 'https://example.org/a.mp3' },
    { type: 'audio', source_type: 'base64', data: 'AAAA', mime_type: 'audio/wav' },
    { type: 'audio', source_type: 'url', url: 'data:audio/wav;base64,AAAA' },
  ])('24 audio is refused by name: %#', async (block) => {
    await expect(ask(block)).rejects.toThrow(/block of type "audio", and lorax-js reads text only/);
  });

  it('25 files of text are read, others refused by name', async () => {
    const url = `data:text/plain;base64,${base64('Hello')}`;
    const hello = (await model.invoke('Hello')).text;
    for (const file of [
      { type: 'file', source_type: 'url', url, mime_type: 'text/plain' },
      { type: 'file', source_type: 'base64', data: base64('Hello'), mime_type: 'text/plain' },
      { type: 'file', source_type: 'text', text: 'Hello' },
    ]) {
      expect((await ask(file)).text).toBe(hello);
    }
    const pdf = { type: 'file', source_type: 'base64', data: 'AAAA', mime_type: 'application/pdf' };
    await expect(ask(pdf)).rejects.toThrow(/block of type "file", and lorax-js reads text only/);
  });
});
