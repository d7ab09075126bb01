/**
 * The rule for adapter names, which apps may take from their own clients: a name is only ever a
 * name, never a path. 'base' is the base model and cannot be given to an adapter.
 */
import { invalidOptions } from './check-shape.js';

export const BASE_MODEL = 'base';

const NAME = /^[A-Za-z0-9][\w.\-/@:]*$/;
const MAX_LENGTH = 256;

export function isAdapterName(name: string): boolean {
  return NAME.test(name) && !name.includes('..') && name.length <= MAX_LENGTH;
}

/** For names under which something is registered; throws INVALID_OPTIONS. */
export function checkAdapterName(name: unknown, field: string): string {
  if (typeof name !== 'string' || !isAdapterName(name)) {
    throw invalidOptions(
      field,
      `${field} must be a name of letters, digits and _ . - / @ : that starts with a letter or ` +
        'digit and holds no "..".',
      name,
    );
  }
  if (name === BASE_MODEL) {
    throw invalidOptions(field, `${field}: "${BASE_MODEL}" is the base model's own name.`, name);
  }
  return name;
}
