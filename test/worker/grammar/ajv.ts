/** ajv as the judge: draft 2020-12, or 7 where the schema is of that form. */
import { Ajv, type ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { PATTERNED_FORMATS } from '../../../worker/grammar/formats.js';

const OPTIONS = {
  strict: false,
  multipleOfPrecision: 9,
  validateSchema: false,
  logger: false,
} as const;

export function compileSchema(schema: Record<string, unknown> | boolean): ValidateFunction {
  const isOld = String((schema as { $schema?: unknown }).$schema).includes('draft-07');
  const ajv = isOld ? new Ajv(OPTIONS) : new Ajv2020(OPTIONS);
  formats.default(ajv);
  // Their pattern says it all.
  for (const name of PATTERNED_FORMATS) ajv.addFormat(name, true);
  for (const name of ['base64', 'jwt', 'uint32']) ajv.addFormat(name, true);
  if (typeof schema === 'boolean') return ajv.compile(schema);
  const { $schema, ...rest } = schema;
  // Draft 4 has a bound's exclusiveness as a mark on it.
  if ($schema === 'draft-04') rest.exclusiveMinimum = rest.minimum;
  return ajv.compile(rest);
}
