/** The official `openai` client, unmodified, against a live server on the demo model. */
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startServer, type LiveServer } from './live-server.js';

let server: LiveServer;
let client: OpenAI;
beforeAll(async () => {
  server = await startServer();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});

const messages = [{ role: 'user' as const, content: 'Where is my order 4821?' }];
const tools = [
  {
    type: 'function' as const,
    function: {
      name: 'find_order',
      description: 'Where an order is.',
      parameters: {
        type: 'object',
        properties: { id: { type: 'integer', minimum: 0, maximum: 9999 } },
        required: ['id'],
        additionalProperties: false,
      },
    },
  },
];

describe('chat.completions', () => {
  it('answers as the adapter that the model names, in each of its forms', async () => {
    const ask = async (model: string) => {
      const { choices } = await client.chat.completions.create({ model, messages, max_tokens: 24 });
      return choices[0]?.message.content ?? '';
    };
    const [base, again, pirate, long, french] = await Promise.all(
      ['demo', 'base', 'pirate', 'demo:pirate', 'french'].map(ask),
    );
    expect(base).not.toBe('');
    expect(again).toBe(base);
    expect(long).toBe(pirate);
    expect(new Set([base, pirate, french]).size).toBe(3);
  });

  it('gives usage, a finish reason and the model as it was asked for', async () => {
    const whole = await client.chat.completions.create({ model: 'pirate', messages });
    expect(whole.model).toBe('pirate');
    expect(whole.object).toBe('chat.completion');
    expect(whole.choices[0]?.finish_reason).toBe('stop');
    const cut = await client.chat.completions.create({
      ...{ model: 'pirate', messages, max_completion_tokens: 3 },
    });
    expect(cut.choices[0]?.finish_reason).toBe('length');
    expect(cut.usage).toMatchObject({
      completion_tokens: 3,
      prompt_tokens: whole.usage?.prompt_tokens,
      total_tokens: 3 + (whole.usage?.prompt_tokens ?? 0),
    });
    const { tokenIds } = await server.engine.tokenize({ messages });
    expect(whole.usage?.prompt_tokens).toBe(tokenIds.length);
  });

  it('streams the same text, with usage in the last chunk', async () => {
    const options = { model: 'pirate', messages, max_tokens: 30 };
    const whole = await client.chat.completions.create(options);
    const stream = await client.chat.completions.create({
      ...options,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
    expect(text).toBe(whole.choices[0]?.message.content);
    expect(chunks[0]?.choices[0]?.delta.role).toBe('assistant');
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe(whole.choices[0]?.finish_reason);
    expect(chunks.at(-1)?.choices).toEqual([]);
    expect(chunks.at(-1)?.usage).toMatchObject({
      prompt_tokens: whole.usage?.prompt_tokens,
      completion_tokens: whole.usage?.completion_tokens,
    });
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  });

  it('n choices differ, and a seed makes them the same again', async () => {
    const options = { model: 'demo', messages, n: 3, temperature: 5, seed: 7, max_tokens: 16 };
    const [one, two] = await Promise.all([
      client.chat.completions.create(options),
      client.chat.completions.create(options),
    ]);
    const texts = one.choices.map(({ message }) => message.content);
    expect(one.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(new Set(texts).size).toBe(3);
    expect(two.choices.map(({ message }) => message.content)).toEqual(texts);
    expect(one.usage?.completion_tokens).toBeGreaterThan(16);

    const stream = await client.chat.completions.create({ ...options, stream: true });
    const streamed = ['', '', ''];
    for await (const { choices } of stream) {
      for (const { index, delta } of choices) streamed[index] += delta.content ?? '';
    }
    expect(streamed).toEqual(texts);
  });

  it('logprobs: of each token, with alternatives, whole and streamed', async () => {
    const options = { model: 'demo', messages, max_tokens: 8, logprobs: true, top_logprobs: 3 };
    const { choices } = await client.chat.completions.create(options);
    const content = choices[0]?.logprobs?.content ?? [];
    expect(content).toHaveLength(8);
    expect(content.map(({ token }) => token).join('')).toBe(choices[0]?.message.content);
    for (const { token, bytes, logprob, top_logprobs: top } of content) {
      expect(Buffer.from(bytes ?? []).toString()).toBe(token);
      expect(top).toHaveLength(3);
      // Greedy: the likeliest is the one that was taken.
      expect(top[0]).toMatchObject({ token, logprob });
      expect(logprob).toBeLessThanOrEqual(0);
    }
    const stream = await client.chat.completions.create({ ...options, stream: true });
    const streamed = [];
    for await (const chunk of stream) {
      streamed.push(...(chunk.choices[0]?.logprobs?.content ?? []));
    }
    expect(streamed).toEqual(content);
  });

  it('logit_bias, stop and penalties change what is said', async () => {
    const options = { model: 'demo', messages, max_tokens: 12 };
    const text = async (more: object) => {
      const { choices } = await client.chat.completions.create({ ...options, ...more });
      return choices[0]?.message.content ?? '';
    };
    const plain = await text({});
    const [first = 0] = (await server.engine.tokenize({ prompt: plain })).tokenIds;
    expect(await text({ logit_bias: { [first]: -100 } })).not.toBe(plain);
    const word = plain.split(' ')[1] ?? '';
    const stopped = await client.chat.completions.create({ ...options, stop: word });
    expect(stopped.choices[0]?.message.content).toBe(plain.slice(0, plain.indexOf(word)));
    expect(stopped.choices[0]).toMatchObject({ finish_reason: 'stop', stop_reason: word });
    expect(await text({ repetition_penalty: 3, presence_penalty: 2 })).not.toBe(plain);
  });

  it('calls tools: required, named, not at all; streamed through the client’s own runner', async () => {
    const call = await client.chat.completions.create({
      ...{ model: 'demo', messages, tools, tool_choice: 'required', max_tokens: 64 },
    });
    const [made] = call.choices[0]?.message.tool_calls ?? [];
    expect(call.choices[0]?.finish_reason).toBe('tool_calls');
    expect(call.choices[0]?.message.content).toBeNull();
    if (made?.type !== 'function') throw new Error('no call');
    expect(made.function.name).toBe('find_order');
    const { id } = JSON.parse(made.function.arguments) as { id: number };
    expect(id).toBeGreaterThanOrEqual(0);

    const stream = client.chat.completions.stream({
      ...{ model: 'demo', messages, tools, max_tokens: 64 },
      tool_choice: { type: 'function', function: { name: 'find_order' } },
    });
    const final = await stream.finalChatCompletion();
    expect(final.choices[0]?.message.tool_calls?.[0]).toMatchObject({
      type: 'function',
      function: { name: 'find_order', arguments: made.function.arguments },
    });

    const none = await client.chat.completions.create({
      ...{ model: 'demo', messages, tools, tool_choice: 'none', max_tokens: 8 },
    });
    expect(none.choices[0]?.message.tool_calls).toBeUndefined();

    // The result of a call is a message like others.
    const after = await client.chat.completions.create({
      model: 'demo',
      max_tokens: 8,
      messages: [
        ...messages,
        { role: 'assistant', tool_calls: [made] },
        { role: 'tool', tool_call_id: made.id, content: '{"at":"Oslo"}' },
      ],
    });
    expect(after.choices[0]?.message.content).not.toBe('');
  });

  it('structured output: response_format by zod, json_object, and vLLM’s ways', async () => {
    const shape = z.object({ city: z.enum(['Oslo', 'Bergen']), days: z.number().int() });
    const parsed = await client.chat.completions.parse({
      ...{ model: 'demo', messages, max_tokens: 64 },
      response_format: zodResponseFormat(shape, 'answer'),
    });
    expect(shape.parse(parsed.choices[0]?.message.parsed)).toEqual(
      parsed.choices[0]?.message.parsed,
    );
    const text = async (more: object) => {
      const body = { model: 'demo', messages, max_tokens: 64, ...more };
      const { choices } = await client.chat.completions.create(body);
      return choices[0]?.message.content ?? '';
    };
    const object = await text({ response_format: { type: 'json_object' }, seed: 1 });
    expect(object.startsWith('{')).toBe(true);
    expect(['yes', 'no']).toContain(await text({ guided_choice: ['yes', 'no'] }));
    expect(await text({ guided_regex: '[A-F]{3}-\\d{2}' })).toMatch(/^[A-F]{3}-\d{2}$/);
    expect(await text({ guided_grammar: 'root ::= "a" | "b"' })).toMatch(/^[ab]$/);
    expect(JSON.parse(await text({ guided_json: z.toJSONSchema(shape) }))).toHaveProperty('city');
    expect(await text({ structured_outputs: { choice: ['left', 'right'] } })).toMatch(/left|right/);
  });
});

describe('completions', () => {
  const prompt = 'The order is';

  it('echo, n, best_of, several prompts, token ids', async () => {
    const { tokenIds } = await server.engine.tokenize({ prompt });
    const options = { model: 'demo', max_tokens: 6 };
    const plain = await client.completions.create({ ...options, prompt });
    expect(plain.object).toBe('text_completion');
    expect(plain.usage).toMatchObject({
      ...{ prompt_tokens: tokenIds.length, completion_tokens: 6 },
    });
    const text = plain.choices[0]?.text ?? '';
    const ids = await client.completions.create({ ...options, prompt: tokenIds, echo: true });
    expect(ids.choices[0]?.text).toBe(prompt + text);
    const many = await client.completions.create({
      ...{ ...options, prompt: [prompt, 'My name is'], n: 2, temperature: 1, seed: 3, echo: true },
    });
    expect(many.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(many.choices.map(({ text: each }) => each.startsWith(prompt))).toEqual([
      ...[true, true, false, false],
    ]);
    const best = await client.completions.create({
      ...{ ...options, prompt, best_of: 4, n: 1, temperature: 1.2, seed: 5 },
    });
    expect(best.choices).toHaveLength(1);
    expect(best.choices[0]?.logprobs).toBeNull();
    expect(best.usage?.completion_tokens).toBeGreaterThan(12);
  });

  it('best_of gives the likeliest of its candidates', async () => {
    const options = {
      model: 'demo',
      prompt,
      max_tokens: 5,
      temperature: 1.5,
      seed: 11,
      logprobs: 0,
    };
    const mean = (choice?: OpenAI.CompletionChoice) => {
      const all = choice?.logprobs?.token_logprobs ?? [];
      return all.reduce((sum, each) => sum + each, 0) / all.length;
    };
    const all = await client.completions.create({ ...options, n: 4 });
    const best = await client.completions.create({ ...options, n: 1, best_of: 4 });
    expect(mean(best.choices[0])).toBeCloseTo(Math.max(...all.choices.map(mean)), 5);
    expect(all.choices.map(({ text }) => text)).toContain(best.choices[0]?.text);
  });

  it('logprobs in its own shape, whole and streamed', async () => {
    const options = { model: 'demo', prompt, max_tokens: 5, logprobs: 2 };
    const { choices } = await client.completions.create(options);
    const { tokens = [], text_offset: offsets = [], ...logprobs } = choices[0]?.logprobs ?? {};
    expect(tokens.join('')).toBe(choices[0]?.text);
    expect(offsets).toEqual(tokens.map((_, at) => tokens.slice(0, at).join('').length));
    expect(logprobs.token_logprobs).toHaveLength(5);
    for (const [at, top] of (logprobs.top_logprobs ?? []).entries()) {
      expect(top[tokens[at] ?? '']).toBe(logprobs.token_logprobs?.[at]);
    }
    const stream = await client.completions.create({ ...options, stream: true });
    const streamed: string[] = [];
    const at: number[] = [];
    for await (const chunk of stream) {
      streamed.push(...(chunk.choices[0]?.logprobs?.tokens ?? []));
      at.push(...(chunk.choices[0]?.logprobs?.text_offset ?? []));
    }
    expect(streamed).toEqual(tokens);
    expect(at).toEqual(offsets);
  });

  it('streams, echo first', async () => {
    const options = { model: 'pirate', prompt, max_tokens: 5, echo: true };
    const whole = await client.completions.create(options);
    const stream = await client.completions.create({ ...options, stream: true });
    const texts: string[] = [];
    for await (const chunk of stream) texts.push(chunk.choices[0]?.text ?? '');
    expect(texts[0]).toBe(prompt);
    expect(texts.join('')).toBe(whole.choices[0]?.text);
  });
});

describe('embeddings', () => {
  it('as numbers and as base64 (the client’s default), equal to the engine’s', async () => {
    const input = ['Where is my order?', 'Do you ship to Norway?'];
    const { embeddings } = await server.engine.embed({ input, adapter: 'french' });
    const expected = embeddings.map((vector) => Array.from(vector));
    const packed = await client.embeddings.create({ model: 'french', input });
    expect(packed.data.map(({ embedding }) => Array.from(embedding))).toEqual(expected);
    const plain = await client.embeddings.create({
      ...{ model: 'french', input, encoding_format: 'float' as const },
    });
    expect(plain.data.map(({ embedding }) => embedding)).toEqual(expected);
    expect(plain.usage.prompt_tokens).toBeGreaterThan(8);
  });
});

describe('responses', () => {
  it('text, whole and as events', async () => {
    const options = { model: 'pirate', input: 'Where is my order 4821?', max_output_tokens: 20 };
    const whole = await client.responses.create({ ...options, instructions: 'Be kind.' });
    expect(whole.output_text).not.toBe('');
    expect(whole.status).toBe('incomplete');
    expect(whole.incomplete_details?.reason).toBe('max_output_tokens');
    expect(whole.usage?.output_tokens).toBe(20);

    const stream = client.responses.stream({ ...options, instructions: 'Be kind.' });
    const types: string[] = [];
    const numbers: number[] = [];
    for await (const event of stream) {
      types.push(event.type);
      numbers.push(event.sequence_number);
    }
    const final = await stream.finalResponse();
    expect(final.output_text).toBe(whole.output_text);
    expect(numbers).toEqual(numbers.map((_, at) => at));
    expect(types.slice(0, 4)).toEqual([
      ...['response.created', 'response.in_progress'],
      ...['response.output_item.added', 'response.content_part.added'],
    ]);
    expect(types.slice(-4)).toEqual([
      ...['response.output_text.done', 'response.content_part.done'],
      ...['response.output_item.done', 'response.incomplete'],
    ]);
  });

  it('tools, and their results as items', async () => {
    const tool = { type: 'function' as const, strict: true, ...(tools[0]?.function as object) };
    const options = {
      model: 'demo',
      tools: [tool as OpenAI.Responses.FunctionTool],
      tool_choice: 'required' as const,
      parallel_tool_calls: false,
      input: 'Where is my order 4821?',
    };
    const first = await client.responses.create(options);
    const [call] = first.output;
    if (call?.type !== 'function_call') throw new Error('no call');
    expect(call).toMatchObject({ name: 'find_order', status: 'completed' });
    expect(JSON.parse(call.arguments)).toHaveProperty('id');
    const stream = client.responses.stream(options);
    const streamed: string[] = [];
    for await (const event of stream) {
      if (event.type === 'response.function_call_arguments.delta') streamed.push(event.delta);
    }
    expect(streamed.join('')).toBe(call.arguments);
    const second = await client.responses.create({
      model: 'demo',
      max_output_tokens: 8,
      input: [
        { role: 'user', content: [{ type: 'input_text', text: options.input }] },
        call,
        { type: 'function_call_output', call_id: call.call_id, output: '{"at":"Oslo"}' },
      ],
    });
    expect(second.output_text).not.toBe('');
  });

  it('structured text and logprobs', async () => {
    const schema = {
      type: 'object',
      properties: { ok: { type: 'boolean' } },
      required: ['ok'],
      additionalProperties: false,
    };
    const answer = await client.responses.create({
      model: 'demo',
      input: 'Well?',
      include: ['message.output_text.logprobs'],
      top_logprobs: 1,
      text: { format: { type: 'json_schema', name: 'answer', schema } },
    });
    expect(JSON.parse(answer.output_text)).toEqual({ ok: expect.any(Boolean) as boolean });
    const [message] = answer.output;
    const part = message?.type === 'message' ? message.content[0] : undefined;
    const logprobs = part?.type === 'output_text' ? (part.logprobs ?? []) : [];
    expect(logprobs.length).toBeGreaterThan(1);
    expect(logprobs[0]?.top_logprobs).toHaveLength(1);
  });
});

describe('models and errors', () => {
  it('models.list and models.retrieve', async () => {
    const ids = [];
    for await (const { id } of client.models.list()) ids.push(id);
    expect(ids).toEqual(['demo', 'french', 'json', 'pirate']);
    expect((await client.models.retrieve('pirate')).id).toBe('pirate');
  });

  it('are of the client’s own types, with the field at fault', async () => {
    const create = (more: object) =>
      client.chat.completions.create({ model: 'demo', messages, ...more });
    await expect(create({ model: 'nobody' })).rejects.toMatchObject({
      ...{ status: 404, code: 'model_not_found', param: 'model' },
    });
    await expect(create({ model: 'nobody' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(create({ temperature: -1 })).rejects.toMatchObject({
      ...{ status: 400, param: 'temperature', type: 'invalid_request_error' },
    });
    await expect(create({ logit_bias: { 99999: 1 } })).rejects.toMatchObject({
      ...{ status: 400, param: 'logit_bias' },
    });
    await expect(create({ audio: { voice: 'x' } })).rejects.toMatchObject({ param: 'audio' });
    const long = [{ role: 'user', content: 'word '.repeat(9000) }];
    await expect(create({ messages: long, stream: true })).rejects.toMatchObject({
      ...{ status: 400, code: 'context_length_exceeded' },
    });
  });

  it('inside a stream are an event that the client throws', async () => {
    const { engine } = server;
    // What the engine does when it is taken away under a stream.
    const mine = engine.tenant('ends');
    const { createServer, serveOnNode } = await import('lorax-js/server');
    const node = await serveOnNode(
      createServer({
        engine,
        middleware: [
          async (c, next) => {
            c.set('engine', mine);
            await next();
          },
        ],
      }),
      { port: 0 },
    );
    const other = new OpenAI({ baseURL: `${node.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const stream = await other.chat.completions.create({
      ...{ model: 'demo', messages, stream: true, max_tokens: 4000 },
      ...{ ignore_eos: true },
    });
    let seen = 0;
    const reading = (async () => {
      for await (const _ of stream) if (++seen === 3) await mine.dispose();
    })();
    await expect(reading).rejects.toBeInstanceOf(OpenAI.APIError);
    expect(seen).toBeGreaterThan(2);
    await node.close();
  });
});
