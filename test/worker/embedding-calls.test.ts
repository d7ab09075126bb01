// Embed calls through the port, on the fake addon: one native request per input, one end per call.
import { describe, expect, it, vi } from 'vitest';
import { CONTEXT, chatml, pause, start, submissions, inDirectory } from './port-client.js';
import type { Client } from './port-client.js';
import { Random } from './random.js';

const native = (client: Client) => client.addon.engines[0]!;

async function embeddedOf(client: Client, id: number) {
  await client.end(id);
  const [event] = client.of('embedded', id);
  if (event === undefined) throw new Error(JSON.stringify(client.terminalsOf(id)));
  return event;
}

describe('an embed call', () => {
  it('brings one embedding per input, in their order', async () => {
    const client = start();
    const tokenizer = await chatml;
    const texts = ['hello world', 'a', 'some more words'];
    const id = client.embed(texts, { pooling: 'last', normalize: false });
    const { embeddings, promptTokens, adapter } = await embeddedOf(client, id);
    const ids = await Promise.all(texts.map((text) => tokenizer.encodeWholeText(text, CONTEXT)));
    expect(embeddings).toEqual(
      ids.map((each) => Float32Array.of(each.length, each[0]!, each.at(-1)!, -1)),
    );
    expect(promptTokens).toBe(ids.flat().length);
    expect(adapter).toBeNull();
    expect(native(client).submissions.map(({ embedding }) => embedding)).toEqual(
      texts.map(() => ({ pooling: 'last', normalize: false })),
    );
    // Views into a step's floats would carry all of it across.
    for (const { buffer, byteLength } of embeddings) expect(buffer.byteLength).toBe(byteLength);
  });

  it('tells native code whose it is, how urgent, and until when', async () => {
    const client = start({ manual: true });
    const deadlineAt = Date.now() + 60_000;
    client.embed(['a', 'b'], { tenant: 't', tenantWeight: 3, priority: 7, deadlineAt });
    await submissions(client, 2);
    for (const { service } of native(client).submissions) {
      const { deadlineMs, ...rest } = service!;
      expect(rest).toEqual({
        ...{ tenant: 't', tenantWeight: 3, priority: 7, cacheScope: '["t",null]' },
      });
      expect(deadlineMs).toBeGreaterThan(30_000);
      expect(deadlineMs).toBeLessThanOrEqual(60_000);
    }
  });

  it('submits all inputs before any is done', async () => {
    const client = start({ manual: true });
    client.embed(Array.from({ length: 40 }, (_, i) => `text ${i}`));
    await submissions(client, 40);
    expect(native(client).stats().waiting).toBe(40);
  });

  it('puts embeddings in order whatever order they come in', async () => {
    const client = start({ manual: true, maxRunning: 100 });
    const id = client.embed(['a', 'bb c', 'd']);
    await submissions(client, 3);
    const engine = native(client);
    engine.submissions.reverse();
    engine.step();
    const { embeddings } = await embeddedOf(client, id);
    expect(embeddings[1]![0]).toBeGreaterThan(embeddings[0]![0]!);
  });

  it('uses the weights that the name stood for at receipt', async () => {
    const client = start({ manual: true });
    await client.call({ type: 'addAdapter', name: '1\0pirate', source: inDirectory('/one') });
    const id = client.embed(['a', 'b'], { adapters: [{ name: '1\0pirate', weight: 1 }] });
    await submissions(client, 2);
    const repointed = client.call({
      type: 'addAdapter',
      name: '1\0pirate',
      source: inDirectory('/two'),
    });
    await repointed;
    native(client).step();
    const { adapter, embeddings } = await embeddedOf(client, id);
    expect(adapter).toEqual({ name: 'pirate', hash: 'hash of /one' });
    expect(embeddings.map((each) => each[3])).toEqual([0, 0]);
  });

  it('fails where there is no such adapter', async () => {
    const client = start();
    const id = client.embed(['a'], { adapters: [{ name: 'nobody', weight: 1 }] });
    expect(await client.end(id)).toMatchObject({ error: { code: 'ADAPTER_NOT_FOUND' } });
  });
});

describe('an input that cannot be embedded', () => {
  it('fails its call and names itself; what it had is given up', async () => {
    const client = start({ manual: true });
    const id = client.embed(['fine', 'fine too', 'q'.repeat(CONTEXT + 20), 'never sent']);
    const end = await client.end(id);
    expect(end).toMatchObject({
      type: 'failed',
      error: {
        code: 'CONTEXT_TOO_LONG',
        message: expect.stringMatching(/^input\[2\]: .*512/),
        data: { index: 2, field: 'input[2]', contextTokens: CONTEXT },
      },
    });
    const engine = native(client);
    expect(engine.submissions).toHaveLength(2);
    engine.step();
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, aborted: 2 });
    expect(client.terminalsOf(id)).toHaveLength(1);
  });

  it('takes the whole context, and not a token more', async () => {
    const client = start();
    const tokenizer = await chatml;
    const text = 'q'.repeat(CONTEXT);
    const length = (await tokenizer.encodeWholeText(text, CONTEXT)).length;
    expect(length).toBe(CONTEXT);
    expect((await embeddedOf(client, client.embed([text]))).promptTokens).toBe(CONTEXT);
    const longer = client.embed([text + 'q']);
    expect(await client.end(longer)).toMatchObject({ error: { code: 'CONTEXT_TOO_LONG' } });
  });

  it('is named too when native code refuses it', async () => {
    const data = { kvPages: 9 };
    const failure = { code: 'POOL_EXHAUSTED', message: 'too few pages', data };
    const client = start({
      embed: ({ prompt }) => (prompt.length > 3 ? failure : Float32Array.of(1)),
    });
    const id = client.embed(['a', 'a rather long text', 'b']);
    const { error } = (await client.end(id)) as { error: unknown } & { type: 'failed' };
    expect(error).toMatchObject({ code: 'POOL_EXHAUSTED', data: { kvPages: 9, index: 1 } });
    expect((error as { message: string }).message).toBe('input[1]: too few pages');
  });

  it('is nobody when the queue is full', async () => {
    const failure = { code: 'QUEUE_FULL', message: 'full', data: {} };
    const client = start({ embed: () => failure });
    const end = await client.end(client.embed(['a']));
    expect(end).toMatchObject({ error: { code: 'QUEUE_FULL', message: 'full', data: {} } });
  });
});

describe('many inputs', () => {
  it('are not refused: some are with native code, the others wait their turn', async () => {
    const client = start({ manual: true, maxRunning: 64 }, { maxQueued: 1000 });
    const id = client.embed(Array.from({ length: 1000 }, (_, i) => `text ${i}`));
    await submissions(client, 256);
    await pause(20);
    const engine = native(client);
    expect(engine.submissions).toHaveLength(256);
    const step = setInterval(() => engine.step(), 1);
    const { embeddings } = await embeddedOf(client, id);
    clearInterval(step);
    expect(embeddings).toHaveLength(1000);
    expect(embeddings.every((each) => each.length === 4)).toBe(true);
  });

  it('of several calls take turns', async () => {
    const client = start({ manual: true, maxRunning: 10 }, { maxQueued: 10 });
    const letters = ['q', 'x', 'z'];
    const ids = letters.map((letter) => client.embed(Array<string>(50).fill(letter)));
    await submissions(client, 10);
    // The first has all places; nothing ends before the others wait in line behind it.
    await client.call({ type: 'stats' });
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    // However long a busy machine takes: nobody's turn is over early.
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    const engine = native(client);
    const step = setInterval(() => engine.step(), 1);
    for (const id of ids) expect((await embeddedOf(client, id)).embeddings).toHaveLength(50);
    clearInterval(step);
    clock.mockRestore();
    expect(engine.submissions).toHaveLength(150);
    const tokens = engine.submissions.slice(0, 75).map(({ prompt }) => prompt[0]);
    for (const token of new Set(tokens)) {
      expect(tokens.filter((each) => each === token).length).toBeGreaterThan(15);
    }
    expect(new Set(tokens).size).toBe(3);
  });

  it('of a tenant with many calls leave the others their turns', async () => {
    const client = start({ manual: true, maxRunning: 21 }, { maxQueued: 21 });
    const flood = Array.from({ length: 20 }, () =>
      client.embed(Array<string>(10).fill('q'), { tenant: 'flood' }),
    );
    await submissions(client, 21);
    await client.call({ type: 'stats' });
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    const quiet = client.embed(Array<string>(5).fill('x'), { tenant: 'quiet' });
    await client.call({ type: 'stats' });
    const engine = native(client);
    const step = setInterval(() => engine.step(), 1);
    expect((await embeddedOf(client, quiet)).embeddings).toHaveLength(5);
    const before = engine.submissions.filter(({ service }) => service?.tenant === 'flood').length;
    expect(before, 'of 200 of the flood').toBeLessThan(60);
    for (const id of flood) expect((await embeddedOf(client, id)).embeddings).toHaveLength(10);
    clearInterval(step);
  });

  it('leave a queue as short as one request to the others', async () => {
    const client = start({ manual: true, maxRunning: 1 }, { maxQueued: 2 });
    const id = client.embed(['a', 'b', 'c', 'd', 'e']);
    await submissions(client, 2);
    const engine = native(client);
    const step = setInterval(() => engine.step(), 1);
    expect((await embeddedOf(client, id)).embeddings).toHaveLength(5);
    clearInterval(step);
  });
});

describe('an aborted call', () => {
  it('ends at once and takes its native requests with it', async () => {
    const client = start({ manual: true });
    const id = client.embed(['a', 'b', 'c']);
    const kept = client.embed(['d']);
    await submissions(client, 4);
    client.send({ type: 'cancel', id });
    expect(await client.end(id)).toMatchObject({ type: 'aborted', usage: { outputTokens: 0 } });
    const engine = native(client);
    engine.step();
    expect(engine.stats()).toMatchObject({ aborted: 3, running: 0, finished: 1 });
    await embeddedOf(client, kept);
    client.send({ type: 'cancel', id });
    await client.call({ type: 'stats' });
    expect(client.terminalsOf(id)).toHaveLength(1);
  });

  it('gives up its places while it waits for one', async () => {
    const client = start({ manual: true, maxRunning: 100 }, { maxQueued: 3 });
    const id = client.embed(['a', 'b', 'c', 'd', 'e']);
    const kept = client.embed(['f', 'g']);
    await submissions(client, 3);
    client.send({ type: 'cancel', id });
    await client.end(id);
    const engine = native(client);
    const step = setInterval(() => engine.step(), 1);
    await embeddedOf(client, kept);
    clearInterval(step);
    expect(engine.submissions).toHaveLength(5);
  });

  it('is not begun when the model comes too late', async () => {
    let release = () => {};
    const client = start({ onCreate: () => new Promise<void>((resolve) => (release = resolve)) });
    const id = client.embed(['a']);
    client.send({ type: 'cancel', id });
    expect(await client.end(id)).toMatchObject({ type: 'aborted' });
    release();
    await client.call({ type: 'ready' });
    await pause();
    expect(native(client).submissions).toHaveLength(0);
  });
});

describe('the end of the engine', () => {
  it('ends open calls: with the reason, when it is lost', async () => {
    const client = start({ manual: true });
    const id = client.embed(['a', 'b']);
    await submissions(client, 2);
    native(client).lose('the device is gone');
    expect(await client.end(id)).toMatchObject({
      error: { code: 'ENGINE_LOST', message: 'the device is gone', data: { recoverable: true } },
    });
    const later = client.embed(['c']);
    expect(await client.end(later)).toMatchObject({ error: { code: 'ENGINE_LOST' } });
  });

  it('ends open calls with DISPOSED, also those that wait for a place', async () => {
    const client = start({ manual: true }, { maxQueued: 2 });
    const ids = [client.embed(['a', 'b', 'c', 'd']), client.embed(['e'])];
    await submissions(client, 2);
    await client.call({ type: 'dispose' });
    for (const id of ids) {
      expect(await client.end(id)).toMatchObject({ error: { code: 'DISPOSED' } });
      expect(client.terminalsOf(id)).toHaveLength(1);
    }
  });

  it('fails calls whose model cannot be loaded', async () => {
    const client = start({
      onCreate: () => {
        throw Object.assign(new Error('no such file'), { code: 'MODEL_INVALID' });
      },
    });
    const end = await client.end(client.embed(['a']));
    expect(end).toMatchObject({ error: { code: 'MODEL_INVALID', message: 'no such file' } });
  });
});

it('random calls, aborts and streams: each ends once, none waits for ever', async () => {
  const random = new Random(3);
  const client = start({ maxRunning: 5 }, { maxQueued: 12 });
  const ids: number[] = [];
  for (let i = 0; i < 150; i++) {
    const texts = Array.from({ length: 1 + random.below(9) }, (_, j) => 'w '.repeat(1 + j));
    const id =
      random.below(3) === 0
        ? client.generate('hello', { maxOutputTokens: 3, ignoreEos: true })
        : client.embed(random.below(9) === 0 ? [...texts, 'q'.repeat(600)] : texts);
    ids.push(id);
    if (random.below(4) === 0) client.send({ type: 'cancel', id });
    if (random.below(3) === 0) await pause(1);
  }
  for (const id of ids) await client.end(id);
  await client.call({ type: 'stats' });
  for (const id of ids) expect(client.terminalsOf(id)).toHaveLength(1);
  const ends = new Set(ids.map((id) => client.terminalsOf(id)[0]!.type));
  expect(ends).toEqual(new Set(['finish', 'embedded', 'aborted', 'failed']));
  expect(native(client).stats()).toMatchObject({ running: 0, waiting: 0 });
});
