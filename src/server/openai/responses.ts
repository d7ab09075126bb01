/** POST /v1/responses, whole or streamed: text, reasoning and calls of functions. Nothing is stored. */
import type { Fields } from '../../check-shape.js';
import type { FinishEvent } from '../../types.js';
import type { RegisterRoutes } from '../environment.js';
import { eventStream, type EventSource } from '../event-stream.js';
import { admitted, leave, nextEvent, open, type Generation } from '../generation.js';
import type { HttpError } from '../http-error.js';
import { readBody } from '../read-body.js';
import { newId, ResponseOutput, type OutputEvent } from './response-output.js';
import { responseRequestOf } from './response-request.js';

export const registerResponses: RegisterRoutes = (app, state) => {
  app.post('/v1/responses', async (c) => {
    state.admissions.check();
    const fields = await readBody(c, state.maxBodyBytes);
    const { request, stream, logprobs, asked } = await responseRequestOf(fields, state);
    const generation = await admitted(open(c, request, state), state.admissions);
    const output = new ResponseOutput(logprobs ? state.tokens : undefined);
    const response = new ResponseObject(asked, output);
    if (stream) {
      const events = new ResponseEvents(generation, response, output);
      return eventStream(c, events, (error) => events.failure(error));
    }
    for (;;) {
      const event = await nextEvent(generation.events);
      if (event.type !== 'finish') {
        await output.add(event);
        continue;
      }
      output.finish(event);
      return c.json(response.finished(event));
    }
  });
};

class ResponseObject {
  readonly #head: Fields;
  readonly #asked: Fields;
  readonly #output: ResponseOutput;

  constructor(asked: Fields, output: ResponseOutput) {
    const created_at = Math.floor(Date.now() / 1000);
    this.#head = { id: newId('resp'), object: 'response', created_at };
    this.#asked = asked;
    this.#output = output;
  }

  inProgress(): Fields {
    return this.#with({ status: 'in_progress', usage: null });
  }

  finished({ reason, usage }: FinishEvent): Fields {
    const isCut = reason === 'length';
    return this.#with({
      status: isCut ? 'incomplete' : 'completed',
      ...(isCut ? { incomplete_details: { reason: 'max_output_tokens' } } : {}),
      usage: {
        input_tokens: usage.promptTokens,
        input_tokens_details: { cached_tokens: usage.cachedTokens },
        output_tokens: usage.outputTokens,
        output_tokens_details: { reasoning_tokens: usage.reasoningTokens ?? 0 },
        total_tokens: usage.promptTokens + usage.outputTokens,
      },
    });
  }

  failed({ message, code, type }: HttpError): Fields {
    return this.#with({ status: 'failed', error: { code: code ?? type, message }, usage: null });
  }

  #with(state: Fields): Fields {
    return {
      ...this.#head,
      ...{ background: false, error: null, incomplete_details: null },
      ...this.#asked,
      output: this.#output.items,
      ...state,
    };
  }
}

class ResponseEvents implements EventSource {
  #sequence = 0;
  #state: 'begin' | 'middle' | 'end' = 'begin';

  constructor(
    private readonly generation: Generation,
    private readonly response: ResponseObject,
    private readonly output: ResponseOutput,
  ) {}

  async next(): Promise<string | undefined> {
    if (this.#state === 'begin') {
      this.#state = 'middle';
      const response = this.response.inProgress();
      return this.#write([
        { type: 'response.created', response },
        { type: 'response.in_progress', response },
      ]);
    }
    while (this.#state === 'middle') {
      const event = await nextEvent(this.generation.events);
      if (event.type === 'finish') {
        this.#state = 'end';
        const last = this.output.finish(event);
        const response = this.response.finished(event);
        return this.#write([...last, { type: `response.${String(response.status)}`, response }]);
      }
      const text = this.#write(await this.output.add(event));
      if (text !== '') return text;
    }
    return undefined;
  }

  failure(error: HttpError): string {
    return this.#write([{ type: 'response.failed', response: this.response.failed(error) }]);
  }

  close(): void {
    leave([this.generation.events]);
  }

  #write(events: readonly OutputEvent[]): string {
    return events
      .map(({ type, ...event }) => {
        const data = { type, sequence_number: this.#sequence++, ...event };
        return `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
      })
      .join('');
  }
}
