/** References, unions and what else is made of other schemas. */
import { z } from 'zod';
import { fromZod, object, type SchemaCase } from './schema-case.js';

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

export const COMBINED: SchemaCase[] = [
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
