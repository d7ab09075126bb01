/**
 * Reads what native code reports of one engine step (worker/addon.ts, EVENT): flat words -> calls.
 *
 * Arrays handed on are views into the step's; a handler copies what it keeps. Called by
 * engine-port.ts once per step.
 */
import { EVENT, type NativeFailure, type StepEvents } from './addon.js';
import type { TokenBatch } from './output/text-output.js';

export interface StepEventHandler {
  started(request: number, queueMicroseconds: number, cachedTokens: number): void;
  tokens(request: number, batch: TokenBatch): void;
  /** `reason`: index into FINISH_REASONS. */
  finished(request: number, reason: number): void;
  /** `embedding`: a view, as all arrays are. */
  embedded(request: number, embedding: Float32Array): void;
  aborted(request: number): void;
  failed(request: number, failure: NativeFailure): void;
}

const NO_INTS = new Int32Array(0);
const NO_FLOATS = new Float32Array(0);

export function readStepEvents({ ints, floats, failures }: StepEvents, to: StepEventHandler): void {
  let at = 0;
  let floatAt = 0;
  const word = (offset: number) => ints[at + offset] as number;
  while (at < ints.length) {
    const request = word(1);
    switch (word(0)) {
      case EVENT.Started:
        to.started(request, word(2), word(3));
        at += 4;
        break;
      case EVENT.Tokens: {
        const count = word(2);
        const numTop = word(3);
        const firstTop = at + 4 + count;
        const end = firstTop + (numTop > 0 ? count * numTop : 0);
        const floatEnd = floatAt + (numTop >= 0 ? count * (1 + numTop) : 0);
        to.tokens(request, {
          tokenIds: ints.subarray(at + 4, firstTop),
          numTop,
          topIds: numTop > 0 ? ints.subarray(firstTop, end) : NO_INTS,
          logprobs: numTop >= 0 ? floats.subarray(floatAt, floatEnd) : NO_FLOATS,
        });
        at = end;
        floatAt = floatEnd;
        break;
      }
      case EVENT.Finished:
        to.finished(request, word(2));
        at += 4;
        break;
      case EVENT.Aborted:
        to.aborted(request);
        at += 3;
        break;
      case EVENT.Failed: {
        const failure = failures[word(2)];
        to.failed(
          request,
          failure ?? { code: 'ENGINE_LOST', message: 'No reason given.', data: {} },
        );
        at += 4;
        break;
      }
      case EVENT.Embedded: {
        const end = floatAt + word(2);
        to.embedded(request, floats.subarray(floatAt, end));
        at += 3;
        floatAt = end;
        break;
      }
      default:
        throw new Error(`Unknown step event ${word(0)} at word ${at} of ${ints.length}`);
    }
  }
}
