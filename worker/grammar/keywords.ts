/**
 * Which keywords of JSON Schema there are, and that each one holds what it must.
 *
 * Draft 2020-12 as zod writes it, and what drafts 4 to 7 and OpenAPI 3.0 write for the same things.
 * A keyword that is not known here is refused by its name: what is not enforced is not ignored either,
 * but for annotations. Called once per subschema by in-place.ts.
 */
import { invalid, unsupported } from './faults.js';
import type { Part, SchemaObject } from './schema-document.js';

/** What says nothing about a value. */
const ANNOTATIONS: ReadonlySet<string> = new Set([
  ...['title', 'description', 'default', 'examples', 'example', 'deprecated', 'readOnly'],
  ...['writeOnly', 'contentEncoding', 'contentMediaType', 'contentSchema', 'discriminator'],
  ...['$schema', '$id', 'id', '$anchor', '$comment', '$defs', 'definitions', '$vocabulary'],
  ...['externalDocs', 'xml'],
]);

/** What is enforced by looking at other subschemas in the same place; see in-place.ts. */
const APPLICATORS: ReadonlySet<string> = new Set([
  ...['$ref', 'allOf', 'anyOf', 'oneOf', 'not', 'dependentRequired', 'dependentSchemas'],
  'dependencies',
]);

const isCount = (value: unknown) => Number.isInteger(value) && (value as number) >= 0;
const isNumber = (value: unknown) => typeof value === 'number' && Number.isFinite(value);
const isNames = (value: unknown) =>
  Array.isArray(value) && value.every((name) => typeof name === 'string');
const isObject = (value: unknown) =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isSchemas = (value: unknown) => Array.isArray(value) && value.length > 0;
const isSchema = (value: unknown) => typeof value === 'boolean' || isObject(value);

const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'];
const isType = (value: unknown) =>
  (Array.isArray(value) ? value : [value]).every((name) => TYPES.includes(name as string));

const COUNT = [isCount, 'must be an integer, 0 or more'] as const;
const NUMBER = [isNumber, 'must be a number'] as const;
const LIMIT = [
  (value: unknown) => isNumber(value) || typeof value === 'boolean',
  'must be a number',
] as const;
const SCHEMA = [isSchema, 'must be a schema'] as const;
const SCHEMAS = [isSchemas, 'must be an array of schemas, one at least'] as const;
const BY_NAME = [isObject, 'must be an object of schemas'] as const;

/** Every keyword that is enforced: what it must hold, in words too. */
const SHAPES: Readonly<Record<string, readonly [(value: unknown) => boolean, string]>> = {
  type: [isType, `must be of ${TYPES.join(', ')}`],
  nullable: [(value) => typeof value === 'boolean', 'must be true or false'],
  enum: [Array.isArray, 'must be an array'],
  const: [() => true, ''],
  format: [(value) => typeof value === 'string', 'must be a text'],
  ...{ minimum: NUMBER, maximum: NUMBER, exclusiveMinimum: LIMIT, exclusiveMaximum: LIMIT },
  multipleOf: [(value) => isNumber(value) && (value as number) > 0, 'must be a number above 0'],
  ...{ minLength: COUNT, maxLength: COUNT },
  pattern: [(value) => typeof value === 'string', 'must be a text'],
  ...{ properties: BY_NAME, patternProperties: BY_NAME, propertyNames: SCHEMA },
  additionalProperties: SCHEMA,
  required: [isNames, 'must be an array of names'],
  ...{ minProperties: COUNT, maxProperties: COUNT },
  prefixItems: SCHEMAS,
  items: [(value) => isSchema(value) || Array.isArray(value), 'must be a schema'],
  additionalItems: SCHEMA,
  ...{ minItems: COUNT, maxItems: COUNT },
  uniqueItems: [(value) => typeof value === 'boolean', 'must be true or false'],
  ...{ allOf: SCHEMAS, anyOf: SCHEMAS, oneOf: SCHEMAS, not: SCHEMA },
  $ref: [(value) => typeof value === 'string', 'must be a text'],
  ...{ dependentRequired: [isObject, 'must be an object'], dependentSchemas: BY_NAME },
  dependencies: [isObject, 'must be an object'],
};

/** Whether a schema itself asks something of a value, its applicators aside. Throws if it is bad. */
export function checkKeywords({ schema, pointer }: Part): boolean {
  let asks = false;
  for (const [keyword, value] of Object.entries(schema as SchemaObject)) {
    const place = { keyword, pointer };
    if (keyword === '$id' && !pointer.endsWith('#') && !String(value).startsWith('#')) {
      throw unsupported(
        place,
        'is supported at the root alone: references would mean other places.',
      );
    }
    if (ANNOTATIONS.has(keyword) || keyword.startsWith('x-')) continue;
    const shape = Object.hasOwn(SHAPES, keyword) ? SHAPES[keyword] : undefined;
    if (shape === undefined) {
      if (isHarmless(keyword, value)) continue;
      throw unsupported(place, 'is not supported.');
    }
    const [holds, must] = shape;
    if (!holds(value)) throw invalid(place, `${must}.`);
    if (!APPLICATORS.has(keyword)) asks = true;
  }
  return asks;
}

/** Keywords that say nothing with this value. */
function isHarmless(keyword: string, value: unknown): boolean {
  return (
    (keyword === 'unevaluatedProperties' || keyword === 'unevaluatedItems') &&
    (value === true || (isObject(value) && Object.keys(value as object).length === 0))
  );
}
