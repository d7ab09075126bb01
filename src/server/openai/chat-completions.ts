/** POST /v1/chat/completions, whole or streamed. */
import { randomUUID } from 'node:crypto';
import { Choices } from '../choices.js';
import type { RegisterRoutes } from '../environment.js';
import { eventStream } from '../event-stream.js';
import { readBody } from '../read-body.js';
import { ChatAnswer } from './chat-answer.js';
import { ChatChunks } from './chat-chunks.js';
import { chatRequestOf } from './chat-request.js';
import { usageOf } from './usage.js';

export const registerChatCompletions: RegisterRoutes = (app, state) => {
  app.post('/v1/chat/completions', async (c) => {
    state.admissions.check();
    const fields = await readBody(c, state.maxBodyBytes);
    const { model, requests, logprobs, stream, includeUsage } = await chatRequestOf(fields, state);
    const tokens = logprobs ? state.tokens : undefined;
    const choices = new Choices(c, state, requests);
    await choices.admitted();
    const head = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model };
    if (stream) return eventStream(c, new ChatChunks(choices, head, { tokens, includeUsage }));

    const answers = requests.map(() => new ChatAnswer());
    for (let turn; (turn = await choices.next()) !== undefined;) {
      answers[turn.index]?.add(turn.event);
    }
    const usages = answers.map(({ usage }) => usage);
    return c.json({
      ...{ id: head.id, object: 'chat.completion', created: head.created, model },
      choices: await Promise.all(answers.map((answer, index) => answer.choice(index, tokens))),
      usage: usageOf(usages.slice(0, 1), usages),
    });
  });
};
