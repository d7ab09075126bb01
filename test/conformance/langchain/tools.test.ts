// LangChain's standard integration tests with tools and structured output, in our own words, on the
// real engine. The demo model was never taught tools: where the list expects one to be called it is
// forced, and what it is called with is the model's guess; that it is valid is the grammar's doing.
import { BaseCallbackHandler } from '@langchain/core/callbacks/base';
import { AIMessage, AIMessageChunk, HumanMessage, ToolMessage } from '@langchain/core/messages';
import type { BaseMessage, ToolCall } from '@langchain/core/messages';
import { ChatPromptTemplate } from '@langchain/core/prompts';
import { RunnableLambda } from '@langchain/core/runnables';
import { tool } from '@langchain/core/tools';
import { toJsonSchema } from '@langchain/core/utils/json_schema';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { z as z3 } from 'zod/v3';
import { adderSchema, AdderTool, addition, fold, isAdder, makeModel } from './fixtures.js';

const model = makeModel();
afterAll(() => model.dispose());

const adder = new AdderTool();
const weather = tool((_: { location: string }) => '24 degrees and hail.', {
  ...{ name: 'get_weather', description: 'The weather at a place.' },
  schema: z.object({ location: z.string().max(20).describe('A city.') }),
});
const time = tool((_: { location: string }) => '12:02.', {
  ...{ name: 'get_time', description: 'The time at a place.' },
  schema: z.object({ location: z.string().max(20).describe('A city.') }),
});

const isCall = { type: 'tool_call', id: expect.stringMatching(/^[A-Za-z0-9]{9}$/) };

/** Exactly one, and the answer says that this is why it ended. */
function expectOneCall(answer: AIMessage | AIMessageChunk, name: string, args: object): ToolCall {
  expect(answer.tool_calls).toEqual([{ ...isCall, name, args }]);
  expect(answer.invalid_tool_calls ?? []).toEqual([]);
  expect(answer.response_metadata.finish_reason).toBe('tool_calls');
  return answer.tool_calls![0]!;
}

const force = (name: string) => ({ tool_choice: name, parallel_tool_calls: false });

describe('standard integration tests: calls', () => {
  it('a StructuredTool is called', async () => {
    const bound = model.bindTools([adder], force('adder'));
    const answer = await bound.invoke('What is adder(1, 2)? Use the tool.');
    expect(answer).toBeInstanceOf(AIMessage);
    const { args } = expectOneCall(answer, 'adder', isAdder);
    expect(JSON.parse(await adder.invoke(args as never))).toEqual({ sum: args.a + args.b });
  });

  it('12 OpenAI-formatted tools', async () => {
    const openAI = {
      type: 'function',
      function: { name: 'sum', description: 'Adds.', parameters: toJsonSchema(adderSchema) },
    };
    const bound = model.bindTools([openAI], force('sum'));
    expectOneCall(await addition.pipe(bound).invoke({ tool: 'sum' }), 'sum', isAdder);
  });

  it('13 tools made of runnables', async () => {
    const runnable = RunnableLambda.from((_: unknown) => 'nothing').asTool({
      ...{ name: 'sum', description: 'Adds.', schema: adderSchema },
    });
    const bound = model.bindTools([runnable as never], force('sum'));
    expectOneCall(await addition.pipe(bound).invoke({ tool: 'sum' }), 'sum', isAdder);
  });

  it('15 streaming: pieces of arguments, and usage in the end', async () => {
    const bound = model.bindTools([adder], force('adder'));
    const chunks: AIMessageChunk[] = [];
    const stream = await addition.pipe(bound).stream({ tool: 'adder' });
    for await (const chunk of stream) chunks.push(chunk);
    const whole = chunks.reduce((all, chunk) => all.concat(chunk));
    const { args } = expectOneCall(whole, 'adder', isAdder);
    const pieces = chunks.flatMap(({ tool_call_chunks }) => tool_call_chunks ?? []);
    // Its name comes before its arguments; how many pieces those are in is up to how fast we read.
    expect(pieces[0]).toMatchObject({ name: 'adder', args: '' });
    expect(pieces.length).toBeGreaterThan(1);
    expect(JSON.parse(pieces.map((piece) => piece.args ?? '').join(''))).toEqual(args);
    expect(whole.usage_metadata?.input_tokens).toBeGreaterThan(0);
    expect(whole.usage_metadata?.output_tokens).toBeGreaterThan(0);
  });

  it.each(['16 invoke', '17 stream'])('%s: a call, its result, an answer', async (way) => {
    const invoked = way === '16 invoke';
    const ask = async (messages: BaseMessage[], options: object) => {
      const bound = model.bindTools([weather], options);
      return invoked ? bound.invoke(messages) : fold(await bound.stream(messages));
    };
    const messages: BaseMessage[] = [new HumanMessage('What is the weather in Oslo?')];
    const call = await ask(messages, force('get_weather'));
    const { id, name, args } = expectOneCall(call, 'get_weather', { location: expect.any(String) });
    const content = await weather.invoke(args as { location: string });
    messages.push(call, new ToolMessage({ tool_call_id: id ?? '', name, content }));
    const answer = await ask(messages, { tool_choice: 'none' });
    expect(answer.text).not.toBe('');
    expect(answer.tool_calls ?? []).toEqual([]);
  });

  it(
    '19 parallel calls, invoked and streamed; their results are read',
    { timeout: 90_000 },
    async () => {
      const tools = [weather, time];
      const prompt = 'What are the weather and the time in Oslo? Call both tools.';
      const both = (calls: ToolCall[] = []) =>
        [weather, time].every(({ name }) => calls.some((call) => call.name === name));
      // How many calls it makes is the model's choice; one that is drawn at random makes two in time.
      const seeds = Array.from({ length: 48 }, (_, seed) => seed);
      const options = { temperature: 1.5, maxTokens: 96 };
      const bound = model.bindTools(tools, { tool_choice: 'any' });
      const answers = await Promise.all(
        seeds.map((seed) => bound.invoke(prompt, { ...options, seed })),
      );
      const seed = answers.findIndex(({ tool_calls }) => both(tool_calls));
      expect(seed, 'one of the answers calls both tools').toBeGreaterThanOrEqual(0);
      const streamed = await fold(await bound.stream(prompt, { ...options, seed }));
      const called = answers[seed]?.tool_calls ?? [];
      const named = (calls: ToolCall[] = []) => calls.map(({ name, args }) => ({ name, args }));
      expect(named(streamed.tool_calls)).toEqual(named(called));
      for (const { tool_calls = [] } of [...answers, streamed]) {
        expect(new Set(tool_calls.map(({ id }) => id)).size).toBe(tool_calls.length);
        for (const { args } of tool_calls)
          expect(weather.schema.safeParse(args).success).toBe(true);
      }
      const results = called.map(
        ({ id, name }) => new ToolMessage({ tool_call_id: id ?? '', name, content: 'hail, 12:02' }),
      );
      const history = [new HumanMessage(prompt), answers[seed]!, ...results];
      const answer = await model.bindTools(tools, { tool_choice: 'none' }).invoke(history);
      expect(answer.tool_calls).toEqual([]);
      expect(answer.text).not.toBe('');
    },
  );

  const plain = {
    ...{ name: 'get_weather', description: 'The weather at a place.' },
    schema: z3.object({ location: z3.string().max(20) }),
  };

  it('20 tools that are only described', async () => {
    const bound = model.bindTools([plain], force('get_weather'));
    const answer = await bound.invoke('What is the weather in Oslo?');
    expectOneCall(answer, 'get_weather', { location: expect.any(String) });
  });

  it('21 and streamed', async () => {
    const bound = model.bindTools([plain], force('get_weather'));
    const answer = await fold(await bound.stream('What is the weather in Oslo?'));
    expectOneCall(answer, 'get_weather', { location: expect.any(String) });
  });

  it('none are made where none may be, and any of several where one must', async () => {
    const none = await model.bindTools([adder], { tool_choice: 'none' }).invoke('1 + 2?');
    expect(none.tool_calls).toEqual([]);
    const any = await model.bindTools([adder, weather], { tool_choice: 'any' }).invoke('1 + 2?');
    expect(any.tool_calls?.length).toBeGreaterThanOrEqual(1);
  });
});

describe('standard integration tests: histories', () => {
  const call = { name: 'adder', args: { a: 1, b: 2 }, id: 'abc123', type: 'tool_call' as const };
  const question = new HumanMessage('What is 1 + 2?');
  const result = new ToolMessage({ tool_call_id: 'abc123', name: 'adder', content: '{"sum":3}' });
  const bound = model.bindTools([adder]);
  const calling = new AIMessage({ content: '', tool_calls: [call] });

  it.each([
    ['7 with text', [question, calling, result]],
    [
      '8 with lists of blocks',
      [
        question,
        new AIMessage({
          content: [
            { type: 'text', text: 'some text' },
            { type: 'tool_use', id: 'abc123', name: 'adder', input: call.args },
          ],
          tool_calls: [call],
        }),
        result,
      ],
    ],
    [
      '9 of examples',
      [question, calling, result, new AIMessage('{"sum":3}'), new HumanMessage('What is 3 + 4?')],
    ],
  ])('%s are read', async (_, history) => {
    const answer = await bound.invoke(history);
    expect(answer).toBeInstanceOf(AIMessage);
    expect(answer.usage_metadata?.output_tokens).toBeGreaterThan(0);
    const shorter = await bound.invoke([question]);
    const tokens = (message: AIMessage) => message.usage_metadata?.input_tokens ?? 0;
    expect(tokens(answer)).toBeGreaterThan(tokens(shorter) + 10);
  });
});

describe.each(['jsonSchema', 'functionCalling', 'jsonMode'])(
  'standard integration tests: structured output, %s',
  (method) => {
    const schema = method === 'jsonMode' ? z3.record(z3.unknown()) : adderSchema;
    const expected = method === 'jsonMode' ? expect.any(Object) : isAdder;

    function traced() {
      let options: Record<string, unknown> | undefined;
      const callback = BaseCallbackHandler.fromMethods({
        handleChatModelStart: (_llm, _messages, _run, _parent, extra) => {
          options = extra?.options as Record<string, unknown>;
        },
      });
      return { callbacks: [callback], format: () => options?.ls_structured_output_format };
    }

    it('10 gives the value', async () => {
      const { callbacks, format } = traced();
      const structured = model.withStructuredOutput(schema as typeof adderSchema, {
        ...{ name: 'sum', method },
      });
      const value = await addition.pipe(structured).invoke({ tool: 'sum' }, { callbacks });
      expect(value).toEqual(expected);
      expect(format()).toEqual({ kwargs: { method }, schema: toJsonSchema(schema) });
    });

    it('11 and the message beside it', async () => {
      const { callbacks, format } = traced();
      const structured = model.withStructuredOutput(schema as typeof adderSchema, {
        ...{ name: 'sum', method, includeRaw: true as const },
      });
      const value = await addition.pipe(structured).invoke({ tool: 'sum' }, { callbacks });
      expect(value.raw).toBeInstanceOf(AIMessage);
      expect(value.parsed).toEqual(expected);
      expect(format()).toMatchObject({ kwargs: { method } });
    });
  },
);

describe('standard integration tests: complex schemas', () => {
  // As the list has it: a choice, texts, nested objects, and an object of anything.
  const fields = { serviceName: 'Weather', endpoint: 'now', parameters: '{"unit":"C"}' };
  const prompt = ChatPromptTemplate.fromMessages([
    ['system', 'Always use {tool}.'],
    ['human', 'Service {serviceName}, endpoint {endpoint}, parameters {parameters}.'],
  ]);
  const forms = {
    'zod 3': z3.object({
      decision: z3.enum(['UseAPI', 'UseFallback']),
      explanation: z3.string(),
      apiDetails: z3.object({
        serviceName: z3.string(),
        parameters: z3.record(z3.unknown()),
        extractionPath: z3.string(),
      }),
    }),
    'zod 4': z.object({
      decision: z.enum(['UseAPI', 'UseFallback']),
      explanation: z.string(),
      apiDetails: z.object({
        serviceName: z.string(),
        parameters: z.record(z.string(), z.unknown()),
        extractionPath: z.string(),
      }),
    }),
  };

  // Its shortest value takes more tokens than the others' models have.
  const roomy = makeModel({ maxTokens: 200 });
  afterAll(() => roomy.dispose());

  it.each(Object.entries(forms))('18 %s', async (_, schema) => {
    for (const method of ['jsonSchema', 'functionCalling']) {
      const structured = roomy.withStructuredOutput(schema as (typeof forms)['zod 4'], {
        ...{ name: 'service_tool', method },
      });
      const value = await prompt.pipe(structured).invoke({ tool: 'service_tool', ...fields });
      expect(['UseAPI', 'UseFallback']).toContain(value.decision);
      expect(value.explanation).toBeTypeOf('string');
      expect(value.apiDetails).toEqual({
        ...{ serviceName: expect.any(String), extractionPath: expect.any(String) },
        parameters: expect.any(Object),
      });
    }
  });
});
