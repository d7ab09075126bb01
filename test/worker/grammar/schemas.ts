/**
 * The schemas that everything here and in test/e2e/structured-output is held against: each with values
 * that fulfil it, values that do not, and values that do but are never written (`narrowed`).
 *
 * Values are written as JSON.stringify does; a text is given as { text }.
 */
import { z } from 'zod';

export interface SchemaCase {
  name: string;
  schema: Record<string, unknown> | boolean;
  yes: unknown[];
  no: unknown[];
  narrowed?: unknown[];
  /** A format that holds less than ajv lets through. */
  isNarrow?: true;
}

const object = (properties: object, more: object = {}) => ({
  ...{ type: 'object', properties, required: Object.keys(properties) },
  ...{ additionalProperties: false, ...more },
});
const fromZod = (schema: z.ZodType, how: 'input' | 'output' = 'output') =>
  z.toJSONSchema(schema, { io: how }) as Record<string, unknown>;
const draft7 = (schema: z.ZodType) =>
  z.toJSONSchema(schema, { target: 'draft-7', io: 'input' }) as Record<string, unknown>;

const TYPES: SchemaCase[] = [
  { name: 'null', schema: { type: 'null' }, yes: [null], no: [0, 'null', false] },
  { name: 'boolean', schema: { type: 'boolean' }, yes: [true, false], no: [0, 'true', null] },
  {
    name: 'integer',
    schema: { type: 'integer' },
    yes: [0, 7, -1, 120, 999999999999999],
    no: [1.5, '1', null, { text: '01' }, { text: '-' }, { text: '+1' }],
    narrowed: [{ text: '1.0' }, 1e20],
  },
  {
    name: 'number',
    schema: { type: 'number' },
    yes: [0, -1.5, 3.25, 1e-7, 1.5e21, 0.000001],
    no: ['1', { text: '.5' }, { text: '1.' }, { text: '00' }, { text: '1e' }, null],
  },
  {
    name: 'string',
    schema: { type: 'string' },
    yes: ['', 'a', '"\\\n\t\u0001', 'naïve 😀', '\u2028', { text: '"\\u00e9\\ud83d\\ude00\\/"' }],
    no: [1, { text: '"' }, { text: '"\n"' }, { text: '"\\x"' }, { text: '"\\ud83d"' }],
  },
  { name: 'type list', schema: { type: ['string', 'null'] }, yes: ['x', null], no: [0, true] },
  {
    name: 'integer or string',
    schema: { type: ['integer', 'string'], minimum: 3, minLength: 2 },
    yes: [3, 'ab'],
    no: [2, 'a', 3.5, null],
  },
  { name: 'nullable', schema: { type: 'integer', nullable: true }, yes: [1, null], no: ['1'] },
  {
    name: 'anything',
    schema: {},
    yes: [null, 1, 'a', [], {}, [1, [2, { a: [null] }]], { a: { b: [true] }, c: '' }],
    no: [{ text: '' }, { text: '[1,]' }, { text: '{"a"}' }, { text: '{,}' }, { text: '[ 1]' }],
  },
  { name: 'true', schema: true, yes: [0, { a: [] }], no: [{ text: 'x' }] },
  {
    name: 'annotations alone',
    schema: { title: 'T', description: 'd', default: 3, examples: [1], 'x-order': 2, $comment: '' },
    yes: [1, 'a'],
    no: [{ text: '' }],
  },
];

const CONSTANTS: SchemaCase[] = [
  { name: 'const string', schema: { const: 'a"b' }, yes: ['a"b'], no: ['a', 'a"bc', 1] },
  { name: 'const number', schema: { const: 1.5 }, yes: [1.5], no: [1, '1.5'] },
  {
    name: 'const object',
    schema: { const: { a: [1, null], b: { c: 'x' } } },
    yes: [{ a: [1, null], b: { c: 'x' } }, { text: '{"a": [1, null], "b": {"c": "x"}}' }],
    no: [{ a: [1], b: { c: 'x' } }, {}],
    narrowed: [{ b: { c: 'x' }, a: [1, null] }],
  },
  {
    name: 'enum',
    schema: { enum: ['red', 'green', 'red-ish', 3, null, true, [1]] },
    yes: ['red', 'red-ish', 'green', 3, null, true, [1]],
    no: ['re', 'greenn', 4, false, [], [2]],
  },
  {
    name: 'enum held against the rest',
    schema: {
      enum: ['a', 'bb', 'ccc', 2, 30],
      type: ['string', 'integer'],
      maxLength: 2,
      minimum: 9,
    },
    yes: ['a', 'bb', 30],
    no: ['ccc', 2],
  },
  {
    name: 'enum and const across allOf',
    schema: { allOf: [{ enum: [1, 2, 3] }, { enum: [2, 3, 4] }, { not: false }], minimum: 3 },
    yes: [3],
    no: [1, 2, 4],
  },
  {
    name: 'enum of objects',
    schema: { enum: [{ a: 1 }, { a: 2, b: 1 }, [1, 'x']], properties: { b: { type: 'string' } } },
    yes: [{ a: 1 }, [1, 'x']],
    no: [{ a: 2, b: 1 }],
  },
];

const NUMBERS: SchemaCase[] = [
  {
    name: 'integer range',
    schema: { type: 'integer', minimum: -12, maximum: 1034 },
    yes: [-12, -9, 0, 9, 10, 999, 1000, 1034],
    no: [-13, -20, 1035, 1100, 2000, { text: '-0' }],
  },
  {
    name: 'exclusive integer range',
    schema: { type: 'integer', exclusiveMinimum: 0, exclusiveMaximum: 100 },
    yes: [1, 50, 99],
    no: [0, 100, -1],
  },
  {
    name: 'decimal range',
    schema: { type: 'number', minimum: 0.1, maximum: 2.5 },
    yes: [0.1, 0.11, 1, 2.5, 2.49, { text: '2.50' }, { text: '0.100' }],
    no: [0.09, 0, 2.51, 3, { text: '2.500001' }, -1],
  },
  {
    name: 'exclusive decimal range',
    schema: { type: 'number', exclusiveMinimum: -1.5, exclusiveMaximum: 0 },
    yes: [-1.49, -1, -0.001],
    no: [-1.5, 0, 0.1, { text: '-1.50' }, { text: '-0' }, { text: '-0.0' }],
  },
  {
    name: 'draft 4 exclusive bounds',
    schema: { $schema: 'draft-04', type: 'integer', minimum: 3, exclusiveMinimum: true },
    yes: [4],
    no: [3],
  },
  {
    name: 'positive',
    schema: { type: 'number', exclusiveMinimum: 0 },
    yes: [0.5, 12],
    no: [0, -1],
  },
  {
    name: 'multiple of an integer',
    schema: { type: 'integer', multipleOf: 7, minimum: -30, maximum: 30 },
    yes: [-28, -7, 0, 7, 28],
    no: [1, 8, 35, -30],
  },
  {
    name: 'multiple of a decimal',
    schema: { type: 'number', multipleOf: 0.25, minimum: 0, maximum: 2 },
    yes: [0, 0.25, 0.5, 1.75, 2, { text: '1.50' }],
    narrowed: [{ text: '1.500' }],
    no: [0.3, 0.125, 2.25],
  },
  {
    name: 'cents, two divisors',
    schema: {
      allOf: [{ multipleOf: 0.01 }, { multipleOf: 0.05 }],
      type: 'number',
      minimum: 0,
      maximum: 1000,
    },
    yes: [1.05, 0, 12.1, 99.95],
    no: [1.01, 0.001],
  },
  {
    name: 'large bounds',
    schema: { type: 'number', minimum: 1e20, exclusiveMaximum: 1.5e21 },
    yes: [{ text: '100000000000000000000' }, { text: '1499999999999999600000.5' }],
    no: [{ text: '99999999999999999999' }, { text: '1500000000000000000000' }, 5],
  },
  {
    name: 'int32',
    schema: { type: 'integer', format: 'int32' },
    yes: [2147483647, -2147483648],
    no: [2147483648, -2147483649],
  },
  { name: 'zod int', schema: fromZod(z.int()), yes: [9007199254740991, 0], no: [1.5] },
  { name: 'zod float32', schema: fromZod(z.float32()), yes: [1.5, -3e5], no: [{ text: '1e60' }] },
];

const STRINGS: SchemaCase[] = [
  {
    name: 'length in code points',
    schema: { type: 'string', minLength: 2, maxLength: 3 },
    yes: ['ab', '😀😀😀', 'é\n', { text: '"\\ud83d\\ude00x"' }],
    no: ['a', 'abcd', '😀', { text: '"\\ud83d\\ude00"' }, ''],
  },
  {
    name: 'pattern, anchored',
    schema: { type: 'string', pattern: '^[A-Z]{2}-\\d{3}$' },
    yes: ['AB-123'],
    no: ['AB-12', 'xAB-123', 'AB-1234', 'ab-123'],
  },
  {
    name: 'pattern, anywhere',
    schema: { type: 'string', pattern: 'b+c' },
    yes: ['bc', 'xxbbcyy', '"bc"\n😀'],
    no: ['b', 'c', 'bxc'],
  },
  {
    name: 'pattern and length',
    schema: { type: 'string', pattern: '^(ab)+$', minLength: 4, maxLength: 7 },
    yes: ['abab', 'ababab'],
    no: ['ab', 'abababab', 'aba'],
  },
  {
    name: 'pattern with looks',
    schema: { type: 'string', pattern: '^(?=.*\\d)(?!.*--)(?=.*[a-z])[a-z0-9-]{3,6}(?<!-)$' },
    yes: ['a1b', 'a-1', '1-a-b'],
    no: ['abc', '123', 'a--1', 'a1-', 'a1'],
  },
  {
    name: 'pattern with word boundaries',
    schema: { type: 'string', pattern: '^[\\w ]*\\bcat\\b[\\w ]*$' },
    yes: ['cat', 'a cat sat', 'the cat'],
    no: ['concat', 'cats', 'ca t'],
  },
  {
    name: 'pattern with classes',
    schema: { type: 'string', pattern: '^[\\p{Lu}\\p{Nd}][^\\s"\\\\]*$' },
    yes: ['Ä', '٣x', 'Z😀'],
    no: ['a', 'A b', 'A"', ''],
  },
  {
    name: 'pattern of escaped characters',
    schema: { type: 'string', pattern: '^["\\\\/\\n\\x01\\u2028]+$' },
    yes: ['"', '\\', '/\n', '\u0001', '\u2028'],
    no: ['n', ''],
  },
  {
    name: 'a hint for people',
    schema: { type: 'string', format: 'password', minLength: 1 },
    yes: ['a'],
    no: [''],
  },
  {
    name: 'date',
    schema: { type: 'string', format: 'date' },
    yes: ['2024-02-29', '1999-12-31'],
    no: ['2023-02-29', '2024-13-01', '24-01-01'],
  },
  {
    name: 'time',
    isNarrow: true,
    schema: { type: 'string', format: 'time' },
    yes: ['23:59:59Z', '00:00:00.123+02:00'],
    no: ['24:00:00Z', '12:00Z', '12:00:00'],
  },
  {
    name: 'date-time',
    isNarrow: true,
    schema: { type: 'string', format: 'date-time' },
    yes: ['2024-02-29T12:00:00Z'],
    no: ['2023-02-29T12:00:00Z', '2024-02-29 12:00:00'],
  },
  {
    name: 'duration',
    isNarrow: true,
    schema: { type: 'string', format: 'duration' },
    yes: ['P1D', 'PT5M', 'P1Y2M3DT4H5M6S', 'P2W'],
    no: ['P', 'PT', '1D', 'P1W2D'],
  },
  {
    name: 'email',
    isNarrow: true,
    schema: { type: 'string', format: 'email' },
    yes: ['a.b+c@example.com'],
    no: ['a@', '@b.com', 'a..b@c.com', 'a b@c.com'],
  },
  {
    name: 'hostname',
    isNarrow: true,
    schema: { type: 'string', format: 'hostname' },
    yes: ['localhost', 'a-b.example.com'],
    no: ['-a', 'a..b', 'a_b'],
  },
  {
    name: 'ipv4',
    schema: { type: 'string', format: 'ipv4' },
    yes: ['0.0.0.0', '255.1.20.199'],
    no: ['256.0.0.0', '1.2.3', '01.2.3.4'],
  },
  {
    name: 'ipv6',
    isNarrow: true,
    schema: { type: 'string', format: 'ipv6' },
    yes: ['::', '::1', '2001:db8::8a2e:370:7334', '1:2:3:4:5:6:7:8'],
    no: ['1:2:3', '::1::', '12345::'],
  },
  {
    name: 'uri',
    isNarrow: true,
    schema: { type: 'string', format: 'uri' },
    yes: ['https://example.com/a/b?q=1#x', 'http://1.2.3.4:80/'],
    no: ['example.com', '/a', 'http:// x'],
  },
  {
    name: 'uuid',
    isNarrow: true,
    schema: { type: 'string', format: 'uuid' },
    yes: ['123e4567-e89b-12d3-a456-426614174000'],
    no: ['123e4567e89b12d3a456426614174000', 'x'],
  },
  {
    name: 'json-pointer',
    schema: { type: 'string', format: 'json-pointer' },
    yes: ['', '/a/~0~1'],
    no: ['a', '/~2'],
  },
  {
    name: 'base64',
    isNarrow: true,
    schema: { type: 'string', format: 'byte' },
    yes: ['', 'aGk=', 'aGk5'],
    no: ['a', 'aGk'],
  },
  {
    name: 'zod email',
    isNarrow: true,
    schema: fromZod(z.email()),
    yes: ['me@example.com'],
    no: ['a..b@x.com', 'x@y'],
  },
  {
    name: 'zod datetime',
    schema: fromZod(z.iso.datetime()),
    yes: ['2024-02-29T12:00:00.5Z'],
    no: ['2024-02-30T12:00:00Z'],
  },
  {
    name: 'zod uuid',
    schema: fromZod(z.uuidv4()),
    yes: ['123e4567-e89b-42d3-a456-426614174000'],
    no: ['123e4567-e89b-12d3-a456-426614174000'],
  },
  {
    name: 'zod hostname',
    isNarrow: true,
    schema: fromZod(z.hostname()),
    yes: ['a.example.org'],
    no: ['a b', '-x.y'],
  },
  { name: 'zod cidr', schema: fromZod(z.cidrv4()), yes: ['10.0.0.0/8'], no: ['10.0.0.0/33'] },
  {
    name: 'zod checks',
    schema: fromZod(z.string().startsWith('a').endsWith('z').includes('mm').min(4).max(6)),
    yes: ['ammz', 'axmmz'],
    no: ['amz', 'mmz', 'axxmmxz'],
  },
  {
    name: 'zod template literal',
    schema: fromZod(z.templateLiteral(['w-', z.int(), z.enum(['px', 'em'])])),
    yes: ['w-12px', 'w-0em'],
    no: ['w-px', '12px'],
  },
  { name: 'zod emoji', schema: fromZod(z.emoji()), yes: ['😀', '👍🏽'], no: ['a', '1', ''] },
];

const ARRAYS: SchemaCase[] = [
  {
    name: 'array',
    schema: { type: 'array', items: { type: 'integer' } },
    yes: [[], [1], [1, 2, 3], { text: '[1, 2,3]' }],
    no: [['a'], [1, 'a'], { text: '[1 ,2]' }, { text: '[1,]' }, {}],
  },
  {
    name: 'array of counted items',
    schema: { type: 'array', items: { type: 'boolean' }, minItems: 2, maxItems: 3 },
    yes: [
      [true, false],
      [true, true, true],
    ],
    no: [[], [true], [true, true, true, true]],
  },
  { name: 'empty array', schema: { type: 'array', maxItems: 0 }, yes: [[]], no: [[1]] },
  {
    name: 'tuple',
    schema: { type: 'array', prefixItems: [{ type: 'integer' }, { type: 'string' }], items: false },
    yes: [[], [1], [1, 'a']],
    no: [['a'], [1, 2], [1, 'a', 2]],
  },
  {
    name: 'tuple and rest',
    schema: { type: 'array', prefixItems: [{ const: 1 }], items: { const: 2 }, minItems: 2 },
    yes: [
      [1, 2],
      [1, 2, 2],
    ],
    no: [[], [1], [2, 2], [1, 1]],
  },
  {
    name: 'draft 7 tuple',
    schema: draft7(z.tuple([z.int32(), z.string().optional()]).rest(z.boolean())),
    yes: [[1], [1, 'a'], [1, 'a', true, false]],
    no: [[], ['a'], [1, 'a', 1]],
  },
  {
    name: 'items across allOf',
    schema: {
      type: 'array',
      allOf: [
        { items: { minimum: 3 } },
        { items: { type: 'integer' }, maxItems: 2 },
        { prefixItems: [{ maximum: 5 }] },
      ],
    },
    yes: [[], [4], [5, 9]],
    no: [[2], [6], [5, 2], [3, 3, 3]],
  },
  {
    name: 'nested arrays',
    schema: {
      type: 'array',
      items: { type: 'array', items: { enum: ['x', 'o'] }, minItems: 2, maxItems: 2 },
      minItems: 1,
    },
    yes: [
      [['x', 'o']],
      [
        ['o', 'o'],
        ['x', 'x'],
      ],
    ],
    no: [[], [['x']], [['x', 'y']]],
  },
  {
    name: 'one unique item',
    schema: { type: 'array', uniqueItems: true, maxItems: 1, items: { type: 'null' } },
    yes: [[], [null]],
    no: [[null, null]],
  },
];

const OBJECTS: SchemaCase[] = [
  {
    name: 'object',
    schema: object({ name: { type: 'string' }, age: { type: 'integer', minimum: 0 } }),
    yes: [{ name: 'x', age: 3 }, { text: '{"name": "x", "age":3}' }],
    no: [
      { name: 'x' },
      { name: 'x', age: -1 },
      {},
      { name: 'x', age: 1, more: 2 },
      { text: '{ "name":"x","age":3}' },
    ],
    narrowed: [{ age: 3, name: 'x' }],
  },
  {
    name: 'optional properties',
    schema: {
      type: 'object',
      properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 }, d: { const: 4 } },
      required: ['c'],
      additionalProperties: false,
    },
    yes: [{ c: 3 }, { a: 1, c: 3 }, { b: 2, c: 3, d: 4 }, { a: 1, b: 2, c: 3, d: 4 }],
    no: [
      {},
      { a: 1 },
      { c: 3, e: 1 },
      { text: '{,"c":3}' },
      { text: '{"c":3,}' },
      { text: '{"a":1"c":3}' },
    ],
  },
  {
    name: 'all optional',
    schema: { type: 'object', properties: { a: { type: 'null' }, b: { type: 'null' } } },
    yes: [{}, { a: null }, { b: null }, { a: null, b: null }],
    no: [{ a: 1 }, []],
    narrowed: [{ z: 1 }],
  },
  {
    name: 'open object',
    schema: {
      type: 'object',
      properties: { a: { type: 'integer' } },
      required: ['a'],
      additionalProperties: { type: 'string' },
    },
    yes: [{ a: 1 }, { a: 1, b: 'x' }, { a: 1, 'ключ "x"': '', c: 'y' }],
    no: [{ a: 1, b: 2 }, { b: 'x' }, { a: 'x' }, { text: '{"a":1,"a":"x"}' }],
    narrowed: [{ b: 'x', a: 1 }],
  },
  {
    name: 'record',
    schema: fromZod(z.record(z.string(), z.number())),
    yes: [{}, { x: 1, '': 2 }],
    no: [{ x: 'y' }, []],
  },
  {
    name: 'record of an enum',
    schema: fromZod(z.record(z.enum(['a', 'b']), z.boolean())),
    yes: [{ a: true, b: false }],
    no: [{ a: true }, { a: true, b: true, c: true }],
  },
  {
    name: 'partial record',
    schema: fromZod(z.partialRecord(z.enum(['a', 'b']), z.boolean())),
    yes: [{}, { b: true }, { a: true, b: true }],
    no: [{ c: true }],
  },
  {
    name: 'loose object',
    schema: fromZod(z.looseObject({ a: z.literal(1) })),
    yes: [{ a: 1 }, { a: 1, x: [{}] }],
    no: [{ x: 1 }, { text: '{"a":1,"\\u0061":2}' }],
  },
  {
    name: 'patternProperties',
    schema: {
      type: 'object',
      patternProperties: { '^n_': { type: 'integer' }, _s$: { minimum: 5 } },
      additionalProperties: { type: 'boolean' },
    },
    yes: [{}, { n_a: 1 }, { n_s: 5 }, { x_s: 'any' }, { other: true }, { x_s: 7.5, n_: 0 }],
    no: [{ n_a: 'x' }, { n_s: 4 }, { n_s: 5.5 }, { other: 1 }, { x_s: 2 }],
  },
  {
    name: 'propertyNames with a pattern',
    schema: {
      type: 'object',
      propertyNames: { pattern: '^[a-z]{1,3}$' },
      additionalProperties: { type: 'null' },
    },
    yes: [{}, { a: null, bcd: null }],
    no: [{ A: null }, { abcd: null }, { a: 1 }],
  },
  {
    name: 'counted properties',
    schema: {
      type: 'object',
      properties: { a: { const: 1 }, b: { const: 1 }, c: { const: 1 } },
      minProperties: 2,
      maxProperties: 2,
      additionalProperties: false,
    },
    yes: [
      { a: 1, b: 1 },
      { a: 1, c: 1 },
      { b: 1, c: 1 },
    ],
    no: [{}, { a: 1 }, { a: 1, b: 1, c: 1 }],
  },
  {
    name: 'at most three of any name',
    schema: {
      type: 'object',
      additionalProperties: { const: 0 },
      maxProperties: 3,
      minProperties: 1,
    },
    yes: [{ a: 0 }, { a: 0, b: 0, c: 0 }],
    no: [{}, { a: 0, b: 0, c: 0, d: 0 }],
  },
  {
    name: 'required without a property',
    schema: { type: 'object', required: ['x'], additionalProperties: { type: 'integer' } },
    yes: [{ x: 1 }, { x: 1, y: 2 }],
    no: [{}, { x: 'a' }, { y: 1 }],
  },
  {
    name: 'odd names',
    schema: object({ 'a b': { const: 1 }, 'q"\\\n': { const: 2 }, 'é😀': { const: 3 } }),
    yes: [{ 'a b': 1, 'q"\\\n': 2, 'é😀': 3 }],
    no: [{ 'a b': 1 }],
  },
  {
    name: 'forbidden property',
    schema: {
      type: 'object',
      properties: { a: { type: 'integer' }, b: false, c: { not: {} } },
      additionalProperties: false,
    },
    yes: [{}, { a: 1 }],
    no: [{ b: 1 }, { c: 1 }],
  },
  {
    name: 'dependentRequired',
    schema: {
      type: 'object',
      properties: { card: { const: 1 }, address: { const: 2 } },
      dependentRequired: { card: ['address'] },
      additionalProperties: false,
    },
    yes: [{}, { address: 2 }, { card: 1, address: 2 }],
    no: [{ card: 1 }],
  },
  {
    name: 'nested objects',
    schema: object({
      a: object({
        b: object({ c: { type: 'array', items: object({ d: { type: 'boolean' } }), maxItems: 2 } }),
      }),
      e: { type: 'null' },
    }),
    yes: [
      { a: { b: { c: [] } }, e: null },
      { a: { b: { c: [{ d: true }] } }, e: null },
    ],
    no: [
      { a: { b: { c: [{}] } }, e: null },
      { a: { b: {} }, e: null },
    ],
  },
];

const tree = {
  $defs: {
    node: object({
      value: { type: 'integer' },
      children: { type: 'array', items: { $ref: '#/$defs/node' } },
    }),
  },
  $ref: '#/$defs/node',
};
interface Category {
  name: string;
  subcategories: Category[];
}
const Category: z.ZodType<Category> = z.object({
  name: z.string().max(8),
  get subcategories() {
    return z.array(Category);
  },
});

const COMBINED: SchemaCase[] = [
  {
    name: 'anyOf',
    schema: { anyOf: [{ type: 'integer' }, { type: 'string', maxLength: 1 }] },
    yes: [1, 'a'],
    no: ['ab', null],
  },
  {
    name: 'anyOf beside properties',
    schema: {
      type: 'object',
      properties: { kind: { type: 'string', maxLength: 2 } },
      required: ['kind'],
      anyOf: [
        { properties: { a: { type: 'integer' } }, required: ['a'] },
        { properties: { b: { type: 'null' } }, required: ['b'] },
      ],
    },
    yes: [
      { kind: 'x', a: 1 },
      { kind: 'x', b: null },
    ],
    no: [{ kind: 'x' }, { a: 1 }, { kind: 'x', a: 'y' }],
  },
  {
    name: 'allOf of objects',
    schema: {
      allOf: [
        { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] },
        {
          type: 'object',
          properties: { b: { type: 'string' }, a: { maximum: 9 } },
          required: ['b'],
        },
      ],
    },
    yes: [{ a: 9, b: '' }],
    no: [{ a: 10, b: '' }, { a: 1 }],
  },
  {
    name: 'oneOf of types',
    schema: {
      oneOf: [{ type: 'string' }, { type: 'integer' }, { type: 'array', items: { type: 'null' } }],
    },
    yes: ['a', 2, [null]],
    no: [1.5, [1], null],
  },
  {
    name: 'discriminated union',
    schema: fromZod(
      z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('circle'), r: z.number().positive() }),
        z.object({ kind: z.literal('box'), w: z.int32(), h: z.int32() }),
        z.object({ kind: z.enum(['dot', 'point']) }),
      ]),
    ),
    yes: [
      { kind: 'circle', r: 1.5 },
      { kind: 'box', w: 1, h: 2 },
      { kind: 'dot' },
      { kind: 'point' },
    ],
    no: [{ kind: 'circle' }, { kind: 'box', r: 1 }, { kind: 'line' }, { kind: 'circle', r: 0 }],
  },
  {
    name: 'oneOf by ranges',
    schema: {
      oneOf: [
        { type: 'number', maximum: 3 },
        { type: 'number', exclusiveMinimum: 3 },
      ],
    },
    yes: [3, 3.5, -1],
    no: ['x'],
  },
  {
    name: 'oneOf by patterns',
    schema: {
      oneOf: [
        { type: 'string', pattern: '^a' },
        { type: 'string', pattern: '^b' },
      ],
    },
    yes: ['ax', 'b'],
    no: ['c', ''],
  },
  {
    name: 'recursive tree',
    schema: tree,
    yes: [
      { value: 1, children: [] },
      { value: 1, children: [{ value: 2, children: [] }] },
    ],
    no: [{ value: 1 }, { value: 1, children: [1] }],
  },
  {
    name: 'zod recursion',
    schema: fromZod(Category),
    yes: [{ name: 'a', subcategories: [{ name: 'b', subcategories: [] }] }],
    no: [{ name: 'a' }, { name: 'too long a name', subcategories: [] }],
  },
  {
    name: 'linked list',
    schema: {
      $defs: {
        list: {
          anyOf: [
            { type: 'null' },
            object({ head: { type: 'integer' }, tail: { $ref: '#/$defs/list' } }),
          ],
        },
      },
      $ref: '#/$defs/list',
    },
    yes: [null, { head: 1, tail: null }, { head: 1, tail: { head: 2, tail: null } }],
    no: [{ head: 1 }, 1],
  },
  {
    name: 'mutual recursion',
    schema: {
      $defs: {
        a: { type: 'array', items: { $ref: '#/$defs/b' } },
        b: object({ a: { $ref: '#/$defs/a' } }),
      },
      $ref: '#/$defs/a',
    },
    yes: [[], [{ a: [] }], [{ a: [{ a: [] }] }]],
    no: [[[]], [{}]],
  },
  {
    name: 'expression grammar',
    schema: {
      $defs: {
        e: {
          oneOf: [
            { type: 'number' },
            object({
              op: { enum: ['+', '*'] },
              args: { type: 'array', items: { $ref: '#/$defs/e' }, minItems: 2, maxItems: 2 },
            }),
          ],
        },
      },
      $ref: '#/$defs/e',
    },
    yes: [1, { op: '+', args: [1, { op: '*', args: [2, 3] }] }],
    no: [
      { op: '+', args: [1] },
      { op: '-', args: [1, 2] },
    ],
  },
  {
    name: 'zod json',
    schema: fromZod(z.json()),
    yes: [null, [1, { a: ['b'] }]],
    no: [{ text: '[' }],
  },
  {
    name: '$anchor and siblings',
    schema: {
      $defs: { s: { $anchor: 'short', type: 'string', maxLength: 3 } },
      type: 'object',
      properties: { a: { $ref: '#short', minLength: 2 } },
      required: ['a'],
      additionalProperties: false,
    },
    yes: [{ a: 'abc' }],
    no: [{ a: 'a' }, { a: 'abcd' }],
  },
  {
    name: 'definitions, escaped pointer',
    schema: {
      definitions: { 'a/b~c': { type: 'null' } },
      type: 'array',
      items: { $ref: '#/definitions/a~1b~0c' },
    },
    yes: [[null], []],
    no: [[1]],
  },
  {
    name: 'branches that cannot be',
    schema: {
      anyOf: [
        { type: 'string', minLength: 3, maxLength: 2 },
        { type: 'integer', minimum: 5, maximum: 4 },
        { const: 1 },
      ],
    },
    yes: [1],
    no: ['', 5],
  },
  {
    name: 'recursion with one way out',
    schema: {
      $defs: {
        n: {
          anyOf: [
            object({ n: { $ref: '#/$defs/n' } }),
            { type: 'array', items: { $ref: '#/$defs/endless' } },
          ],
        },
        endless: object({ e: { $ref: '#/$defs/endless' } }),
      },
      $ref: '#/$defs/n',
    },
    yes: [[], { n: [] }],
    no: [[{}], {}],
  },
];

const APPS: SchemaCase[] = [
  {
    name: 'recipe',
    schema: draft7(
      z.object({
        recipe: z.object({
          name: z.string(),
          ingredients: z.array(z.object({ name: z.string(), amount: z.string() })),
          steps: z.array(z.string()).min(1).max(5),
        }),
      }),
    ),
    yes: [
      {
        recipe: { name: 'Soup', ingredients: [{ name: 'water', amount: '1 l' }], steps: ['Boil.'] },
      },
    ],
    no: [{ recipe: { name: 'Soup', ingredients: [], steps: [] } }],
  },
  {
    name: 'choice as ai writes it',
    schema: {
      $schema: 'http://json-schema.org/draft-07/schema#',
      ...object({ result: { type: 'string', enum: ['sunny', 'rainy', 'snowy'] } }),
    },
    yes: [{ result: 'sunny' }, { text: '{"result": "rainy"}' }],
    no: [{ result: 'windy' }],
  },
  {
    name: 'array as ai writes it',
    schema: object({
      elements: {
        type: 'array',
        items: object({
          title: { type: 'string', maxLength: 12 },
          score: { type: 'number', minimum: 0, maximum: 1 },
        }),
        maxItems: 4,
      },
    }),
    yes: [{ elements: [] }, { elements: [{ title: 't', score: 0.5 }] }],
    no: [{ elements: [{ title: 't', score: 1.5 }] }],
  },
  {
    name: 'user',
    schema: fromZod(
      z.object({
        id: z.uuid(),
        email: z.email(),
        age: z.int().min(0).max(150),
        tags: z.array(z.string().max(10)).max(3),
        role: z.enum(['admin', 'user']),
        bio: z.string().max(40).optional(),
        manager: z.string().max(8).nullable(),
      }),
    ),
    yes: [
      {
        id: '123e4567-e89b-42d3-a456-426614174000',
        email: 'a@b.co',
        age: 3,
        tags: ['x'],
        role: 'user',
        manager: null,
      },
    ],
    no: [{ id: 'x', email: 'a@b.co', age: 3, tags: [], role: 'user', manager: null }],
  },
  {
    name: 'order',
    schema: fromZod(
      z.object({
        sku: z.string().regex(/^[A-Z]{3}-\d{4}$/),
        quantity: z.int().positive().max(99),
        price: z.number().multipleOf(0.01).min(0).max(1000),
        shipped: z.iso.date(),
        lines: z
          .array(
            z.union([
              z.object({ note: z.string().max(10) }),
              z.object({ code: z.int().min(1).max(9) }),
            ]),
          )
          .max(2),
      }),
    ),
    yes: [
      {
        sku: 'ABC-1234',
        quantity: 1,
        price: 9.99,
        shipped: '2024-02-29',
        lines: [{ code: 3 }, { note: 'x' }],
      },
    ],
    no: [
      { sku: 'ABC-123', quantity: 1, price: 9.99, shipped: '2024-02-29', lines: [] },
      { sku: 'ABC-1234', quantity: 0, price: 9.99, shipped: '2024-02-29', lines: [] },
    ],
  },
  {
    name: 'tool arguments',
    schema: {
      type: 'object',
      properties: {
        city: { type: 'string' },
        unit: { type: 'string', enum: ['celsius', 'fahrenheit'], default: 'celsius' },
        days: { type: 'integer', minimum: 1, maximum: 14 },
      },
      required: ['city'],
    },
    yes: [{ city: 'Oslo' }, { city: 'Oslo', days: 3 }, { city: '', unit: 'celsius', days: 14 }],
    no: [{ city: 'Oslo', days: 15 }, { unit: 'celsius' }],
  },
];

export const SCHEMAS: readonly SchemaCase[] = [
  ...[...TYPES, ...CONSTANTS, ...NUMBERS, ...STRINGS, ...ARRAYS, ...OBJECTS, ...COMBINED, ...APPS],
];
