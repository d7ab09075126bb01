/** POST /v1/completions, whole or streamed. */
import { randomUUID } from 'node:crypto';
import { cutOff } from '../../ai-sdk/convert-error.js';
import type { FinishEvent, TokenLogprob, Usage } from '../../types.js';
import { Choices } from '../choices.js';
import type { RegisterRoutes } from '../environment.js';
import { eventStream } from '../event-stream.js';
import type { AnswerEvent } from '../generation.js';
import { readBody } from '../read-body.js';
import type { TokenTexts } from '../token-texts.js';
import { CompletionChunks } from './completion-chunks.js';
import { completionRequestOf } from './completion-request.js';
import { finishOf } from './finish.js';
import { completionLogprobs } from './logprobs.js';
import { usageOf } from './usage.js';

export const registerCompletions: RegisterRoutes = (app, state) => {
  app.post('/v1/completions', async (c) => {
    state.admissions.check();
    const fields = await readBody(c, state.maxBodyBytes);
    const asked = await completionRequestOf(c, fields, state);
    const { model, requests, n, bestOf, echoes } = asked;
    const tokens = asked.logprobs ? state.tokens : undefined;
    const choices = new Choices(c, state, requests);
    await choices.admitted();
    const head = { id: `cmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model };
    if (asked.stream) {
      const { includeUsage } = asked;
      const chunks = new CompletionChunks(choices, head, { tokens, includeUsage, echoes, n });
      return eventStream(c, chunks);
    }
    const all = requests.map(() => new Completion());
    for (let turn; (turn = await choices.next()) !== undefined;) all[turn.index]?.add(turn.event);
    const ofPrompts = echoes.map((_, at) => all.slice(at * bestOf, (at + 1) * bestOf));
    const given = ofPrompts.flatMap((some, at) =>
      bestFirst(some, n).map((completion) => ({ completion, echo: echoes[at] ?? '' })),
    );
    return c.json({
      ...{ id: head.id, object: 'text_completion', created: head.created, model },
      choices: await Promise.all(
        given.map(({ completion, echo }, index) => completion.choice(index, echo, tokens)),
      ),
      usage: usageOf(
        ofPrompts.flatMap(([first]) => first?.usage ?? []),
        all.map(({ usage }) => usage),
      ),
    });
  });
};

/** By the mean of their tokens' logprobs, where there are more than wanted. */
function bestFirst(completions: Completion[], n: number): Completion[] {
  if (completions.length === n) return completions;
  return [...completions].sort((a, b) => b.meanLogprob - a.meanLogprob).slice(0, n);
}

class Completion {
  #text = '';
  readonly #logprobs: TokenLogprob[] = [];
  #finish: FinishEvent | undefined;

  add(event: AnswerEvent): void {
    if (event.type === 'finish') this.#finish = event;
    if (event.type !== 'delta') return;
    this.#text += event.text;
    if (event.logprobs !== undefined) this.#logprobs.push(...event.logprobs);
  }

  get finish(): FinishEvent {
    if (this.#finish === undefined) throw cutOff();
    return this.#finish;
  }

  get usage(): Usage {
    return this.finish.usage;
  }

  get meanLogprob(): number {
    const sum = this.#logprobs.reduce((total, { logprob }) => total + logprob, 0);
    return sum / Math.max(1, this.#logprobs.length);
  }

  async choice(index: number, echo: string, tokens: TokenTexts | undefined) {
    return {
      index,
      text: echo + this.#text,
      logprobs: tokens ? await completionLogprobs(this.#logprobs, tokens, echo.length) : null,
      ...finishOf(this.finish),
    };
  }
}
