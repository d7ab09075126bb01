/**
 * The one way from a route to the engine: a request is run in the view that the middleware chose, ends
 * when its client is gone, and is counted for whoever listens.
 */
import { cutOff } from '../ai-sdk/convert-error.js';
import type { FinishEvent, GenerateRequest, StartEvent, TokenEvent } from '../types.js';
import type { Admissions } from './admissions.js';
import type { ServerContext, ServerState } from './environment.js';
import { turn } from './turns.js';

export type AnswerEvent = Exclude<TokenEvent, StartEvent>;

export interface Generation {
  start: StartEvent;
  /** What comes after it; ends with its finish event, or throws. */
  events: AsyncIterator<TokenEvent>;
}

/** Sent on its way; nothing is known of it yet. */
export function open(
  c: ServerContext,
  request: GenerateRequest,
  { pace }: ServerState,
): AsyncIterator<TokenEvent> {
  const onUsage = c.get('onUsage');
  const { signal } = c.req.raw;
  const events = c.get('engine').generate({
    ...request,
    signal,
    ...(onUsage === undefined ? {} : { onUsage }),
  });
  return pace.of(events[Symbol.asyncIterator]());
}

/** Resolves when the engine has admitted it, so that a refusal can still have a status. */
export async function admitted(
  events: AsyncIterator<TokenEvent>,
  admissions: Admissions,
): Promise<Generation> {
  const leave = admissions.enter();
  try {
    const { done, value: start } = await events.next();
    if (done === true || start.type !== 'start') throw cutOff();
    return { start, events };
  } finally {
    leave();
  }
}

/** The next event, in its turn; throws where the answer ended without its last one. */
export async function nextEvent(events: AsyncIterator<TokenEvent>): Promise<AnswerEvent> {
  const { done, value } = await events.next();
  await turn();
  if (done === true || value.type === 'start') throw cutOff();
  return value;
}

/** Calls back for every event, its finish last. */
export async function readAll(
  events: AsyncIterator<TokenEvent>,
  onEvent: (event: AnswerEvent) => void,
): Promise<FinishEvent> {
  for (;;) {
    const event = await nextEvent(events);
    onEvent(event);
    if (event.type === 'finish') return event;
  }
}

/** Of requests whose reader has left. */
export function leave(all: readonly AsyncIterator<TokenEvent>[]): void {
  for (const events of all) void events.return?.().catch(() => undefined);
}
