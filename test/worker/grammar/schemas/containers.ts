/** Arrays and objects. */
import { z } from 'zod';
import { draft7, fromZod, object, type SchemaCase } from './schema-case.js';

export const ARRAYS: SchemaCase[] = [
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

export const OBJECTS: SchemaCase[] = [
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
