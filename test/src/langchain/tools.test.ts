// Tools in all their forms, choices, and what comes back of calls and reasoning, in both versions.
import { AIMessage, AIMessageChunk, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { RunnableLambda } from '@langchain/core/runnables';
import { DynamicTool, StructuredTool, tool } from '@langchain/core/tools';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { z as z3 } from 'zod/v3';
import { ChatLorax } from '../../../src/langchain/chat-lorax.js';
import type { ChatLoraxCallOptions } from '../../../src/langchain/call-options.js';
import type { FakeScript } from '../../../src/testing/fake-answer.js';
import { RecordedEngine } from './recorded-engine.js';

const JSON_SCHEMA = {
  ...{ type: 'object' as const, additionalProperties: false },
  ...{ properties: { a: { type: 'number' as const } }, required: ['a'] },
};

const four = z.object({ a: z.number() });
const three = z3.object({ a: z3.number() });

class AddTool extends StructuredTool {
  name = 'add';
  description = 'adds';
  schema = three;
  protected async _call() {
    return '3';
  }
}

/** Enough of what a converter may add to a schema. */
const parameters = expect.objectContaining({
  ...{ type: 'object', properties: { a: { type: 'number' } }, required: ['a'] },
});

async function bound(tools: Parameters<ChatLorax['bindTools']>[0], kwargs = {}) {
  const engine = new RecordedEngine();
  await new ChatLorax({ engine }).bindTools(tools, kwargs).invoke('x');
  return engine.request;
}

describe('bindTools', () => {
  const named = { name: 'add', description: 'adds' };
  it.each([
    ['StructuredTool', new AddTool()],
    ['tool() with zod 4', tool(() => '3', { ...named, schema: four })],
    ['tool() with JSON Schema', tool(() => '3', { ...named, schema: JSON_SCHEMA })],
    [
      'RunnableToolLike',
      RunnableLambda.from((_: { a: number }) => '3').asTool({ ...named, schema: four }),
    ],
    ['an OpenAI function', { type: 'function', function: { ...named, parameters: JSON_SCHEMA } }],
    ['a plain object with zod 3', { ...named, schema: three }],
    ['a plain object with zod 4', { ...named, schema: four }],
    ['a plain object with JSON Schema', { ...named, schema: JSON_SCHEMA }],
  ])('takes %s', async (_, form) => {
    expect((await bound([form])).tools).toEqual([{ ...named, parameters }]);
  });

  it('takes a tool of one string, and one that says nothing of its arguments', async () => {
    const { tools } = await bound([
      new DynamicTool({ name: 'search', description: 'finds', func: async () => 'x' }),
      { type: 'function', function: { name: 'now' } },
    ]);
    expect(tools).toMatchObject([
      { name: 'search', parameters: { properties: { input: { type: 'string' } } } },
      { name: 'now', parameters: { type: 'object', additionalProperties: false } },
    ]);
  });

  it('keeps strict, and refuses what is no tool', async () => {
    const strict = { type: 'function', function: { ...named, strict: true, parameters: {} } };
    expect((await bound([strict])).tools).toMatchObject([{ strict: true }]);
    const llm = new ChatLorax({ engine: new RecordedEngine() });
    expect(() => llm.bindTools([{ type: 'web_search' }])).toThrow(/tools\[0\] must be a LangChain/);
    expect(() => llm.bindTools([{ name: 'x', schema: 3 }])).toThrow(/tools\[0\]\.schema/);
    await expect(llm.invoke('x', { tools: 'add' as never })).rejects.toThrow(/options\.tools/);
  });

  it('binds what can be written down: traces and caches see JSON', () => {
    const llm = new ChatLorax({ engine: new RecordedEngine() });
    const { config } = llm.bindTools([new AddTool()]) as unknown as { config: object };
    expect(JSON.parse(JSON.stringify(config))).toMatchObject({
      tools: [{ type: 'function', function: { name: 'add', description: 'adds' } }],
    });
  });

  it('is not needed for a single call', async () => {
    const engine = new RecordedEngine();
    await new ChatLorax({ engine }).invoke('x', { tools: [new AddTool()] });
    expect(engine.request.tools).toEqual([{ ...named, parameters }]);
  });
});

describe('tool_choice', () => {
  const choose = async (tool_choice: unknown) =>
    (await bound([new AddTool()], { tool_choice } as Partial<ChatLoraxCallOptions>)).toolChoice;

  it.each([
    ['auto', 'auto'],
    ['any', 'required'],
    ['required', 'required'],
    ['none', 'none'],
    ['add', { name: 'add' }],
    [{ type: 'function', function: { name: 'add' } }, { name: 'add' }],
    [{ type: 'tool', name: 'add' }, { name: 'add' }],
    [{ name: 'add' }, { name: 'add' }],
    [{ type: 'any' }, 'required'],
    [undefined, undefined],
  ])('%j', async (given, expected) => {
    expect(await choose(given)).toEqual(expected);
  });

  it('of something else, or of a tool that is not there, is refused', async () => {
    await expect(choose({ type: 'function' })).rejects.toThrow(/options\.tool_choice must be/);
    await expect(choose('subtract')).rejects.toThrow(
      /must be one of the request's tools: it has add/,
    );
  });

  it('goes with parallel_tool_calls', async () => {
    const { parallelToolCalls } = await bound([new AddTool()], { parallel_tool_calls: false });
    expect(parallelToolCalls).toBe(false);
  });
});

const script: FakeScript = {
  ...{ reasoning: 'two sums, so two calls', text: 'Let me add.' },
  toolCalls: [
    { name: 'add', arguments: { a: 1, note: 'x y' } },
    { name: 'add', arguments: { a: 2 } },
  ],
};
const args = [{ a: 1, note: 'x y' }, { a: 2 }];
const isCall = { type: 'tool_call', name: 'add', id: expect.stringMatching(/^[a-z0-9]{9}$/) };
const calls = args.map((each) => ({ ...isCall, args: each }));
const reasoning = { type: 'reasoning', reasoning: script.reasoning };
const text = { type: 'text', text: script.text };

function scripted(answer: FakeScript, options: Partial<ChatLoraxCallOptions> = {}) {
  const engine = new RecordedEngine({ base: answer });
  const llm = new ChatLorax({ engine });
  const call = { tools: [new AddTool()], ...options };
  const streamed = async () => {
    const chunks: AIMessageChunk[] = [];
    for await (const chunk of await llm.stream('x', call)) chunks.push(chunk);
    return { chunks, whole: chunks.reduce((all, chunk) => all.concat(chunk)) };
  };
  return { llm, call, streamed, invoked: () => llm.invoke('x', call) };
}

/** Blocks that were streamed keep the index they were joined by. */
const indexed = (blocks: object[]) => blocks.map((block, index) => ({ ...block, index }));

describe('an answer with reasoning, text and calls', () => {
  it('as a message', async () => {
    const answer = await scripted(script).invoked();
    expect(answer.content).toEqual([reasoning, text]);
    expect(answer.text).toBe(script.text);
    expect(answer.tool_calls).toEqual(calls);
    expect(new Set(answer.tool_calls?.map(({ id }) => id)).size).toBe(2);
    expect(answer.contentBlocks).toEqual([reasoning, text, ...calls]);
    expect(answer.response_metadata.finish_reason).toBe('tool_calls');
    expect(answer.usage_metadata?.output_token_details).toEqual({ reasoning: 5 });
  });

  it('as chunks: pieces of JSON add up to the calls', async () => {
    const { chunks, whole } = await scripted(script).streamed();
    const pieces = chunks.flatMap(({ tool_call_chunks }) => tool_call_chunks ?? []);
    expect(pieces.filter(({ name }) => name).map(({ index }) => index)).toEqual([0, 1]);
    const json = (call: number) =>
      pieces.map(({ index, args: piece }) => (index === call ? piece : '')).join('');
    expect([json(0), json(1)].map((each) => JSON.parse(each))).toEqual(args);
    expect(pieces.length).toBeGreaterThan(4);
    expect(whole.tool_calls).toEqual(calls);
    expect(whole.content).toEqual(indexed([reasoning, text]));
    expect(whole.contentBlocks).toEqual([...indexed([reasoning, text]), ...calls]);
    expect(whole.response_metadata.finish_reason).toBe('tool_calls');
  });

  it('in version v1: all of it is content', async () => {
    const { invoked, streamed } = scripted(script, { outputVersion: 'v1' });
    const answer = await invoked();
    expect(answer.content).toEqual([reasoning, text, ...calls]);
    expect(answer.tool_calls).toEqual(calls);
    const { chunks, whole } = await streamed();
    expect(whole.content).toEqual(indexed([reasoning, text, ...calls]));
    expect(whole.contentBlocks).toEqual(whole.content);
    expect(whole.tool_calls).toEqual(calls);
    expect(chunks.every(({ content }) => Array.isArray(content))).toBe(true);
  });

  it('as stream events: each block begins, grows and ends before the next', async () => {
    const { llm, call } = scripted(script);
    const stream = llm.streamEvents('x', call);
    const events = [];
    for await (const event of stream) events.push(event);
    const shape = events.map((event) =>
      'index' in event ? `${event.event} ${event.index}` : event.event,
    );
    const steps = shape.filter((each, at) => each !== shape[at - 1]);
    const blocks = [0, 1, 2, 3].flatMap((index) =>
      ['start', 'delta', 'finish'].map((part) => `content-block-${part} ${index}`),
    );
    expect(steps).toEqual(['message-start', ...blocks, 'message-finish']);
    expect(events.at(-1)).toMatchObject({ reason: 'tool_use', usage: { output_tokens: 13 } });
    expect(await stream.reasoning).toBe(script.reasoning);
    expect(await stream.text).toBe(script.text);
    expect(await stream.toolCalls).toEqual(calls);
    const message = await stream;
    expect(message.content).toEqual([reasoning, text, ...calls]);
    expect(message.response_metadata).toMatchObject({ adapter: null, model_provider: 'lorax' });
  });

  it('cut off inside a call: the call is invalid', async () => {
    const toolCalls = [{ name: 'add', arguments: { a: 'one two three four' } }];
    const { llm, call, invoked } = scripted({ toolCalls }, { maxTokens: 3 });
    const answer = await invoked();
    expect(answer.tool_calls).toEqual([]);
    expect(answer.invalid_tool_calls).toEqual([
      {
        ...{
          type: 'invalid_tool_call',
          id: expect.any(String),
          name: 'add',
          args: '{"a":"one two',
        },
        error: 'The answer was cut off inside this call.',
      },
    ]);
    expect(answer.response_metadata.finish_reason).toBe('length');
    const finished = [];
    for await (const event of llm.streamEvents('x', call)) {
      if (event.event === 'content-block-finish') finished.push(event.content.type);
    }
    expect(finished).toEqual(['invalid_tool_call']);
  });

  it('can be sent back, with the results', async () => {
    const engine = new RecordedEngine({ base: script });
    const llm = new ChatLorax({ engine });
    const answer = await llm.invoke('x');
    const results = (answer.tool_calls ?? []).map(
      ({ id, name }) => new ToolMessage({ tool_call_id: id ?? '', name, content: '3' }),
    );
    await llm.invoke([new HumanMessage('x'), answer, ...results]);
    const [first, second] = answer.tool_calls ?? [];
    expect(engine.request.messages).toEqual([
      { role: 'user', content: 'x' },
      {
        ...{ role: 'assistant', content: script.text, reasoning: script.reasoning },
        toolCalls: [
          { id: first?.id, name: 'add', arguments: args[0] },
          { id: second?.id, name: 'add', arguments: args[1] },
        ],
      },
      { role: 'tool', toolCallId: first?.id, name: 'add', content: '3' },
      { role: 'tool', toolCallId: second?.id, name: 'add', content: '3' },
    ]);
  });
});

it('plain text stays a string in v0 and is one block in v1', async () => {
  const { invoked, streamed } = scripted({ text: 'just text' });
  expect((await invoked()).content).toBe('just text');
  expect((await streamed()).whole.content).toBe('just text');
  const v1 = scripted({ text: 'just text' }, { outputVersion: 'v1' });
  expect((await v1.invoked()).content).toEqual([{ type: 'text', text: 'just text' }]);
  expect((await v1.streamed()).whole.content).toEqual([
    { type: 'text', text: 'just text', index: 0 },
  ]);
  const model = new ChatLorax({ engine: new RecordedEngine(), outputVersion: 'v1' });
  expect((await model.invoke('x')).content).toBeInstanceOf(Array);
  expect(await model.invoke('x')).toBeInstanceOf(AIMessage);
});
