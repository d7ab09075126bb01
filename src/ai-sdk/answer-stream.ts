/**
 * An admitted request's events as the AI SDK's stream.
 *
 * Nothing is pulled ahead of the reader: meanwhile the engine's stream joins deltas, so that a slow
 * reader neither holds up others nor grows memory. Leaving the stream cancels the request. Made by
 * language-model.ts.
 */
import type { StartEvent, TokenEvent } from '../types.js';
import type { AnswerMetadata } from './answer-metadata.js';
import { AnswerParts } from './answer-parts.js';
import { cutOff } from './convert-error.js';
import type { LoraxStreamPart, LoraxWarning } from './model-types.js';

export interface AnswerStreamOptions {
  /** What has come already. */
  start: StartEvent;
  /** What comes after it. */
  events: AsyncIterator<TokenEvent>;
  metadata: AnswerMetadata;
  warnings: LoraxWarning[];
  includeRawChunks: boolean;
  abortSignal: AbortSignal | undefined;
  convertError(error: unknown): unknown;
}

type Controller = ReadableStreamDefaultController<LoraxStreamPart>;

export function answerStream(options: AnswerStreamOptions): ReadableStream<LoraxStreamPart> {
  const { events, metadata, warnings, includeRawChunks, abortSignal } = options;
  const parts = new AnswerParts();
  let failure: { error: unknown } | undefined;

  /** Enqueues one part at least: the reader asks again only after that. */
  const enqueueNext = async (controller: Controller) => {
    for (let enqueued = false; !enqueued;) {
      const { done, value: event } = await events.next();
      if (done === true || event.type === 'start') throw cutOff();
      if (event.type === 'delta') metadata.delta(event);
      const said: LoraxStreamPart[] = parts.of(event);
      if (includeRawChunks) said.unshift({ type: 'raw', rawValue: event });
      if (event.type === 'finish') said.push({ type: 'finish', ...metadata.finish(event) });
      for (const part of said) controller.enqueue(part);
      if (event.type === 'finish') controller.close();
      enqueued = said.length > 0;
    }
  };

  return new ReadableStream<LoraxStreamPart>(
    {
      start: (controller) => {
        controller.enqueue({ type: 'stream-start', warnings });
        if (includeRawChunks) controller.enqueue({ type: 'raw', rawValue: options.start });
        controller.enqueue({ type: 'response-metadata', ...metadata.response() });
      },
      pull: async (controller) => {
        if (failure !== undefined) throw failure.error;
        try {
          await enqueueNext(controller);
        } catch (thrown) {
          const error = options.convertError(thrown);
          if (abortSignal?.aborted === true) throw error;
          // The part reaches onError (and retries of streams, where asked for); the stream's own
          // failure then keeps a reader of the text from taking half an answer for a whole one.
          controller.enqueue({ type: 'error', error });
          failure = { error };
        }
      },
      cancel: async () => {
        await events.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}
