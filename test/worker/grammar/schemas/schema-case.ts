/** What a case of schemas.ts is, and how schemas are written. */
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

export const object = (properties: object, more: object = {}) => ({
  ...{ type: 'object', properties, required: Object.keys(properties) },
  ...{ additionalProperties: false, ...more },
});
export const fromZod = (schema: z.ZodType, how: 'input' | 'output' = 'output') =>
  z.toJSONSchema(schema, { io: how }) as Record<string, unknown>;
export const draft7 = (schema: z.ZodType) =>
  z.toJSONSchema(schema, { target: 'draft-7', io: 'input' }) as Record<string, unknown>;
