// The client process of server-load.mjs: opens streams and reads every event of them strictly. Told what
// to do by messages, answers each with what it saw. An event that is no whole JSON, a stream without its
// end, or one whose events do not add up to its usage is an error.
import { setTimeout as sleep } from 'node:timers/promises';
import { Connections } from './connections.mjs';

let connections;

/** One request: what it gave, or why it was refused. */
async function ask(port, body) {
  if (connections?.port !== port) connections = new Connections(port);
  const startedAt = performance.now();
  const sinceStart = () => performance.now() - startedAt;
  try {
    const text = JSON.stringify(body);
    const answer = await connections.post('/v1/chat/completions', text);
    const { status, retryAfter, firstMs } = answer;
    const ms = sinceStart();
    if (status !== 200) return { status, retryAfter, ms };
    const events = answer.text.split('\n\n');
    const { error, ...counts } = check(events, events.pop());
    return error === undefined ? { status, ms, firstMs, ...counts } : { error, ms };
  } catch (error) {
    return { error: String(error), ms: sinceStart() };
  }
}

/** Of one stream's events, first to last. */
function check(events, rest) {
  if (rest !== '') return { error: `ends inside an event: ${JSON.stringify(rest.slice(0, 100))}` };
  if (events.at(-1) !== 'data: [DONE]') return { error: `ends with ${events.at(-1)}` };
  let usage;
  let finish;
  let deltas = 0;
  for (const event of events.slice(0, -1)) {
    if (!event.startsWith('data: {')) return { error: `no event: ${event.slice(0, 100)}` };
    let json;
    try {
      json = JSON.parse(event.slice(6));
    } catch {
      return { error: `torn: ${event.slice(0, 100)}` };
    }
    if (json.error) return { error: `inside the stream: ${json.error.message}` };
    usage = json.usage ?? usage;
    finish = json.choices[0]?.finish_reason ?? finish;
    if (json.choices[0]?.delta.content) deltas++;
  }
  if (usage === undefined || finish === undefined) return { error: 'without usage or reason' };
  if (deltas > usage.completion_tokens) return { error: 'more deltas than tokens' };
  return { tokens: usage.completion_tokens, deltas };
}

const messages = (index) => [
  { role: 'user', content: `Where is my order ${4000 + (index % 900)}?` },
];
const MODELS = ['demo', 'pirate', 'french', 'json'];
const bodyOf = (index, tokens) => ({
  model: MODELS[index % MODELS.length],
  ...{ messages: messages(index), stream: true, stream_options: { include_usage: true } },
  ...{ max_tokens: tokens, ignore_eos: true },
});

/** Half to one and a half of `tokens`: those who began together do not end together. */
const lengthOf = (index, tokens) => Math.round(tokens * (0.5 + ((index * 7919) % 1000) / 1000));

const COMMANDS = {
  /** Closed loop: so many streams, the first of each `gapMs` apart, each begun anew when it has ended. */
  async streams({ port, concurrency, seconds, tokens, gapMs = 0 }) {
    const until = performance.now() + seconds * 1000;
    const results = [];
    let index = 0;
    await Promise.all(
      Array.from({ length: concurrency }, async (_, stream) => {
        await sleep(stream * gapMs);
        while (performance.now() < until) {
          const result = await ask(port, bodyOf(index, lengthOf(index++, tokens)));
          results.push(result);
          if (result.status === 429) await sleep(50);
        }
      }),
    );
    return results;
  },
  /** Open loop: so many a second, whatever becomes of them. */
  async arrivals({ port, rate, seconds, tokens }) {
    const pending = [];
    const beganAt = performance.now();
    for (let index = 0; index < rate * seconds; index++) {
      const dueMs = (index / rate) * 1000 - (performance.now() - beganAt);
      if (dueMs > 1) await sleep(dueMs);
      const atMs = performance.now() - beganAt;
      const body = bodyOf(index, lengthOf(index, tokens));
      pending.push(ask(port, body).then((result) => ({ ...result, atMs })));
    }
    return Promise.all(pending);
  },
};

process.on('message', async ({ command, ...options }) => {
  process.send(await COMMANDS[command](options));
});
