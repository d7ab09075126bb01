/**
 * What a request says of its adapters: none (the base), one by name, or a mix of several with their
 * weights. Also what a mix is called and how caches tell it from others.
 *
 * A string is one name, always; a mix is written by the app as an object. Used by the checks of
 * requests, the providers and the worker's registry.
 */
import { createHash } from 'node:crypto';
import { BASE_MODEL, isAdapterName } from './adapter-name.js';
import { describe, invalidOptions } from './check-shape.js';
import type { AdapterIdentity, AdapterMix } from './types.js';

/** y += weight * scale * B (A x). */
export interface WeightedAdapter {
  name: string;
  weight: number;
}

/** As native code has it (kMaxSegmentsPerRow in native/backend/step_plan.h). */
export const MAX_MIXED_ADAPTERS = 8;

/** Empty = the base. A mix of one name with the weight 1 is that adapter. Throws INVALID_OPTIONS. */
export function checkAdapterField(adapter: unknown, field: string): WeightedAdapter[] {
  if (adapter === undefined || adapter === BASE_MODEL) return [];
  if (typeof adapter === 'string') return [{ name: adapter, weight: 1 }];
  return checkMix(adapter, field);
}

/** Throws INVALID_OPTIONS. */
export function checkMix(mix: unknown, field: string): WeightedAdapter[] {
  if (typeof mix !== 'object' || mix === null || Array.isArray(mix)) {
    const want = 'a name, or an object from names to weights';
    throw invalidOptions(field, `${field} must be ${want}, not ${describe(mix)}.`, mix);
  }
  const adapters = Object.entries(mix).map(([name, weight]) => checkPart(name, weight, field));
  if (adapters.length === 0) {
    throw invalidOptions(field, `${field} names no adapter; for the base model leave it out.`, mix);
  }
  if (adapters.length > MAX_MIXED_ADAPTERS) {
    throw invalidOptions(
      field,
      `${field} mixes ${adapters.length} adapters; at most ${MAX_MIXED_ADAPTERS} go.`,
      mix,
    );
  }
  return adapters;
}

function checkPart(name: string, weight: unknown, mixField: string): WeightedAdapter {
  const field = `${mixField}[${JSON.stringify(name)}]`;
  if (name === BASE_MODEL) {
    throw invalidOptions(field, `${field}: the base model is always there; leave it out.`, weight);
  }
  if (!isAdapterName(name)) {
    throw invalidOptions(
      field,
      `${field}: a name has letters, digits and _ . - / @ :, starts with a letter or digit and ` +
        'holds no "..".',
      name,
    );
  }
  // The engine computes with 32 bits.
  if (typeof weight !== 'number' || !Number.isFinite(Math.fround(weight))) {
    throw invalidOptions(
      field,
      `${field} must be a finite weight, not ${describe(weight)}.`,
      weight,
    );
  }
  if (Math.fround(weight) === 0) {
    throw invalidOptions(
      field,
      `${field}: with the weight 0 it would do nothing; leave it out.`,
      weight,
    );
  }
  return { name, weight };
}

/** How people are shown it: "0.7*pirate + 0.3*json"; 'base', or one adapter's own name. */
export function adaptersName(adapters: readonly WeightedAdapter[]): string {
  const [first] = adapters;
  if (first === undefined) return BASE_MODEL;
  if (adapters.length === 1 && first.weight === 1) return first.name;
  return adapters.map(({ name, weight }) => `${weight}*${name}`).join(' + ');
}

/** A mix's hash is that of its contents' hashes and weights, in whatever order it names them. */
export function adaptersIdentity(
  adapters: readonly (WeightedAdapter & { hash: string })[],
): AdapterIdentity | null {
  const [first] = adapters;
  if (first === undefined) return null;
  const name = adaptersName(adapters);
  if (adapters.length === 1 && first.weight === 1) return { name, hash: first.hash };
  const weights = new Map<string, number>();
  for (const { hash, weight } of adapters) weights.set(hash, (weights.get(hash) ?? 0) + weight);
  const lines = [...weights].map(([hash, weight]) => `${hash} ${weight}\n`).sort();
  const hash = createHash('sha256').update(lines.join('')).digest('hex');
  return { name, hash, mix: adapters.map(({ name, hash, weight }) => ({ name, hash, weight })) };
}

/** A copy that nobody else can change. */
export function mixOf(adapters: readonly WeightedAdapter[]): AdapterMix {
  return Object.fromEntries(adapters.map(({ name, weight }) => [name, weight]));
}
