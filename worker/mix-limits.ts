/**
 * Which adapters can be in one weighted mix: those whose ranks a step has room for, and that add to the
 * base rather than take its place. Called by the adapter registry.
 */
import { LoraxError } from '../src/errors.js';

export interface MixedContent {
  name: string;
  weight: number;
  handle: number;
  rank: number;
  /** Why it has no part in a mix, if it has none. */
  alone: string | undefined;
}

/** What a row of a step has room for, over all adapters of a mix, in groups of 16 (native/cuda). */
const MAX_MIXED_RANK = 1024;
const RANK_GROUP = 16;

export function checkMix(held: readonly MixedContent[]): void {
  checkRanks(held);
  const contents = new Set(held.map(({ handle }) => handle)).size;
  const weight = held.reduce((sum, each) => sum + each.weight, 0);
  if (contents === 0 || (contents === 1 && weight === 1)) return;
  const alone = held.find((each) => each.alone !== undefined);
  if (alone === undefined) return;
  throw new LoraxError(
    'ADAPTER_UNSUPPORTED',
    `${JSON.stringify(alone.name)} ${alone.alone}: it cannot be weighed or mixed with others, since it ` +
      'changes what the others are added to. Name it alone.',
    { data: { adapter: alone.name, field: 'request.adapter' } },
  );
}

/** One adapter may have any rank that native code takes. */
function checkRanks(held: readonly MixedContent[]): void {
  if (held.length < 2) return;
  const ranks = new Map(held.map(({ handle, rank }) => [handle, rank]));
  let sum = 0;
  for (const rank of ranks.values()) sum += Math.ceil(rank / RANK_GROUP) * RANK_GROUP;
  if (sum <= MAX_MIXED_RANK) return;
  throw new LoraxError(
    'INVALID_OPTIONS',
    `request.adapter: the ranks of its ${ranks.size} adapters, each rounded up to a multiple of ` +
      `${RANK_GROUP}, add up to ${sum}; a mix may have ${MAX_MIXED_RANK} at most.`,
    { data: { field: 'request.adapter', rank: sum, maxRank: MAX_MIXED_RANK } },
  );
}
