/**
 * One request to the engine as LangChain makes it: retries are its AsyncCaller's, errors its own
 * where it has one, and an answer always ends with the engine's last word.
 */
import { ContextOverflowError, stampRetryable } from '@langchain/core/errors';
import type { AsyncCaller } from '@langchain/core/utils/async_caller';
import { LoraxError } from '../errors.js';
import type { LoraxErrorCode } from '../errors.js';
import type { EngineView, FinishEvent, GenerateRequest, StartEvent, TokenEvent } from '../types.js';

/** An answer that has begun. Leaving `events` early cancels the request. */
export interface OpenCall {
  start: StartEvent;
  events: AsyncIterable<AnswerEvent>;
}

export type AnswerEvent = Exclude<TokenEvent, StartEvent>;

/** The same request may succeed a moment later. */
const TRANSIENT: readonly LoraxErrorCode[] = ['QUEUE_FULL', 'WORKER_DIED'];

/** Until the engine has admitted the request; what follows is not tried again. */
export function openCall(
  engine: EngineView,
  caller: AsyncCaller,
  request: GenerateRequest,
  maxRetries?: number,
): Promise<OpenCall> {
  return callWithRetries(caller, { ...request, maxRetries }, () => begin(engine, request));
}

/** To the end. `receive` makes of the answer what it likes, anew when the call is tried again. */
export function completeCall<T>(
  engine: EngineView,
  caller: AsyncCaller,
  request: GenerateRequest,
  maxRetries: number | undefined,
  receive: (call: OpenCall) => Promise<T>,
): Promise<T> {
  return callWithRetries(caller, { ...request, maxRetries }, async () =>
    receive(await begin(engine, request)),
  );
}

interface CallLimits {
  signal?: AbortSignal | undefined;
  maxRetries?: number | undefined;
}

export function callWithRetries<T>(
  caller: AsyncCaller,
  { signal, maxRetries }: CallLimits,
  call: () => Promise<T>,
): Promise<T> {
  const limits = {
    ...(signal === undefined ? {} : { signal }),
    ...(maxRetries === undefined ? {} : { maxRetries }),
  };
  return caller.callWithOptions(limits, async () => {
    try {
      return await call();
    } catch (error) {
      throw convertError(error);
    }
  });
}

/** AsyncCaller's judgement of an attempt unless its user has one: it returns for another, or throws. */
export function retryTransient(error: unknown): void {
  if (!LoraxError.isInstance(error) || !TRANSIENT.includes(error.code)) throw error;
}

/** Both signals in one: a call's own, and the time that a model allows to each. */
export function withTimeout(
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
): AbortSignal | undefined {
  if (timeoutMs === undefined) return signal;
  const timeout = AbortSignal.timeout(timeoutMs);
  return signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
}

async function begin(engine: EngineView, request: GenerateRequest): Promise<OpenCall> {
  const events = engine.generate(request)[Symbol.asyncIterator]();
  const first = await events.next();
  if (first.done === true || first.value.type !== 'start') throw cutOff();
  return { start: first.value, events: rest(events) };
}

async function* rest(events: AsyncIterator<TokenEvent>): AsyncGenerator<AnswerEvent> {
  let last: FinishEvent | undefined;
  try {
    while (last === undefined) {
      const { done, value } = await events.next();
      if (done === true || value.type === 'start') throw cutOff();
      if (value.type === 'finish') last = value;
      yield value;
    }
  } catch (error) {
    throw convertError(error);
  } finally {
    await events.return?.();
  }
}

function convertError(error: unknown): unknown {
  if (!LoraxError.isInstance(error)) return error;
  if (error.code === 'CONTEXT_TOO_LONG') return ContextOverflowError.fromError(error);
  return stampRetryable(error, TRANSIENT.includes(error.code));
}

function cutOff(): LoraxError {
  return new LoraxError('ENGINE_LOST', "The engine's answer ended without its last event.");
}
