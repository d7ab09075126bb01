/**
 * LoRAX's POST /generate, /generate_stream and / (which does either, and answers with an array).
 */
import { cutOff } from '../../ai-sdk/convert-error.js';
import type { FinishEvent } from '../../types.js';
import type { Fields } from '../../check-shape.js';
import { checkBoolean } from '../../check-shape.js';
import { Choices } from '../choices.js';
import type { RegisterRoutes, ServerContext, ServerState } from '../environment.js';
import { dataEvent, eventStream, type EventSource } from '../event-stream.js';
import { badRequest } from '../http-error.js';
import { readBody } from '../read-body.js';
import { loraxRequestOf, type LoraxRequest } from './generate-request.js';
import { loraxErrorJson, toLoraxError } from './lorax-error.js';
import { finishReason, TokenPieces, type TokenJson } from './token-pieces.js';

type Answer = (c: ServerContext, state: ServerState, fields: Fields) => Promise<Response>;

export const registerLoraxGenerate: RegisterRoutes = (app, state) => {
  const route = (path: string, answer: Answer) =>
    app.post(path, async (c) => {
      try {
        state.admissions.check();
        return await answer(c, state, await readBody(c, state.maxBodyBytes));
      } catch (error) {
        return toLoraxError(c, error);
      }
    });
  route('/generate', async (c, _, fields) => c.json(await generate(c, state, fields)));
  route('/generate_stream', stream);
  route('/', async (c, _, fields) => {
    const isStream = checkBoolean(fields.stream, 'stream') ?? false;
    return isStream ? stream(c, state, fields) : c.json([await generate(c, state, fields)]);
  });
};

class Sequence {
  readonly pieces: TokenPieces;
  readonly tokens: TokenJson[] = [];
  #finish: FinishEvent | undefined;

  constructor(
    state: ServerState,
    { alternatives }: LoraxRequest,
    readonly seed: number | null,
  ) {
    this.pieces = new TokenPieces(state.tokens, alternatives !== undefined);
  }

  set finish(event: FinishEvent) {
    this.#finish = event;
    const last = this.pieces.last(event);
    if (last !== undefined) this.tokens.push(last);
  }

  get finish(): FinishEvent {
    if (this.#finish === undefined) throw cutOff();
    return this.#finish;
  }

  get logprob(): number {
    return this.tokens.reduce((sum, { logprob }) => sum + logprob, 0) / (this.tokens.length || 1);
  }

  details() {
    return {
      finish_reason: finishReason(this.finish),
      generated_tokens: this.finish.usage.outputTokens,
      seed: this.seed,
      prefill: [],
      tokens: this.tokens,
    };
  }
}

async function generate(c: ServerContext, state: ServerState, fields: Fields) {
  const asked = await loraxRequestOf(c, fields, state);
  const choices = new Choices(c, state, asked.requests);
  await choices.admitted();
  const sequences = asked.requests.map(({ sampling }) => {
    return new Sequence(state, asked, asked.seed === null ? null : (sampling?.seed ?? null));
  });
  for (let turn; (turn = await choices.next()) !== undefined;) {
    const sequence = sequences[turn.index] as Sequence;
    if (turn.event.type === 'finish') sequence.finish = turn.event;
    else sequence.tokens.push(...(await sequence.pieces.add(turn.event)));
  }
  const [best, ...others] = sequences.sort((a, b) => b.logprob - a.logprob) as [Sequence];
  const textOf = ({ pieces }: Sequence) => asked.echo + pieces.text;
  if (!asked.details) return { generated_text: textOf(best) };
  const rest = others as Sequence[];
  return {
    generated_text: textOf(best),
    details: {
      ...best.details(),
      prompt_tokens: best.finish.usage.promptTokens,
      skipped_tokens: 0,
      ...(rest.length === 0
        ? {}
        : {
            best_of_sequences: rest.map((each) => ({
              generated_text: textOf(each),
              ...each.details(),
            })),
          }),
    },
  };
}

const stream: Answer = async (c, state, fields) => {
  const asked = await loraxRequestOf(c, fields, state);
  if (asked.requests.length > 1) {
    throw badRequest('best_of', 'best_of > 1 cannot be streamed: the best is known at the end.');
  }
  const choices = new Choices(c, state, asked.requests);
  await choices.admitted();
  const events = new TokenEvents(choices, state, asked);
  return eventStream(c, events, (error) => dataEvent(loraxErrorJson(error)));
};

class TokenEvents implements EventSource {
  readonly #pieces: TokenPieces;
  #ended = false;

  constructor(
    private readonly choices: Choices,
    state: ServerState,
    private readonly asked: LoraxRequest,
  ) {
    this.#pieces = new TokenPieces(state.tokens, asked.alternatives !== undefined);
  }

  async next(): Promise<string | undefined> {
    while (!this.#ended) {
      const turn = await this.choices.next();
      if (turn === undefined) throw cutOff();
      if (turn.event.type === 'finish') {
        this.#ended = true;
        return this.#last(turn.event);
      }
      const tokens = await this.#pieces.add(turn.event);
      if (tokens.length > 0) return tokens.map((token) => eventOf(token)).join('');
    }
    return undefined;
  }

  close(): void {
    this.choices.close();
  }

  /** Where an answer has no token at all, there is still something to say. */
  #last(finish: FinishEvent): string {
    const nothing: TokenJson = { id: 0, text: '', logprob: 0, special: true, skipped: false };
    const token = this.#pieces.last(finish) ?? nothing;
    const { promptTokens, outputTokens } = finish.usage;
    const details = {
      finish_reason: finishReason(finish),
      prompt_tokens: promptTokens,
      generated_tokens: outputTokens,
      seed: this.asked.seed,
    };
    const text = this.asked.echo + this.#pieces.text;
    return eventOf(token, text, this.asked.details ? details : null);
  }
}

function eventOf(
  token: TokenJson,
  generated_text: string | null = null,
  details: object | null = null,
): string {
  return dataEvent({ token, generated_text, details });
}
