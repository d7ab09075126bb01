/** Many streams at once, each whole and its own; and more than may wait, refused. Nothing here is timed. */
import { createServer, serveOnNode } from 'lorax-js/server';
import { beforeAll, expect, it } from 'vitest';
import { ADAPTERS, startServer, type LiveServer } from './live-server.js';

let server: LiveServer;
beforeAll(async () => {
  server = await startServer();
});

const bodyOf = (model: string, more: object = {}) => ({
  ...{ model, max_tokens: 24, ignore_eos: true, ...more },
  messages: [{ role: 'user', content: 'Where is my order 4821?' }],
});

interface Chunk {
  choices: { delta: { content?: string }; finish_reason: string | null }[];
  usage: { completion_tokens: number } | null;
}

it('200 streams over four models: no event torn, none of another stream', async () => {
  const models = ['demo', ...ADAPTERS];
  const alone = new Map<string, string>();
  for (const model of models) {
    const answer = await server.post('/v1/chat/completions', bodyOf(model));
    const { choices } = (await answer.json()) as { choices: { message: { content: string } }[] };
    alone.set(model, choices[0]?.message.content ?? '');
  }
  expect(new Set(alone.values()).size).toBe(models.length);
  const options = { stream: true, stream_options: { include_usage: true } };
  await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const model = models[index % models.length] ?? '';
      const response = await server.post('/v1/chat/completions', bodyOf(model, options));
      const events = (await response.text()).split('\n\n');
      expect(events.splice(-2)).toEqual(['data: [DONE]', '']);
      const chunks = events.map((event) => JSON.parse(event.slice('data: '.length)) as Chunk);
      const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
      expect(text).toBe(alone.get(model));
      expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('length');
      expect(chunks.at(-1)?.usage?.completion_tokens).toBe(24);
    }),
  );
});

it('one more than may wait hears 429 at once, and when to come back; the others are served', async () => {
  const { engine } = server;
  const { fetch } = createServer({ engine, maxWaiting: 4 });
  const ask = async () => {
    const response = await fetch(
      new Request('http://server/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(bodyOf('demo')),
      }),
    );
    return {
      response,
      body: (await response.json()) as { error?: { type: string; code: string } },
    };
  };
  const answers = await Promise.all(Array.from({ length: 40 }, ask));
  const served = answers.filter(({ response }) => response.status === 200);
  const refused = answers.filter(({ response }) => response.status === 429);
  expect(served.length).toBeGreaterThanOrEqual(4);
  expect(refused.length).toBe(40 - served.length);
  expect(refused.length).toBeGreaterThan(0);
  for (const { response, body } of refused) {
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(body.error).toMatchObject({ type: 'rate_limit_error', code: 'queue_full' });
  }
  expect((await ask()).response.status).toBe(200);
});

it('while many requests are refused, a stream hears of several tokens at a time, and of the same text', async () => {
  const { engine } = server;
  const { fetch } = createServer({ engine, maxWaiting: 1 });
  const post = (body: object) =>
    fetch(
      new Request('http://server/v1/chat/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }),
    );
  const long = { max_tokens: 3500, temperature: 0 };
  const alone = await post(bodyOf('demo', long));
  const { choices } = (await alone.json()) as { choices: { message: { content: string } }[] };
  const response = await post(bodyOf('demo', { ...long, stream: true }));
  let refused = 0;
  let isOver = false;
  const flood = (async () => {
    while (!isOver) {
      const short = () => post(bodyOf('demo', { max_tokens: 1 }));
      const answers = await Promise.all(Array.from({ length: 32 }, short));
      refused += answers.filter(({ status }) => status === 429).length;
      // Refusals alone would leave the event loop no turn.
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  let [text, events] = ['', 0];
  let manyAt: number | undefined;
  const decoder = new TextDecoder();
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(bytes, { stream: true });
    if (refused < 500) continue;
    manyAt ??= performance.now();
    events++;
  }
  isOver = true;
  await flood;
  const chunks = text.split('\n\n').slice(0, -2);
  const said = chunks.map((chunk) => JSON.parse(chunk.slice('data: '.length)) as Chunk);
  expect(said.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(
    choices[0]?.message.content,
  );
  // 50 ms are the tick of 170 refusals a second; without, there are hundreds of events.
  expect(events).toBeLessThanOrEqual((performance.now() - Number(manyAt)) / 50 + 4);
});

it('close() lets what is open end within its grace', async () => {
  const { engine } = server;
  const node = await serveOnNode(createServer({ engine }), { port: 0 });
  const answer = fetch(`${node.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(bodyOf('demo', { stream: true, max_tokens: 200 })),
  });
  const response = await answer;
  const closed = node.close({ graceMs: 20_000 });
  const text = await response.text();
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  await closed;
  await expect(fetch(`${node.url}/health`)).rejects.toThrow();
});
