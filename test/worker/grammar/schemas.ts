/**
 * The schemas that everything here and in test/e2e/structured-output is held against: each with values
 * that fulfil it, values that do not, and values that do but are never written (`narrowed`).
 *
 * Values are written as JSON.stringify does; a text is given as { text }.
 */
import { APPS } from './schemas/apps.js';
import { COMBINED } from './schemas/combined.js';
import { ARRAYS, OBJECTS } from './schemas/containers.js';
import type { SchemaCase } from './schemas/schema-case.js';
import { CONSTANTS, NUMBERS, STRINGS, TYPES } from './schemas/values.js';

export const SCHEMAS: readonly SchemaCase[] = [
  ...[...TYPES, ...CONSTANTS, ...NUMBERS, ...STRINGS, ...ARRAYS, ...OBJECTS, ...COMBINED, ...APPS],
];
