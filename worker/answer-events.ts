/**
 * What some tokens of an answer say, as events of the wire.
 *
 * Always holds: ids and logprobs ride on the first event, a delta, even where the tokens say no text.
 * Called by engine-port.ts.
 */
import type { TokenLogprob } from '../src/types.js';
import type { AnswerPart } from './output/answer-parser.js';
import type { WorkerEvent } from './protocol.js';

export function answerEvents(
  id: number,
  parts: readonly AnswerPart[],
  tokenIds: number[] = [],
  logprobs?: TokenLogprob[],
): WorkerEvent[] {
  const [first, ...others] = parts;
  const isText = first?.type === 'text';
  const events: WorkerEvent[] = [];
  if (tokenIds.length > 0 || isText) {
    const delta = { type: 'delta' as const, id, text: isText ? first.text : '', tokenIds };
    events.push(logprobs === undefined ? delta : { ...delta, logprobs });
  }
  for (const part of isText ? others : parts) {
    if (part.type === 'text') events.push({ type: 'delta', id, text: part.text, tokenIds: [] });
    else events.push({ ...part, id });
  }
  return events;
}
