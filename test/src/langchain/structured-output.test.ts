// withStructuredOutput(): three methods, every form of schema, with and without the raw message.
import { AIMessage } from '@langchain/core/messages';
import { BaseCallbackHandler } from '@langchain/core/callbacks/base';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import { z as z3 } from 'zod/v3';
import { ChatLorax } from '../../../src/langchain/chat-lorax.js';
import type { FakeAnswer } from '../../../src/testing/fake-answer.js';
import { RecordedEngine } from './recorded-engine.js';

const JSON_SCHEMA = {
  ...{ type: 'object', additionalProperties: false, description: 'a person' },
  ...{ properties: { name: { type: 'string' }, age: { type: 'integer' } } },
  required: ['name', 'age'],
};

const four = z.object({ name: z.string(), age: z.int() }).describe('a person');
const three = z3.object({ name: z3.string(), age: z3.number().int() }).describe('a person');

/** A schema of a library that LangChain does not know, by the common interface alone. */
const standard = {
  '~standard': {
    ...{ version: 1 as const, vendor: 'test' },
    validate: (value: unknown) =>
      typeof (value as { age?: unknown }).age === 'number'
        ? { value: value as { name: string; age: number } }
        : { issues: [{ message: 'age must be a number' }] },
    jsonSchema: { input: () => JSON_SCHEMA, output: () => JSON_SCHEMA },
  },
};

const openAIFunction = { name: 'person', description: 'a person', parameters: JSON_SCHEMA };

const asSchema = expect.objectContaining({
  type: 'object',
  properties: {
    name: expect.objectContaining({ type: 'string' }),
    age: expect.objectContaining({ type: 'integer' }),
  },
  required: ['name', 'age'],
});

const ada = { name: 'Ada', age: 36 };

/** Answers with `value`, in the way it was asked for. */
function setUp(value: unknown = ada) {
  const answer: FakeAnswer = ({ toolChoice }) =>
    typeof toolChoice === 'object'
      ? { toolCalls: [{ name: toolChoice.name, arguments: value }] }
      : JSON.stringify(value);
  const engine = new RecordedEngine({ base: answer });
  return { engine, llm: new ChatLorax({ engine }) };
}

describe.each([
  ['zod 4', four],
  ['zod 3', three],
  ['a Standard Schema', standard],
  ['JSON Schema', JSON_SCHEMA],
  ['an OpenAI function', openAIFunction],
])('%s', (form, schema) => {
  it('jsonSchema, the default, constrains the answer', async () => {
    const { llm, engine } = setUp();
    expect(await llm.withStructuredOutput(schema).invoke('x')).toEqual(ada);
    expect(engine.request.constraint).toEqual({ type: 'json', schema: asSchema });
    expect(engine.request.tools).toBeUndefined();
  });

  it('functionCalling forces one call', async () => {
    const { llm, engine } = setUp();
    const config = { method: 'functionCalling' };
    expect(await llm.withStructuredOutput(schema, config).invoke('x')).toEqual(ada);
    const name = form === 'an OpenAI function' ? 'person' : 'extract';
    expect(engine.request).toMatchObject({ toolChoice: { name }, parallelToolCalls: false });
    expect(engine.request.tools).toMatchObject([{ name, parameters: asSchema }]);
    const described = form === 'a Standard Schema' ? undefined : 'a person';
    expect(engine.request.tools?.[0]?.description).toBe(described);
    await llm.withStructuredOutput(schema, { ...config, name: 'own' }).invoke('x');
    expect(engine.request.toolChoice).toEqual({ name: 'own' });
  });

  it('jsonMode constrains to some JSON object', async () => {
    const { llm, engine } = setUp();
    const structured = llm.withStructuredOutput(schema, { method: 'jsonMode' });
    expect(await structured.invoke('x')).toEqual(ada);
    expect(engine.request.constraint).toEqual({ type: 'json' });
  });
});

const METHODS = ['jsonSchema', 'functionCalling', 'jsonMode'] as const;

describe.each(METHODS)('%s', (method) => {
  it('includeRaw gives the message beside the value', async () => {
    const { llm } = setUp();
    const structured = llm.withStructuredOutput(four, { method, includeRaw: true });
    const { raw, parsed } = await structured.invoke('x');
    expect(parsed).toEqual(ada);
    expect(raw).toBeInstanceOf(AIMessage);
    expect((raw as AIMessage).usage_metadata?.output_tokens).toBeGreaterThan(0);
  });

  it('rejects what does not match; with includeRaw it is null', async () => {
    const { llm } = setUp({ name: 'Ada', age: 'old' });
    for (const schema of [four, three, standard]) {
      await expect(llm.withStructuredOutput(schema, { method }).invoke('x')).rejects.toThrow();
      const structured = llm.withStructuredOutput(schema, { method, includeRaw: true });
      expect((await structured.invoke('x')).parsed).toBeNull();
    }
  });

  it('is told to traces', async () => {
    const { llm } = setUp();
    let options: Record<string, unknown> = {};
    const callbacks = [
      BaseCallbackHandler.fromMethods({
        handleChatModelStart: (_llm, _messages, _run, _parent, extra) => {
          options = extra?.options as Record<string, unknown>;
        },
      }),
    ];
    await llm.withStructuredOutput(four, { method }).invoke('x', { callbacks });
    expect(options.ls_structured_output_format).toEqual({ kwargs: { method }, schema: asSchema });
  });
});

it('jsonSchema streams the value as it grows', async () => {
  const { llm } = setUp({ name: 'Ada Lovelace', age: 36 });
  const seen: unknown[] = [];
  for await (const part of await llm.withStructuredOutput(JSON_SCHEMA).stream('x')) seen.push(part);
  expect(seen).toContainEqual({ name: 'Ada' });
  expect(seen.at(-1)).toEqual({ name: 'Ada Lovelace', age: 36 });
});

it('refuses an unknown method and what is no schema', () => {
  const { llm } = setUp();
  expect(() => llm.withStructuredOutput(four, { method: 'xml' })).toThrow(
    /options\.method must be/,
  );
  expect(() => llm.withStructuredOutput('person' as never)).toThrow(/must be a zod schema or JSON/);
});

it('has the type of its schema', () => {
  const { llm } = setUp();
  type Person = { name: string; age: number };
  const invoke = () => llm.withStructuredOutput(four).invoke('x');
  expectTypeOf(invoke).returns.resolves.toEqualTypeOf<Person>();
  const old = () => llm.withStructuredOutput(three).invoke('x');
  expectTypeOf(old).returns.resolves.toEqualTypeOf<Person>();
  const raw = () => llm.withStructuredOutput(four, { includeRaw: true }).invoke('x');
  expectTypeOf(raw).returns.resolves.toHaveProperty('parsed').toEqualTypeOf<Person>();
  const own = () => llm.withStructuredOutput<Person>(JSON_SCHEMA).invoke('x');
  expectTypeOf(own).returns.resolves.toEqualTypeOf<Person>();
});

describe('response_format, as agents pass it', () => {
  const ask = async (response_format: unknown) => {
    const { llm, engine } = setUp();
    await llm.invoke('x', { response_format: response_format as never });
    return engine.request.constraint;
  };

  it('constrains the answer', async () => {
    const json_schema = { name: 'person', schema: JSON_SCHEMA, strict: true };
    expect(await ask({ type: 'json_schema', json_schema })).toEqual({
      ...{ type: 'json', schema: JSON_SCHEMA },
    });
    expect(await ask({ type: 'json_object' })).toEqual({ type: 'json' });
    expect(await ask({ type: 'text' })).toBeUndefined();
  });

  it('of a wrong shape is refused', async () => {
    await expect(ask({ type: 'xml' })).rejects.toThrow(/response_format\.type must be/);
    await expect(ask({})).rejects.toThrow(/response_format\.type is missing/);
    await expect(ask({ type: 'json_schema', json_schema: {} })).rejects.toThrow(
      /schema must be JSON/,
    );
  });

  it('is the same as constraint, which knows more', async () => {
    const { llm, engine } = setUp();
    const constraint = { type: 'choice' as const, choices: ['yes', 'no'] };
    await llm.invoke('x', { constraint });
    expect(engine.request.constraint).toEqual(constraint);
  });
});
