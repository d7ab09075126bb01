/**
 * The two ways in which a constraint is refused, each naming the place at fault.
 *
 * CONSTRAINT_INVALID: it says nothing that could be obeyed (bad syntax, nothing matches it).
 * CONSTRAINT_UNSUPPORTED: it says something that this package cannot enforce. Never a silent
 * loosening. Thrown everywhere in worker/grammar/.
 */
import { LoraxError } from '../../src/errors.js';

/** A keyword of a JSON schema and where it stands (a JSON pointer), or a field of the constraint. */
export interface Place {
  keyword: string;
  pointer: string;
}

function refusal(code: 'CONSTRAINT_INVALID' | 'CONSTRAINT_UNSUPPORTED') {
  return (place: Place, why: string): LoraxError =>
    new LoraxError(code, `The constraint's ${place.keyword} at ${place.pointer} ${why}`, {
      data: { keyword: place.keyword, pointer: place.pointer },
    });
}

export const invalid = refusal('CONSTRAINT_INVALID');
export const unsupported = refusal('CONSTRAINT_UNSUPPORTED');
