// What ai 7 and ai 6 ask of structured output reaches the engine as one constraint. The fake engine
// answers; what a constraint does to tokens is tested on real ones (test/e2e/structured-output.test.ts).
import { Output, generateObject, generateText, jsonSchema, streamText } from 'ai';
import {
  Output as Output6,
  generateObject as generateObject6,
  generateText as generateText6,
} from 'ai6';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { asProviderV3 } from '../../../src/ai6.js';
import { createFakeLorax, type FakeRequest, type LoraxError } from '../../../src/test.js';
import { constraintGrammar } from '../../../worker/grammar/constraint-grammar.js';
import { GbnfMachine } from '../../worker/grammar/gbnf-machine.js';

const asked: FakeRequest[] = [];
let answer = '';
const lorax = createFakeLorax({
  answers: {
    base: (request) => {
      asked.push(request);
      return answer;
    },
  },
});
const lorax6 = asProviderV3(lorax);
const prompt = 'x';

/** The schema that was sent compiles, and its grammar takes the answer that the SDK then took. */
async function expectGrammarOf(text: string): Promise<void> {
  const constraint = asked.at(-1)?.constraint;
  expect(constraint?.type).toBe('json');
  const schema = (constraint as { schema: unknown }).schema;
  const grammar = await constraintGrammar({ type: 'json', schema: JSON.stringify(schema) });
  expect(new GbnfMachine(grammar).matches(text)).toBe(true);
}

const person = z.object({ name: z.string(), age: z.int().min(0).optional() });

describe('structured output of ai 7', () => {
  it('generateObject', async () => {
    answer = '{"name":"Ada","age":36}';
    const { object } = await generateObject({ model: lorax(), schema: person, prompt });
    expect(object).toEqual({ name: 'Ada', age: 36 });
    await expectGrammarOf(answer);
  });

  it('generateObject without a schema asks for any object', async () => {
    answer = '{"a":[1]}';
    const { object } = await generateObject({ model: lorax(), output: 'no-schema', prompt });
    expect(object).toEqual({ a: [1] });
    await expectGrammarOf(answer);
    expect(asked.at(-1)?.constraint).toEqual({ type: 'json', schema: { type: 'object' } });
  });

  it('Output.object', async () => {
    answer = '{"name":"Ada"}';
    const { output } = await generateText({
      ...{ model: lorax(), prompt, output: Output.object({ schema: person }) },
    });
    expect(output).toEqual({ name: 'Ada' });
    await expectGrammarOf(answer);
  });

  it('Output.array, streamed', async () => {
    answer = '{"elements": [{"name":"a"}, {"name":"b"}]}';
    const result = streamText({
      ...{ model: lorax(), prompt, output: Output.array({ element: person, maxItems: 3 }) },
    });
    const elements: unknown[] = [];
    for await (const element of result.elementStream) elements.push(element);
    expect(elements).toEqual([{ name: 'a' }, { name: 'b' }]);
    await expectGrammarOf(answer);
  });

  it('Output.choice', async () => {
    answer = '{"result":"rainy"}';
    const options = ['sunny', 'rainy'];
    const { output } = await generateText({
      ...{ model: lorax(), prompt, output: Output.choice({ options }) },
    });
    expect(output).toBe('rainy');
    await expectGrammarOf(answer);
  });

  it('Output.json', async () => {
    answer = '{"x":1}';
    const { output } = await generateText({ model: lorax(), prompt, output: Output.json() });
    expect(output).toEqual({ x: 1 });
    await expectGrammarOf(answer);
  });

  it('a plain JSON schema, recursive', async () => {
    answer = '{"children":[{"children":[]}]}';
    const schema = jsonSchema<unknown>({
      ...{ $ref: '#/$defs/node' },
      $defs: {
        node: {
          type: 'object',
          properties: { children: { type: 'array', items: { $ref: '#/$defs/node' } } },
          required: ['children'],
        },
      },
    });
    const { object } = await generateObject({ model: lorax(), schema, prompt });
    expect(object).toEqual({ children: [{ children: [] }] });
    await expectGrammarOf(answer);
  });
});

describe('structured output of ai 6', () => {
  it('generateObject and Output.choice', async () => {
    answer = '{"name":"Ada","age":36}';
    const { object } = await generateObject6({ model: lorax6(), schema: person, prompt });
    expect(object).toEqual({ name: 'Ada', age: 36 });
    await expectGrammarOf(answer);
    answer = '{"result":"b"}';
    const output = Output6.choice({ options: ['a', 'b'] });
    expect((await generateText6({ model: lorax6(), prompt, output })).output).toBe('b');
    await expectGrammarOf(answer);
  });
});

describe('providerOptions.lorax', () => {
  const ask = async (lorax_: Record<string, unknown>, more: object = {}) => {
    const providerOptions = { lorax: lorax_ } as never;
    await generateText({ model: lorax(), prompt, providerOptions, ...more });
    return asked.at(-1)?.constraint;
  };

  it('regex, choice and grammar become the constraint', async () => {
    answer = 'ok';
    expect(await ask({ regex: '\\w+' })).toEqual({ type: 'regex', pattern: '\\w+' });
    expect(await ask({ choice: ['a', 'b'] })).toEqual({ type: 'choice', choices: ['a', 'b'] });
    const grammar = 'root ::= "a"';
    expect(await ask({ grammar, minP: 0.1 })).toEqual({ type: 'grammar', grammar });
    expect(asked.at(-1)?.sampling).toEqual({ minP: 0.1 });
    expect(await ask({})).toBeUndefined();
  });

  it.each<[Record<string, unknown>, object, string]>([
    [{ regex: 'a', choice: ['a'] }, {}, 'providerOptions.lorax.choice'],
    [{ regex: 'a' }, { output: Output.json() }, 'providerOptions.lorax.regex'],
    [{ regex: 3 }, {}, 'request.constraint.pattern'],
    [{ choice: [] }, {}, 'request.constraint.choices'],
    [{ grammer: 'root ::= "a"' }, {}, 'providerOptions.lorax.grammer'],
  ])('%j is refused', async (options, more, field) => {
    const error = (await ask(options, more).catch((e: unknown) => e)) as LoraxError;
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(field);
  });
});
