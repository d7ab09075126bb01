/** LoRAX's API as its own clients speak it, without one: shapes, sampling rules, mixes, errors. */
import { beforeAll, describe, expect, it } from 'vitest';
import { startServer, type LiveServer } from './live-server.js';

let server: LiveServer;
beforeAll(async () => {
  server = await startServer();
});

const inputs = 'My order has not arrived';
interface Token {
  id: number;
  text: string;
  logprob: number;
  special: boolean;
  alternative_tokens?: { id: number }[];
}
interface Details {
  finish_reason: string;
  prompt_tokens: number;
  generated_tokens: number;
  seed: number | null;
  prefill: [];
  tokens: Token[];
  best_of_sequences?: { generated_text: string; tokens: Token[] }[];
}
interface Answer {
  generated_text: string;
  details?: Details;
}
interface TokenEvent {
  token: Token;
  generated_text: string | null;
  details: Details | null;
}

async function ask<T = Answer>(path: string, parameters: object = {}, more: object = {}) {
  const response = await server.post(path, { inputs, parameters, ...more });
  return { status: response.status, body: (await response.json()) as T };
}

async function stream(path: string, parameters: object, more: object = {}): Promise<TokenEvent[]> {
  const response = await server.post(path, { inputs, parameters, ...more });
  expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
  const text = await response.text();
  return text
    .split('\n\n')
    .filter(Boolean)
    .map((event) => JSON.parse(event.slice('data:'.length)) as TokenEvent);
}

describe('/generate', () => {
  it('answers with the text alone, or with its tokens', async () => {
    const plain = await ask('/generate', { max_new_tokens: 8 });
    expect(Object.keys(plain.body)).toEqual(['generated_text']);
    const { body } = await ask('/generate', {
      ...{ max_new_tokens: 8, details: true, return_k_alternatives: 2 },
    });
    expect(body.generated_text).toBe(plain.body.generated_text);
    const { details } = body;
    expect(details).toMatchObject({
      ...{ finish_reason: 'length', generated_tokens: 8, seed: null, prefill: [] },
      prompt_tokens: (await server.engine.tokenize({ prompt: inputs })).tokenIds.length,
    });
    expect(details?.tokens.map(({ text }) => text).join('')).toBe(body.generated_text);
    for (const { id, alternative_tokens: others } of details?.tokens ?? []) {
      expect(others?.[0]?.id).toBe(id);
      expect(others).toHaveLength(2);
    }
  });

  it('adapters by id, and mixes', async () => {
    const text = async (parameters: object) =>
      (await ask('/generate', { max_new_tokens: 12, ...parameters })).body.generated_text;
    const base = await text({});
    const pirate = await text({ adapter_id: 'pirate', adapter_source: 'local' });
    expect(pirate).not.toBe(base);
    expect(await text({ adapter_id: 'demo' })).toBe(base);
    const weights = [0.6, 0.5];
    const mix = await text({ merged_adapters: { ids: ['pirate', 'french'], weights, density: 0 } });
    const parts: string[] = [];
    const adapter = { pirate: 0.6, french: 0.5 };
    const sampling = { maxOutputTokens: 12 };
    for await (const event of server.engine.generate({ prompt: inputs, adapter, sampling })) {
      if (event.type === 'delta') parts.push(event.text);
    }
    expect(mix).toBe(parts.join(''));
  });

  it('samples only where it is asked to, and tells the seed', async () => {
    const one = await ask('/generate', {
      ...{ do_sample: true, temperature: 5, max_new_tokens: 12, details: true },
    });
    const seed = one.body.details?.seed;
    expect(seed).toBeTypeOf('number');
    const two = await ask('/generate', {
      ...{ do_sample: true, temperature: 5, max_new_tokens: 12, details: true, seed },
    });
    // Which token the text of several is told with depends on how they came.
    const sampled = ({ generated_text, details }: typeof one.body) => ({
      ...{ generated_text, finish: details?.finish_reason, seed: details?.seed },
      tokens: details?.tokens?.map(({ id, logprob }: { id: number; logprob: number }) => [
        id,
        logprob,
      ]),
    });
    expect(sampled(two.body)).toEqual(sampled(one.body));
    expect(one.body.details?.tokens?.length).toBeGreaterThan(0);
  });

  it('best_of gives the likeliest first and the others behind', async () => {
    const { body } = await ask('/generate', {
      ...{ best_of: 3, temperature: 4, seed: 2, max_new_tokens: 6, details: true },
    });
    const mean = (tokens: Token[]) =>
      tokens.reduce((sum, { logprob }) => sum + logprob, 0) / tokens.length;
    const others = body.details?.best_of_sequences ?? [];
    expect(others).toHaveLength(2);
    for (const other of others) {
      expect(mean(other.tokens)).toBeLessThanOrEqual(mean(body.details?.tokens ?? []));
    }
  });

  it('stop, truncate, full text, a chat template, a schema', async () => {
    const full = await ask('/generate', { max_new_tokens: 10, return_full_text: true });
    const text = full.body.generated_text.slice(inputs.length);
    expect(full.body.generated_text).toBe(inputs + text);
    const stop = text.trim().split(' ')[1] ?? '';
    const stopped = await ask('/generate', { max_new_tokens: 10, stop: [stop], details: true });
    expect(stopped.body.details?.finish_reason).toBe('stop_sequence');
    // As LoRAX has it, the text ends with what it stopped at.
    expect(stopped.body.generated_text).toBe(text.slice(0, text.indexOf(stop) + stop.length));
    const cut = await ask('/generate', { max_new_tokens: 2, truncate: 3, details: true });
    expect(cut.body.details?.prompt_tokens).toBe(3);
    const chat = await ask('/generate', { apply_chat_template: true, details: true });
    expect(chat.body.details?.finish_reason).toBe('eos_token');
    expect(chat.body.details?.tokens.at(-1)).toMatchObject({ special: true, text: '<|im_end|>' });
    expect(chat.body.generated_text).not.toContain('<|im_end|>');
    const schema = { type: 'object', properties: { a: { type: 'boolean' } }, required: ['a'] };
    const json = await ask('/generate', {
      ...{ max_new_tokens: 40, response_format: { type: 'json_object', schema } },
    });
    expect(JSON.parse(json.body.generated_text)).toHaveProperty('a');
  });
});

describe('/generate_stream and /', () => {
  it('give token by token what /generate gives at once', async () => {
    const parameters = { max_new_tokens: 10, details: true, adapter_id: 'french' };
    const whole = (await ask('/generate', parameters)).body;
    for (const events of [
      await stream('/generate_stream', parameters),
      await stream('/', parameters, { stream: true }),
    ]) {
      expect(events.map(({ token }) => token)).toEqual(whole.details?.tokens);
      expect(events.slice(0, -1).every((each) => each.generated_text === null)).toBe(true);
      expect(events.at(-1)?.generated_text).toBe(whole.generated_text);
      expect(events.at(-1)?.details).toMatchObject({ finish_reason: 'length' });
    }
    expect((await ask<Answer[]>('/', parameters)).body).toEqual([whole]);
  });
});

describe('what else LoRAX has', () => {
  it('/info, /health, /tokenize', async () => {
    const info = (await (await fetch(`${server.url}/info`)).json()) as Record<string, unknown>;
    expect(info).toMatchObject({ model_id: 'demo', max_total_tokens: 4096 });
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    const text = 'Köln: où est 📦?';
    const response = await server.post('/tokenize', { inputs: text });
    const tokens = (await response.json()) as { id: number; start: number; stop: number }[];
    expect(tokens.map(({ id }) => id)).toEqual(
      (await server.engine.tokenize({ prompt: text })).tokenIds,
    );
    expect(tokens[0]?.start).toBe(0);
    expect(tokens.at(-1)?.stop).toBe([...text].length);
    for (const [at, { start }] of tokens.entries()) {
      if (at > 0) expect(start).toBe(tokens[at - 1]?.stop);
    }
  });

  it.each<[object, string]>([
    [{ temperature: -1 }, 'temperature'],
    [{ top_k: 'many' }, 'top_k'],
    [{ best_of: 2 }, 'best_of'],
    [{ typical_p: 0.5 }, 'typical_p'],
    [{ watermark: true }, 'watermark'],
    [{ decoder_input_details: true }, 'decoder_input_details'],
    [{ api_token: 'secret' }, 'api_token'],
    [{ adapter_source: 'pbase' }, 'adapter_source'],
    [{ merged_adapters: { ids: ['pirate'], weights: [1, 2] } }, 'merged_adapters.weights'],
    [{ merged_adapters: { ids: ['pirate'], merge_strategy: 'ties' } }, 'merge_strategy'],
  ])('%j is refused as LoRAX refuses', async (parameters, named) => {
    const { status, body } = await ask<{ error: string; error_type: string }>(
      '/generate',
      parameters,
    );
    expect(status).toBe(422);
    expect(body.error_type).toBe('validation');
    expect(body.error).toContain(named);
  });

  it('an adapter that there is not is 404', async () => {
    const { status, body } = await ask('/generate', { adapter_id: 'nobody' });
    expect(status).toBe(404);
    expect(body).toMatchObject({ error_type: 'validation' });
  });
});
