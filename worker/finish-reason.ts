/**
 * Why a request ended, in the words of its FinishEvent.
 *
 * Called by engine-port.ts when native code has said its last word, or a stop string was hit.
 */
import type { FinishEvent } from '../src/types.js';
import { FINISH_REASONS } from './addon.js';
import type { Submission } from './open-request.js';

export type Finish = Pick<FinishEvent, 'reason' | 'rawReason'>;

export function finishAtString(stop: string): Finish {
  return { reason: 'stop', rawReason: `stop-string:${stop}` };
}

/** `nativeReason`: index into FINISH_REASONS. */
export function finishOf({ output, sampling }: Submission, nativeReason: number): Finish {
  const rawReason = FINISH_REASONS[nativeReason] ?? 'pool';
  const byItself = output.numCalls > 0 ? 'tool-calls' : 'stop';
  if (rawReason === 'stop-token') {
    const last = output.lastTokenId;
    const isEos = sampling.eosTokenIds.has(last);
    return { reason: byItself, rawReason: isEos ? 'eos' : `stop-token:${last}` };
  }
  if (rawReason !== 'grammar') return { reason: 'length', rawReason };
  if (!output.isOpen) return { reason: byItself, rawReason };
  // Its grammar lets text end anywhere, also where it was cut off.
  const isMost = output.outputTokens === sampling.native.maxOutputTokens;
  return { reason: 'length', rawReason: isMost ? 'max-output-tokens' : 'context' };
}
