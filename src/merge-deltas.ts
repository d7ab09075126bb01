/**
 * What has piled up in the worker's port while the main thread was busy, as one message.
 *
 * A framework takes about as long for a delta of five tokens as for one of one. So neighbouring
 * deltas of a request become one: a main thread that lags catches up, and a reader that keeps pace
 * still gets every token by itself. Used by worker-connection.ts and, for a reader that lags, by
 * token-stream.ts.
 */
import type { WorkerEvent, WorkerMessage } from '../worker/protocol.js';

type Delta = WorkerEvent & { type: 'delta' };

/** Each request's events keep their order. Deltas are appended to in place. */
export function mergeDeltas(messages: WorkerMessage[]): WorkerMessage {
  if (messages.length === 1) return messages[0]!;
  const merged: WorkerMessage = [];
  const open = new Map<number, Delta>(); // the request's last event, if it is a delta
  for (const event of messages.flat()) {
    const last = 'id' in event ? open.get(event.id) : undefined;
    if (event.type !== 'delta') {
      if ('id' in event) open.delete(event.id);
      merged.push(event);
    } else if (last === undefined) {
      open.set(event.id, event);
      merged.push(event);
    } else {
      appendDelta(last, event);
    }
  }
  return merged;
}

type Tokens = Pick<Delta, 'text' | 'tokenIds' | 'logprobs'>;

/** `last` must not have been handed out yet. */
export function appendDelta(last: Tokens, next: Tokens): void {
  last.text += next.text;
  last.tokenIds.push(...next.tokenIds);
  if (next.logprobs !== undefined) (last.logprobs ??= []).push(...next.logprobs);
}
