/** What no grammar can enforce is refused by name, and hostile schemas cost little. */
import { describe, expect, it } from 'vitest';
import { constraintGrammar } from '../../../worker/grammar/constraint-grammar.js';

const compile = (schema: unknown) =>
  constraintGrammar({ type: 'json', schema: JSON.stringify(schema) });

type Refusal = [schema: unknown, keyword: string, pointer: string];

describe('an unsupported keyword is an error that names it and its place', () => {
  it.each<Refusal>([
    [{ not: { type: 'string' } }, 'not', '#'],
    [{ type: 'object', properties: { a: { if: {}, then: {} } } }, 'if', '#/properties/a'],
    [{ type: 'array', contains: { type: 'null' } }, 'contains', '#'],
    [{ type: 'array', uniqueItems: true }, 'uniqueItems', '#'],
    [{ type: 'object', unevaluatedProperties: false }, 'unevaluatedProperties', '#'],
    [{ $dynamicRef: '#x' }, '$dynamicRef', '#'],
    [{ properties: { a: { $id: 'http://x/y' } } }, '$id', '#/properties/a'],
    [{ type: 'string', maxLenght: 3 }, 'maxLenght', '#'],
    [
      { items: { anyOf: [{ type: 'null' }, { minContains: 2 }] } },
      'minContains',
      '#/items/anyOf/1',
    ],
    [{ $defs: { a: { foo: 1 } }, $ref: '#/$defs/a' }, 'foo', '#/$defs/a'],
    [{ properties: { 'a/b': { bar: 1 } } }, 'bar', '#/properties/a~1b'],
    [{ type: 'string', format: 'credit' }, 'format', '#'],
    [{ type: 'string', format: 'ulid' }, 'format', '#'],
    [{ type: 'string', pattern: '(a)\\1' }, 'pattern', '#'],
    [{ $ref: 'https://example.com/s.json' }, '$ref', '#'],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'oneOf', '#'],
    [{ oneOf: [{ required: ['a'] }, { required: ['b'] }] }, 'oneOf', '#'],
    [{ items: { oneOf: [{ pattern: 'a' }, { pattern: 'b' }] } }, 'oneOf', '#/items'],
    [{ type: 'object', minProperties: 2 }, 'minProperties', '#'],
    [{ type: 'integer', multipleOf: 1234567 }, 'multipleOf', '#'],
    [{ type: 'string', minLength: 1e6 }, 'minLength', '#'],
  ])('%j', async (schema, keyword, pointer) => {
    await expect(compile(schema)).rejects.toMatchObject({
      ...{ name: 'LoraxError', code: 'CONSTRAINT_UNSUPPORTED' },
      message: expect.stringContaining(keyword) as string,
      data: { keyword, pointer },
    });
  });
});

describe('a schema that says nothing sensible is an error', () => {
  it.each<Refusal>([
    [{ type: 'text' }, 'type', '#'],
    [{ properties: { a: 3 } }, 'schema', '#/properties/a'],
    [{ properties: [] }, 'properties', '#'],
    [{ required: 'a' }, 'required', '#'],
    [{ minLength: -1 }, 'minLength', '#'],
    [{ minimum: '3' }, 'minimum', '#'],
    [{ multipleOf: 0 }, 'multipleOf', '#'],
    [{ anyOf: [] }, 'anyOf', '#'],
    [{ pattern: '[' }, 'pattern', '#'],
    [{ $ref: '#/nowhere' }, '$ref', '#'],
    [{ $ref: '#nowhere' }, '$ref', '#'],
    [{ $ref: '#' }, '$ref', '#'],
    [{ allOf: [{ $ref: '#' }] }, '$ref', '#'],
    [
      { $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' },
      '$ref',
      '#/$defs/a',
    ],
    [false, 'schema', '#'],
    [{ not: {} }, 'schema', '#'],
    [{ enum: [] }, 'schema', '#'],
    [{ type: 'string', enum: [1, 2] }, 'schema', '#'],
    [{ type: 'integer', minimum: 2, maximum: 1 }, 'schema', '#'],
    [{ type: 'number', exclusiveMinimum: Number.MAX_VALUE }, 'schema', '#'],
    [{ type: 'string', pattern: '^a$', minLength: 2 }, 'schema', '#'],
    [{ type: 'object', properties: { a: false }, required: ['a'] }, 'schema', '#'],
    [{ type: 'array', items: false, minItems: 1 }, 'schema', '#'],
    [{ type: 'object', properties: { next: { $ref: '#' } }, required: ['next'] }, 'schema', '#'],
    [{ allOf: [{ type: 'string' }, { type: 'null' }] }, 'schema', '#'],
  ])('%j', async (schema, keyword, pointer) => {
    await expect(compile(schema)).rejects.toMatchObject({
      ...{ name: 'LoraxError', code: 'CONSTRAINT_INVALID', data: { keyword, pointer } },
    });
  });
});

describe('a hostile schema', () => {
  const nested = (depth: number): object =>
    depth === 0 ? { type: 'null' } : { type: 'array', items: nested(depth - 1) };
  const chained = Object.fromEntries(
    Array.from({ length: 1000 }, (_, i) => [`d${i}`, { $ref: `#/$defs/d${i + 1}` }]),
  );
  const doubling = Object.fromEntries(
    Array.from({ length: 40 }, (_, i) => {
      const ref = { $ref: `#/$defs/d${i + 1}` };
      return [`d${i}`, { anyOf: [ref, { allOf: [ref, { minLength: i }] }] }];
    }),
  );
  const optional = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`p${i}`, { type: 'null' }]));

  it.each<[string, unknown]>([
    ['nests deeply', nested(1500)],
    ['is a long chain of references', { $defs: { ...chained, d1000: {} }, $ref: '#/$defs/d0' }],
    ['doubles with every reference', { $defs: { ...doubling, d40: {} }, $ref: '#/$defs/d0' }],
    ['counts to a million with a pattern', { type: 'string', pattern: 'a$', minLength: 999_999 }],
    ['has a pattern of many states', { pattern: '^(?:a|b)*a(?:a|b){30}$' }],
    ['counts many properties', { properties: optional(900), minProperties: 400 }],
    [
      'has many patterns',
      { patternProperties: Object.fromEntries([...'abcdefghij'].map((c) => [c, {}])) },
    ],
    [
      'multiplies alternatives',
      { allOf: Array(12).fill({ anyOf: [{ minimum: 1 }, { maximum: 0 }] }) },
    ],
  ])('%s: refused in bounded time', async (_, schema) => {
    const began = performance.now();
    await expect(compile(schema)).rejects.toMatchObject({ code: 'CONSTRAINT_UNSUPPORTED' });
    expect(performance.now() - began).toBeLessThan(20_000);
  });

  it('leaves the thread to others meanwhile', async () => {
    let longest = 0;
    const began = performance.now();
    let last = began;
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 1);
    await expect(compile({ pattern: '^(?:a|b)*a(?:a|b){30}$' })).rejects.toThrow();
    clearInterval(timer);
    // Without turns it would be nearly all of the time.
    expect(longest).toBeLessThan((performance.now() - began) / 3);
  });

  it('that is only large is compiled', async () => {
    expect(await compile({ type: 'object', properties: optional(1000) })).toContain('p999');
    expect(await compile(nested(60))).toContain('null');
    const list = Array.from({ length: 5000 }, (_, i) => `value-${i}`);
    expect((await compile({ enum: list })).length).toBeLessThan(5000);
    expect(await compile({ type: 'string', maxLength: 1e9 })).toContain('{0,65536}');
    const words = Array.from({ length: 20_000 }, (_, i) => String.fromCodePoint(0x4e00 + i));
    expect((await compile({ enum: words })).split('\n')).toHaveLength(3);
    const optionalItems = Array.from({ length: 200 }, (_, i) => ({ const: i }));
    expect(await compile({ prefixItems: optionalItems })).not.toContain(')?'.repeat(20));
  });
});
