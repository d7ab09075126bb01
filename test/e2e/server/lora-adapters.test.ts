/** vLLM's endpoints for adapters, and its way to ask for tokens: same texts, same errors, off by default. */
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demo, startServer, type LiveServer } from './live-server.js';

let server: LiveServer;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'lorax-adapters-'));
  await cp(`${demo}/adapters/brief`, `${folder}/brief`, { recursive: true });
  await cp(`${demo}/adapters/emoji`, `${folder}/emoji`, { recursive: true });
  await symlink(`${demo}/adapters/caps`, `${folder}/caps`);
  server = await startServer({ adapterUpdates: { sources: [`${folder}/*`] } });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const load = (body: object) => server.post('/v1/load_lora_adapter', body);
const unload = (body: object) => server.post('/v1/unload_lora_adapter', body);
const models = async () => {
  const response = await fetch(`${server.url}/v1/models`);
  return ((await response.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
};
const say = async (model: string) => {
  const response = await server.post('/v1/completions', { model, prompt: 'Hello', max_tokens: 8 });
  const { choices } = (await response.json()) as { choices?: { text: string }[] };
  return { status: response.status, text: choices?.[0]?.text };
};

describe('/v1/load_lora_adapter and /v1/unload_lora_adapter', () => {
  it('load, serve, replace in place and unload', async () => {
    const loaded = await load({ lora_name: 'mine', lora_path: `${folder}/brief` });
    expect(loaded.status).toBe(200);
    expect(await loaded.text()).toBe("Success: LoRA adapter 'mine' added successfully.");
    expect(await models()).toContain('mine');
    const before = await say('mine');
    expect(before.status).toBe(200);

    const again = await load({ lora_name: 'mine', lora_path: `${folder}/emoji` });
    expect(again.status).toBe(400);
    expect(await again.json()).toEqual({
      error: {
        message:
          "The lora adapter 'mine' has already been loaded. If you want to load the adapter in " +
          "place, set 'load_inplace' to True.",
        type: 'InvalidUserInput',
        param: null,
        code: 400,
      },
    });
    const replaced = await load({
      ...{ lora_name: 'mine', lora_path: `${folder}/emoji`, load_inplace: true },
    });
    expect(replaced.status).toBe(200);
    expect((await say('mine')).text).not.toBe(before.text);

    const gone = await unload({ lora_name: 'mine' });
    expect(gone.status).toBe(200);
    expect(await gone.text()).toBe("Success: LoRA adapter 'mine' removed successfully.");
    expect(await models()).not.toContain('mine');
    expect((await say('mine')).status).toBe(404);
  });

  it('unload waits for who is on it, and frees', async () => {
    await load({ lora_name: 'drained', lora_path: `${folder}/brief` });
    const body = { model: 'drained', prompt: 'Hello', max_tokens: 300, ignore_eos: true };
    const answer = server.post('/v1/completions', body).then((response) => response.json());
    while ((await server.engine.stats()).requests.running === 0) await new Promise(setImmediate);
    const { host } = await server.engine.stats();
    expect((await unload({ lora_name: 'drained' })).status).toBe(200);
    const { choices } = (await answer) as { choices: { finish_reason: string }[] };
    expect(choices[0]?.finish_reason).toBe('length');
    await expect.poll(async () => (await server.engine.stats()).host.images).toBe(host.images - 1);
  });

  it.each([
    [
      'load',
      { lora_name: 'x' },
      400,
      'InvalidUserInput',
      "Both 'lora_name' and 'lora_path' must be provided.",
    ],
    ['load', { lora_name: 'demo', lora_path: '/x' }, 400, 'InvalidUserInput', undefined],
    ['load', { lora_name: '../x', lora_path: '/x' }, 400, 'InvalidUserInput', undefined],
    [
      'unload',
      {},
      400,
      'InvalidUserInput',
      "'lora_name' needs to be provided to unload a LoRA adapter.",
    ],
    ['unload', { lora_name: 'x' }, 404, 'NotFoundError', "The lora adapter 'x' cannot be found."],
  ])('%s %j is %i %s', async (what, body, status, type, message) => {
    const response = await (what === 'load' ? load : unload)(body);
    expect(response.status).toBe(status);
    const { error } = (await response.json()) as { error: { message: string } };
    expect(error).toMatchObject({ type, code: status, param: null });
    if (message !== undefined) expect(error.message).toBe(message);
  });

  it('what is not there is 404; what is not allowed is refused, whatever leads there', async () => {
    const missing = await load({ lora_name: 'x', lora_path: `${folder}/nothing` });
    expect(missing.status).toBe(404);
    expect(await missing.json()).toMatchObject({
      error: {
        type: 'NotFoundError',
        message: `Loading lora x failed: No adapter found for ${folder}/nothing`,
      },
    });
    const elsewhere = [
      ...[`${demo}/adapters/caps`, `${folder}/../x`, folder, `${folder}-other/x`, `${folder}/caps`],
      ...['some-org/some-adapter', 'https://example.com/adapter', 's3://bucket/adapter'],
    ];
    for (const lora_path of elsewhere) {
      const response = await load({ lora_name: 'x', lora_path });
      expect([response.status, lora_path]).toEqual([400, lora_path]);
      const { error } = (await response.json()) as { error: { type: string; message: string } };
      expect(error.type).toBe('BadRequestError');
      expect(error.message).toMatch(/^This server loads no adapters from /);
    }
    expect(await models()).not.toContain('x');
  });

  it('are not there unless turned on', async () => {
    const closed = await startServer();
    const response = await closed.post('/v1/load_lora_adapter', { lora_name: 'x', lora_path: 'y' });
    expect(response.status).toBe(404);
  });
});

describe('vLLM’s /tokenize and /detokenize', () => {
  it('count a prompt or a chat, and turn ids back', async () => {
    const ask = async (path: string, body: object) =>
      (await (await server.post(path, body)).json()) as Record<string, unknown>;
    const prompt = 'Where is my order?';
    const { tokens, count, max_model_len, token_strs } = await ask('/tokenize', {
      ...{ model: 'demo', prompt, return_token_strs: true },
    });
    expect(tokens).toEqual((await server.engine.tokenize({ prompt })).tokenIds);
    expect([count, max_model_len]).toEqual([(tokens as number[]).length, 4096]);
    expect((token_strs as string[]).join('')).toBe(prompt);
    expect(await ask('/detokenize', { model: 'demo', tokens })).toEqual({ prompt });
    const messages = [{ role: 'user' as const, content: prompt }];
    const chat = await ask('/tokenize', { model: 'demo', messages });
    expect(chat.tokens).toEqual((await server.engine.tokenize({ messages })).tokenIds);
    expect(await ask('/detokenize', { tokens: [1e9] })).toMatchObject({ error: { code: null } });
  });
});
