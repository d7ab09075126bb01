/** What apps ask for. */
import { z } from 'zod';
import { draft7, fromZod, object, type SchemaCase } from './schema-case.js';

export const APPS: SchemaCase[] = [
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
