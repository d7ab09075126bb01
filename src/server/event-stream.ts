/**
 * Server-sent events of one answer, whole events only, at the reader's pace.
 *
 * Nothing is pulled ahead of the reader: meanwhile the engine's stream joins deltas, so a reader that
 * stops costs one event and its socket's buffer. A failure is an event with OpenAI's error in it, after
 * which the stream ends; leaving the stream ends its requests.
 */
import type { ServerContext } from './environment.js';
import { errorBody, toHttpError, type HttpError } from './http-error.js';

export interface EventSource {
  /** The text of the next events, `data: ...\n\n` each; undefined at the end. */
  next(): Promise<string | undefined>;
  /** The reader has left, or an error has ended the stream. */
  close(): void;
}

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  // nginx would hold the events back.
  'x-accel-buffering': 'no',
};

/** `onError`: the events that tell of a failure. */
export function eventStream(
  c: ServerContext,
  source: EventSource,
  onError: (error: HttpError) => string = errorEvent,
): Response {
  const encoder = new TextEncoder();
  let ended = false;
  const body = new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        let text: string | undefined;
        try {
          text = await source.next();
        } catch (error) {
          ended = true;
          source.close();
          // Who left does not read why.
          if (!c.req.raw.signal.aborted) {
            controller.enqueue(encoder.encode(onError(toHttpError(error))));
          }
          controller.close();
          return;
        }
        if (ended) return;
        if (text === undefined) {
          ended = true;
          controller.close();
        } else {
          controller.enqueue(encoder.encode(text));
        }
      },
      cancel: () => {
        ended = true;
        source.close();
      },
    },
    { highWaterMark: 0 },
  );
  return c.body(body, 200, HEADERS);
}

export const DONE = 'data: [DONE]\n\n';

export function dataEvent(data: unknown): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

export function errorEvent(error: HttpError): string {
  return dataEvent(errorBody(error)) + DONE;
}
