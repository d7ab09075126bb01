/** What no client's types let one write: fields that are wrong, unsupported or unknown, and how readers may leave. */
import type { ErrorBody } from 'lorax-js/server';
import { connect } from 'node:net';
import { getDefaultHighWaterMark } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { startServer, type LiveServer } from './live-server.js';

let server: LiveServer;
beforeAll(async () => {
  server = await startServer({ maxBodyBytes: 100_000 });
});

const messages = [{ role: 'user', content: 'Where is my order 4821?' }];
const chat = { model: 'demo', messages, max_tokens: 2 };

async function refusal(path: string, body: unknown, init?: RequestInit) {
  const response = await server.post(path, body, init);
  const { error } = (await response.json()) as ErrorBody;
  expect(error.message).not.toBe('');
  return { status: response.status, ...error };
}

describe('a field that is wrong or not supported is named', () => {
  it.each<[string, object, string | null]>([
    ['no messages', { messages: undefined }, 'messages'],
    ['messages that are none', { messages: 'hi' }, 'messages'],
    ['a role that is none', { messages: [{ role: 'boss', content: 'x' }] }, 'messages[0].role'],
    ['no content', { messages: [{ role: 'user' }] }, 'messages[0].content'],
    [
      'an image',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      'messages[0].content[0]',
    ],
    [
      'a call whose arguments are no JSON',
      {
        messages: [
          {
            role: 'assistant',
            tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: '{' } }],
          },
        ],
      },
      'messages[0].tool_calls[0].function.arguments',
    ],
    ['a temperature that is a text', { temperature: 'hot' }, 'temperature'],
    ['top_p of 0', { top_p: 0 }, 'top_p'],
    ['a number beyond all', { max_tokens: 1e300 }, 'max_tokens'],
    ['n of 0', { n: 0 }, 'n'],
    ['n of too many', { n: 1e6 }, 'n'],
    ['top_logprobs alone', { top_logprobs: 2 }, 'top_logprobs'],
    ['21 alternatives', { logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
    ['an empty stop', { stop: '' }, 'stop[0]'],
    ['a bias of no token', { logit_bias: { x: 1 } }, 'logit_bias.x'],
    ['stream_options without stream', { stream_options: {} }, 'stream_options'],
    ['min_tokens', { min_tokens: 3 }, 'min_tokens'],
    ['prompt_logprobs', { prompt_logprobs: 1 }, 'prompt_logprobs'],
    ['functions of old', { functions: [{ name: 'f' }] }, 'functions'],
    ['a tool that runs elsewhere', { tools: [{ type: 'web_search' }] }, 'tools[0].type'],
    ['a choice without tools', { tool_choice: 'required' }, 'tool_choice'],
    [
      'a tool whose schema is not supported',
      {
        tools: [
          { type: 'function', function: { name: 'f', parameters: { type: 'object', not: {} } } },
        ],
        tool_choice: 'required',
      },
      null,
    ],
    ['a format that is none', { response_format: { type: 'xml' } }, 'response_format.type'],
    [
      'two constraints',
      { response_format: { type: 'json_object' }, guided_regex: 'a' },
      'guided_regex',
    ],
    ['a pattern that is none', { guided_regex: '(' }, null],
    ['a schema as text that is no JSON', { guided_json: '{' }, 'guided_json'],
    ['a model that is a number', { model: 5 }, 'model'],
  ])('%s', async (_, more, param) => {
    const error = await refusal('/v1/chat/completions', { ...chat, ...more });
    expect(error).toMatchObject({ status: 400, type: 'invalid_request_error' });
    if (param !== null) expect(error.param).toBe(param);
    // The engine's own names of fields are no client's business.
    expect(error.message).not.toMatch(/request\.|sampling\.|options\./);
  });

  it.each<[string, object, string]>([
    ['no prompt', { prompt: undefined }, 'prompt'],
    ['an empty prompt', { prompt: [] }, 'prompt'],
    ['a token that there is not', { prompt: [999_999] }, 'prompt'],
    ['echo with logprobs', { echo: true, logprobs: 1 }, 'echo'],
    ['suffix', { suffix: 'end' }, 'suffix'],
    ['best_of below n', { best_of: 1, n: 2 }, 'best_of'],
    ['best_of as a stream', { best_of: 2, n: 1, stream: true }, 'best_of'],
    ['too many of all', { prompt: Array.from({ length: 300 }, () => 'x') }, 'prompt'],
  ])('completions: %s', async (_, more, param) => {
    const error = await refusal('/v1/completions', { model: 'demo', prompt: 'x', ...more });
    expect(error).toMatchObject({ status: 400, param });
  });

  it.each<[string, string, object, string]>([
    ['embeddings: tokens', '/v1/embeddings', { input: [[1, 2]] }, 'input'],
    ['embeddings: dimensions', '/v1/embeddings', { input: 'x', dimensions: 3 }, 'dimensions'],
    [
      'responses: history',
      '/v1/responses',
      { input: 'x', previous_response_id: 'r' },
      'previous_response_id',
    ],
    ['responses: a file', '/v1/responses', { input: [{ type: 'input_file' }] }, 'input[0].type'],
    ['responses: truncation', '/v1/responses', { input: 'x', truncation: 'auto' }, 'truncation'],
  ])('%s', async (_, path, body, param) => {
    expect(await refusal(path, { model: 'demo', ...body })).toMatchObject({ status: 400, param });
  });

  it('fields that are not known, and null, are let pass', async () => {
    const more = { user: 'me', store: true, metadata: { a: 1 }, some_new_field: 3, stop: null };
    const response = await server.post('/v1/chat/completions', { ...chat, ...more, tools: [] });
    expect(response.status).toBe(200);
  });
});

describe('a body', () => {
  it('must be JSON, say so, be UTF-8, shallow and within the limit', async () => {
    const path = '/v1/chat/completions';
    const plain = { headers: { 'content-type': 'text/plain' } };
    expect(await refusal(path, chat, plain)).toMatchObject({ status: 415 });
    expect(await refusal(path, '{"model":')).toMatchObject({ status: 400, param: null });
    expect(await refusal(path, '[1]')).toMatchObject({ status: 400 });
    expect(await refusal(path, '[['.repeat(10_000))).toMatchObject({ status: 400 });
    const bytes = new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]);
    expect(await refusal(path, '', { body: bytes })).toMatchObject({ status: 400 });
    expect(await refusal(path, JSON.stringify({ pad: 'x'.repeat(100_001) }))).toMatchObject({
      status: 413,
    });
    // Of unknown length.
    const body = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(65_536).fill(0x20)),
    });
    const endless = { body, duplex: 'half' } as RequestInit;
    expect(await refusal(path, '', endless)).toMatchObject({ status: 413 });
  });
});

async function untilIdle() {
  for (let i = 0; i < 2000; i++) {
    const { requests } = await server.engine.stats();
    if (requests.running + requests.waiting === 0) return;
    await sleep(10);
  }
  throw new Error('still running');
}

describe('a client that leaves', () => {
  const long = { ...chat, max_tokens: 4000, ignore_eos: true, n: 2 };

  it.each(['whole', 'streamed'])('ends its requests: %s', async (kind) => {
    const aborter = new AbortController();
    const stream = kind === 'streamed';
    const before = await server.engine.stats();
    const answer = server
      .post(
        '/v1/chat/completions',
        { ...long, stream },
        {
          ...{ signal: aborter.signal, headers: { 'content-type': 'application/json' } },
        },
      )
      .then((response) => response.text());
    answer.catch(() => undefined);
    while ((await server.engine.stats()).requests.running < 2) await sleep(5);
    await sleep(30);
    aborter.abort();
    await expect(answer).rejects.toThrow();
    await untilIdle();
    const { totals } = await server.engine.stats();
    expect(totals.aborted - before.totals.aborted).toBe(2);
    expect(totals.failed).toBe(before.totals.failed);
  });

  it('or stops reading: costs a bounded buffer, and gets everything when it reads on', async () => {
    // More than the system's own buffers hold.
    const body = JSON.stringify({
      ...{ ...long, n: 1, stream: true, max_tokens: 3500, logprobs: true, top_logprobs: 20 },
    });
    const socket = connect(server.node.port, '127.0.0.1');
    let received = '';
    await new Promise<void>((resolve) => socket.once('connect', resolve));
    socket.write(
      'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n' +
        `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    );
    socket.pause();
    // It goes on to generate for a reader who does not read.
    while ((await server.engine.stats()).requests.running === 0) await sleep(5);
    await untilIdle();
    const buffered = Math.max(...[...server.open].map((each) => each.writableLength));
    expect(buffered).toBeGreaterThan(0);
    // Node's own mark, 16 KiB or, from 22 on, 64; and what was written when it was passed.
    expect(buffered).toBeLessThan(getDefaultHighWaterMark(false) + (16 << 10));
    socket.on('data', (chunk: Buffer) => (received += chunk.toString()));
    socket.resume();
    await new Promise<void>((resolve) => socket.once('end', resolve));
    const text = received.slice(received.indexOf('\r\n\r\n') + 4).replace(/\r\n[0-9a-f]+\r\n/g, '');
    expect(text).toContain('"finish_reason":"length"');
    expect(text).toContain('data: [DONE]');
    // Deltas that nobody had read yet were joined on the way.
    const events = text.split('data: ').slice(1, -1);
    expect(events.length).toBeLessThan(3500);
  });
});
