/**
 * Events that pile up before someone reads them, as fewer: in the worker's port while the main
 * thread is busy, in a request's stream while its reader is.
 *
 * A framework takes about as long for a delta of five tokens as for one of one. So neighbouring
 * deltas of a kind become one: who lags catches up and holds a bounded number of events, and who
 * keeps pace still gets every token by itself. Used by worker-connection.ts and token-stream.ts.
 */
import type { WorkerEvent, WorkerMessage } from '../worker/protocol.js';
import type { TokenEvent } from './types.js';

type Event = WorkerEvent | TokenEvent;
type Tokens = Pick<Event & { type: 'delta' }, 'text' | 'tokenIds' | 'logprobs'>;

/** Each request's events keep their order. Deltas are appended to in place. */
export function mergeDeltas(messages: WorkerMessage[]): WorkerMessage {
  if (messages.length === 1) return messages[0]!;
  const merged: WorkerMessage = [];
  const tails = new Map<number, EventTail>();
  for (const event of messages.flat()) {
    if (!('id' in event)) {
      merged.push(event);
      continue;
    }
    let tail = tails.get(event.id);
    if (tail === undefined) tails.set(event.id, (tail = new EventTail()));
    if (!tail.join(event)) merged.push(event);
  }
  return merged;
}

/** The end of one request's events that nobody has read yet. */
export class EventTail {
  #last: Event | undefined;
  /** The last delta; tokens without text may join it across other kinds of events. */
  #delta: (Event & { type: 'delta' }) | undefined;

  /** True: `next` is now part of an earlier event, which it changed. False: it is the last one. */
  join(next: Event): boolean {
    const last = this.#last;
    switch (next.type) {
      case 'delta': {
        const into = next.text === '' ? this.#delta : last;
        if (into?.type === 'delta') {
          appendTokens(into, next);
          return true;
        }
        this.#delta = next;
        break;
      }
      case 'reasoning-delta':
        if (last?.type !== next.type) break;
        last.text += next.text;
        return true;
      case 'tool-call-delta':
        if (last?.type !== next.type) break;
        last.delta += next.delta;
        return true;
      case 'tool-call-start':
      case 'tool-call-end':
        break;
      default:
        // A start or an end: an id may begin anew behind it.
        this.#delta = undefined;
    }
    this.#last = next;
    return false;
  }

  /** Its reader has `event`: it must not change any more. */
  forget(event: Event): void {
    if (this.#last === event) this.#last = undefined;
    if (this.#delta === event) this.#delta = undefined;
  }
}

function appendTokens(last: Tokens, next: Tokens): void {
  last.text += next.text;
  last.tokenIds.push(...next.tokenIds);
  if (next.logprobs !== undefined) (last.logprobs ??= []).push(...next.logprobs);
}
