import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { LoraxError } from '../../src/errors.js';
import type { Sampling } from '../../src/types.js';
import type { NativeAdapterSpec } from '../../worker/addon.js';
import { EnginePort } from '../../worker/engine-port.js';
import type { LoadEngine } from '../../worker/load-engine.js';
import type {
  ClientCommand,
  ServeOptions,
  WirePrompt,
  WorkerEvent,
  WorkerMessage,
} from '../../worker/protocol.js';
import { createFakeAddon, type FakeAddon, type FakeAddonOptions } from '../fakes/fake-addon.js';
import { loadFixture } from './fixtures.js';
import { Random } from './random.js';

const VOCAB = 600;
const CONTEXT = 512;
const OPTIONS: ServeOptions = {
  model: '/models/fake',
  device: 'auto',
  precision: 'auto',
  memoryBytes: 0,
  maxBatchTokens: 512,
  maxQueued: 100,
  addonPaths: [],
};

const chatml = loadFixture('chatml');

/** LoadEngine over the fake addon and the chatml fixture: no directory is read. */
function fakeLoad(addon: FakeAddon): LoadEngine {
  return async (options, { onEvents, onProgress }) => {
    const config = { contextTokens: CONTEXT, vocabSize: VOCAB, architecture: 'Fake' };
    const native = await addon.createEngine(
      { ...options, model: { config } } as never,
      onEvents,
      onProgress,
    );
    const tokenizer = await chatml;
    const eosTokenIds = [tokenizer.eosTokenId as number];
    return {
      native,
      tokenizer,
      defaults: { sampling: { temperature: 0 }, eosTokenIds, ignored: [] },
      readAdapter: async (directory): Promise<NativeAdapterSpec> => {
        if (directory.includes('broken')) throw new LoraxError('ADAPTER_INVALID', directory);
        const tensor = { name: 't', file: 0, dtype: 'BF16' as const, rows: 8, cols: 4, offset: 0 };
        const module = { layer: 0, module: 0, rank: 8, scale: 2, a: tensor, b: tensor };
        return { hash: `hash of ${directory}`, files: [], modules: [module] };
      },
      info: {
        ...native.info(),
        ...{ model: options.model, architecture: 'Fake', precision: 'bfloat16' },
        ...{ contextTokens: CONTEXT, vocabSize: VOCAB },
      },
    };
  };
}

/** The client's end of a port, with everything that came back. */
class Client {
  readonly messages: WorkerMessage[] = [];
  closed = false;
  private nextId = 1;
  private readonly waiters = new Set<() => void>();

  constructor(
    readonly port: MessagePort,
    readonly addon: FakeAddon,
  ) {
    port.on('message', (message: WorkerMessage) => {
      this.messages.push(message);
      this.waiters.forEach((wake) => wake());
    });
    port.on('close', () => {
      this.closed = true;
      this.waiters.forEach((wake) => wake());
    });
  }

  get events(): WorkerEvent[] {
    return this.messages.flat();
  }

  send(...commands: ClientCommand[]): void {
    this.port.postMessage(commands);
  }

  generate(prompt: WirePrompt | string, sampling: Sampling = {}, adapter: string | null = null) {
    const id = this.nextId++;
    const wire = typeof prompt === 'string' ? { kind: 'text' as const, text: prompt } : prompt;
    this.send({ type: 'generate', id, prompt: wire, adapter, sampling });
    return id;
  }

  async until<T>(find: () => T | undefined): Promise<T> {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      await new Promise<void>((wake) => {
        const once = () => {
          this.waiters.delete(once);
          wake();
        };
        this.waiters.add(once);
      });
    }
  }

  terminalsOf(id: number): WorkerEvent[] {
    return this.events.filter(
      (e) => 'id' in e && e.id === id && ['finish', 'aborted', 'failed'].includes(e.type),
    );
  }

  end(id: number): Promise<WorkerEvent> {
    return this.until(() => this.terminalsOf(id)[0]);
  }

  async call(command: Record<string, unknown> & { type: string }): Promise<unknown> {
    const call = this.nextId++;
    this.port.postMessage([{ ...command, call }]);
    const event = await this.until(() =>
      this.events.find((e) => (e.type === 'result' || e.type === 'error') && e.call === call),
    );
    if (event.type === 'result') return event.value;
    throw (event as Extract<WorkerEvent, { type: 'error' }>).error;
  }

  of<T extends WorkerEvent['type']>(type: T, id: number): Extract<WorkerEvent, { type: T }>[] {
    return this.events.filter(
      (e): e is Extract<WorkerEvent, { type: T }> => e.type === type && 'id' in e && e.id === id,
    );
  }

  textOf(id: number): string {
    return this.of('delta', id)
      .map((e) => e.text)
      .join('');
  }

  tokensOf(id: number): number[] {
    return this.of('delta', id).flatMap((e) => e.tokenIds);
  }
}

const clients: Client[] = [];
afterEach(() => clients.splice(0).forEach((client) => client.port.close()));

function start(options: FakeAddonOptions = {}, serve: Partial<ServeOptions> = {}): Client {
  const addon = createFakeAddon(options);
  const { port1, port2 } = new MessageChannel();
  const client = new Client(port1, addon);
  new EnginePort(port2, { ...OPTIONS, ...serve }, fakeLoad(addon));
  clients.push(client);
  return client;
}

/** Waits until native code has been given `count` requests. */
async function submissions(client: Client, count: number): Promise<void> {
  while ((client.addon.engines[0]?.submissions.length ?? 0) < count) await pause(1);
}

const pause = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

/** Says `text` token by token, then the end-of-sequence token, to everyone. */
async function saying(text: string) {
  const tokenizer = await loadFixture('chatml');
  const ids = [...(await tokenizer.encodeText(text, 1000)), tokenizer.eosTokenId as number];
  return {
    ids,
    eos: tokenizer.eosTokenId as number,
    nextToken: ({ output }: { output: number[] }) => ids[output.length % ids.length] as number,
  };
}

describe('a request', () => {
  it('starts, streams and finishes, with usage and timing', async () => {
    const { ids, nextToken } = await saying('hello world; naïve 😀');
    const client = start({ nextToken });
    const id = client.generate('Where is my order?');
    const finish = await client.end(id);
    expect(client.of('start', id)).toEqual([
      {
        type: 'start',
        id,
        adapter: null,
        promptTokens: expect.any(Number) as number,
        cachedTokens: expect.any(Number) as number,
        queueMs: expect.any(Number) as number,
      },
    ]);
    expect(client.textOf(id)).toBe('hello world; naïve 😀');
    expect(client.tokensOf(id)).toEqual(ids);
    const { promptTokens, cachedTokens, queueMs } = client.of('start', id)[0]!;
    expect(finish).toMatchObject({
      type: 'finish',
      reason: 'stop',
      rawReason: 'eos',
      usage: { promptTokens, cachedTokens, outputTokens: ids.length },
    });
    const { timing } = client.of('finish', id)[0]!;
    expect(queueMs).toBe(timing.queueMs);
    expect(timing.queueMs).toBeGreaterThanOrEqual(0.25);
    expect(timing.timeToFirstTokenMs).toBeGreaterThan(0);
    expect(timing.totalMs).toBeGreaterThanOrEqual(timing.timeToFirstTokenMs as number);
  });

  it('takes messages through the chat template, and tokens as they are', async () => {
    const client = start();
    const sampling = { maxOutputTokens: 2 };
    const prompt = {
      kind: 'messages' as const,
      messages: [{ role: 'user' as const, content: 'hi' }],
    };
    await client.end(client.generate(prompt, sampling));
    await client.end(client.generate({ kind: 'tokens', tokens: [5, 6, 7] }, sampling));
    const tokenizer = await loadFixture('chatml');
    const [engine] = client.addon.engines;
    expect([...engine!.submissions[0]!.prompt]).toEqual(
      await tokenizer.encodeMessages(prompt.messages, CONTEXT),
    );
    expect([...engine!.submissions[1]!.prompt]).toEqual([5, 6, 7]);
  });

  it('says why it ended', async () => {
    const { ids, eos, nextToken } = await saying('hello world');
    const client = start({ nextToken });
    const rawReason = async (sampling: Sampling, tokens = [1, 2]) => {
      const id = client.generate({ kind: 'tokens', tokens }, sampling);
      await client.end(id);
      const [finish] = client.of('finish', id);
      return [finish?.reason, finish?.rawReason, client.textOf(id), finish?.usage.outputTokens];
    };
    const second = ids[1] as number;
    const first = (await loadFixture('chatml')).table.text(ids[0] as number);
    expect(await rawReason({})).toEqual(['stop', 'eos', 'hello world', ids.length]);
    expect(await rawReason({ maxOutputTokens: 1 })).toEqual([
      'length',
      'max-output-tokens',
      first,
      1,
    ]);
    const nearlyFull = Array(CONTEXT - 3).fill(3) as number[];
    expect(await rawReason({ ignoreEos: true }, nearlyFull)).toEqual([
      'length',
      'context',
      expect.any(String),
      3,
    ]);
    expect(await rawReason({ stopTokenIds: [second] })).toEqual([
      'stop',
      `stop-token:${second}`,
      first,
      2,
    ]);
    expect(await rawReason({ ignoreEos: true, stopTokenIds: [eos] })).toEqual([
      'stop',
      `stop-token:${eos}`,
      'hello world',
      ids.length,
    ]);
  });

  it('ends at a stop string, leaks none of it and counts nothing after it', async () => {
    const { nextToken } = await saying('one two END three four five six seven eight');
    const client = start({ nextToken, tokensPerStep: 3 });
    const id = client.generate('x', { stop: ['nothing', 'o END t'] });
    expect(await client.end(id)).toMatchObject({
      reason: 'stop',
      rawReason: 'stop-string:o END t',
      usage: { outputTokens: client.tokensOf(id).length },
    });
    expect(client.textOf(id)).toBe('one tw');
    const tokenizer = await loadFixture('chatml');
    const bytes = client.tokensOf(id).map((token) => Buffer.from(tokenizer.table.bytes(token)));
    expect(Buffer.concat(bytes).toString()).toMatch(/^one two END t\w?$/);
    const stats = async () =>
      (await client.call({ type: 'stats' })) as { totals: { aborted: number } };
    await pause();
    expect((await stats()).totals.aborted).toBe(1);
    expect(client.terminalsOf(id).length).toBe(1);
  });

  it('brings logprobs with their tokens', async () => {
    const client = start({ nextToken: ({ output }) => 100 + output.length, tokensPerStep: 2 });
    const id = client.generate('x', { logprobs: 1, maxOutputTokens: 3 });
    const plain = client.generate('x', { maxOutputTokens: 3 });
    await Promise.all([client.end(id), client.end(plain)]);
    const entries = client.of('delta', id).flatMap((e) => e.logprobs ?? []);
    expect(entries.map((entry) => entry.tokenId)).toEqual([100, 101, 102]);
    for (const { tokenId, logprob, top } of entries) {
      expect(logprob).toBeCloseTo(-tokenId / 1000);
      expect(top).toEqual([
        { tokenId: tokenId + 1, logprob: expect.closeTo(-(tokenId + 1) / 1000) },
      ]);
    }
    expect(client.of('delta', plain).every((e) => e.logprobs === undefined)).toBe(true);
  });

  it.each<[string, WirePrompt, Sampling, string | null, object]>([
    ['no tokens', { kind: 'tokens', tokens: [] }, {}, null, { field: 'promptTokens' }],
    ['an unknown id', { kind: 'tokens', tokens: [1, VOCAB] }, {}, null, { field: 'promptTokens' }],
    ['an unknown stop', { kind: 'text', text: 'a' }, { stopTokenIds: [VOCAB] }, null, {}],
    ['an empty text', { kind: 'text', text: '' }, {}, null, { field: 'prompt' }],
  ])('is refused for %s, and the engine goes on', async (_, prompt, sampling, adapter, data) => {
    const client = start();
    const bad = client.generate(prompt, sampling, adapter);
    const good = client.generate('fine', { maxOutputTokens: 3 });
    expect(await client.end(bad)).toMatchObject({
      type: 'failed',
      error: { code: 'INVALID_OPTIONS', data },
      usage: { promptTokens: 0, cachedTokens: 0, outputTokens: 0 },
    });
    expect((await client.end(good)).type).toBe('finish');
  });

  it('is refused when it cannot fit or too many wait, with the numbers', async () => {
    const client = start({ manual: true, maxRunning: 1 }, { maxQueued: 1 });
    await client.call({ type: 'ready' });
    const [engine] = client.addon.engines;
    const tooLong = client.generate({ kind: 'text', text: 'a b '.repeat(1e6) });
    const tooManyTokens = client.generate({
      kind: 'tokens',
      tokens: Array(CONTEXT + 1).fill(1) as number[],
    });
    const withMaximum = client.generate('a', { maxOutputTokens: CONTEXT });
    for (const id of [tooLong, tooManyTokens]) {
      expect(await client.end(id)).toMatchObject({ error: { code: 'CONTEXT_TOO_LONG' } });
    }
    const queued = client.generate('a', { maxOutputTokens: 1 });
    await submissions(client, 2);
    const refused = client.generate('a', { maxOutputTokens: 1 });
    await submissions(client, 3);
    engine!.step();
    expect(await client.end(withMaximum)).toMatchObject({ error: { code: 'CONTEXT_TOO_LONG' } });
    expect(await client.end(refused)).toMatchObject({
      error: { code: 'QUEUE_FULL', data: { maxQueued: 1 } },
    });
    expect((await client.end(queued)).type).toBe('finish');
  });
});

describe('messages', () => {
  it('are one per engine step, however many stream', async () => {
    const client = start({ manual: true, maxRunning: 32 });
    await client.call({ type: 'ready' });
    const ids = Array.from({ length: 32 }, () => client.generate('hello', { maxOutputTokens: 5 }));
    await submissions(client, 32);
    const before = client.messages.length;
    for (let step = 0; step < 5; step++) client.addon.engines[0]!.step();
    await Promise.all(ids.map((id) => client.end(id)));
    expect(client.messages.length - before).toBe(5);
  });
});

describe('cancelling', () => {
  it('answers with aborted and what was used until then', async () => {
    const client = start({ nextToken: () => 65 });
    const id = client.generate('hello', { ignoreEos: true });
    await client.until(() => client.of('delta', id)[2]);
    client.send({ type: 'cancel', id });
    const end = await client.end(id);
    expect(end).toMatchObject({ type: 'aborted' });
    expect((end as { usage: { outputTokens: number } }).usage.outputTokens).toBe(
      client.tokensOf(id).length,
    );
    client.send({ type: 'cancel', id }, { type: 'cancel', id: 999 });
    await client.call({ type: 'stats' });
    expect(client.terminalsOf(id).length).toBe(1);
  });

  it('works while the model loads, at once', async () => {
    let release = () => {};
    const client = start({ onCreate: () => new Promise<void>((resolve) => (release = resolve)) });
    const cancelled = client.generate('a');
    const kept = client.generate('b', { maxOutputTokens: 2 });
    client.send({ type: 'cancel', id: cancelled });
    expect(await client.end(cancelled)).toMatchObject({
      type: 'aborted',
      usage: { promptTokens: 0, outputTokens: 0 },
      timing: { timeToFirstTokenMs: null },
    });
    release();
    expect((await client.end(kept)).type).toBe('finish');
    expect(client.addon.engines[0]!.submissions.length).toBe(1);
  });

  it('works while a long prompt is tokenized', async () => {
    const client = start();
    await client.call({ type: 'ready' });
    const id = client.generate({ kind: 'text', text: 'q'.repeat(400) });
    client.send({ type: 'cancel', id });
    await client.end(id);
    await pause();
    expect(client.terminalsOf(id).length).toBe(1);
  });
});

describe('loading', () => {
  it('fails those who waited with the reason, and begins afresh for the next', async () => {
    let attempts = 0;
    const client = start({
      onCreate: async () => {
        await pause(2);
        if (++attempts < 3)
          throw Object.assign(new Error(`attempt ${attempts}`), { code: 'MODEL_INVALID' });
      },
    });
    const waiting = client.generate('a');
    await expect(client.call({ type: 'ready' })).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: 'attempt 1',
    });
    expect(await client.end(waiting)).toMatchObject({
      type: 'failed',
      error: { code: 'MODEL_INVALID', message: 'attempt 1' },
    });
    const second = client.generate('a');
    expect(await client.end(second)).toMatchObject({ error: { message: 'attempt 2' } });
    expect(await client.call({ type: 'ready' })).toMatchObject({ contextTokens: CONTEXT });
    const third = client.generate('a', { maxOutputTokens: 1 });
    expect((await client.end(third)).type).toBe('finish');
    expect(client.addon.engines.length).toBe(1);
  });

  it('lets no more wait than may wait', async () => {
    let release = () => {};
    const onCreate = () => new Promise<void>((resolve) => (release = resolve));
    const client = start({ onCreate }, { maxQueued: 3 });
    const ids = Array.from({ length: 5 }, () => client.generate('a', { maxOutputTokens: 1 }));
    expect(await client.end(ids[3] as number)).toMatchObject({
      type: 'failed',
      error: { code: 'QUEUE_FULL', data: { maxQueued: 3 } },
    });
    await client.end(ids[4] as number);
    // A place that is given up is free again.
    client.send({ type: 'cancel', id: ids[0] as number });
    await client.end(ids[0] as number);
    ids.push(client.generate('a', { maxOutputTokens: 1 }));
    release();
    await Promise.all(ids.map((id) => client.end(id)));
    const types = ids.map((id) => client.terminalsOf(id).map((event) => event.type));
    expect(types.flat()).toEqual(['aborted', 'finish', 'finish', 'failed', 'failed', 'finish']);
    expect(await client.call({ type: 'stats' })).toMatchObject({
      requests: { running: 0, waiting: 0 },
      totals: { finished: 3 },
      recentSteps: [{ prefillTokens: 0, decodeTokens: 0, adapters: 0, ms: 1.5 }],
    });
  });

  it('begins by itself and reports progress', async () => {
    const client = start();
    const event = await client.until(() => client.events.find((e) => e.type === 'progress'));
    expect(event).toMatchObject({ progress: { stage: 'model', name: '/models/fake' } });
  });
});

describe('adapters', () => {
  it('are added, used, listed and removed by opaque names', async () => {
    const client = start({ manual: true });
    const name = 'p7\0pirate';
    expect(await client.call({ type: 'addAdapter', name, directory: '/a' })).toEqual({
      name: 'pirate',
      hash: 'hash of /a',
    });
    const id = client.generate('x', { maxOutputTokens: 3 }, name);
    await submissions(client, 1);
    expect(await client.call({ type: 'listAdapters' })).toEqual([
      expect.objectContaining({ name, directory: '/a', rank: 8, bytes: 1000, activeRequests: 1 }),
    ]);
    // The weights under the name change; the request goes on with the old ones.
    await client.call({ type: 'addAdapter', name, directory: '/b' });
    const [engine] = client.addon.engines;
    for (let i = 0; i < 3; i++) engine!.step();
    await client.end(id);
    expect(client.of('start', id)[0]?.adapter).toEqual({ name: 'pirate', hash: 'hash of /a' });
    expect(engine!.removedAdapters).toEqual([0]);
    expect(await client.call({ type: 'removeAdapter', name })).toBeNull();
    expect(engine!.removedAdapters).toEqual([0, 1]);
    const gone = client.generate('x', {}, name);
    expect(await client.end(gone)).toMatchObject({
      error: { code: 'ADAPTER_NOT_FOUND', data: { adapter: 'pirate' } },
    });
  });

  it('may be asked for in the same message that adds them', async () => {
    const client = start();
    client.send({ type: 'addAdapter', call: 500, name: 'a', directory: '/a' });
    const id = client.generate('x', { maxOutputTokens: 1 }, 'a');
    client.send({ type: 'removeAdapter', call: 501, name: 'a' });
    expect((await client.end(id)).type).toBe('finish');
    expect(client.of('start', id)[0]?.adapter?.hash).toBe('hash of /a');
  });

  it('fail to load by name, and leave nothing', async () => {
    const client = start({
      onAddAdapter: (spec) => {
        if (spec.hash.includes('nan')) throw new Error('NaN in layer 3');
      },
    });
    await expect(
      client.call({ type: 'addAdapter', name: 'a', directory: '/broken' }),
    ).rejects.toMatchObject({ code: 'ADAPTER_INVALID', message: '/broken' });
    await expect(
      client.call({ type: 'addAdapter', name: 'a', directory: '/nan' }),
    ).rejects.toMatchObject({ code: 'ADAPTER_INVALID', message: 'NaN in layer 3' });
    await expect(client.call({ type: 'removeAdapter', name: 'a' })).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
    expect(await client.call({ type: 'listAdapters' })).toEqual([]);
  });
});

describe('the end', () => {
  it('dispose ends every request, stops the engine, answers, closes the port', async () => {
    const client = start({ nextToken: () => 65 });
    const running = client.generate('a', { ignoreEos: true });
    await client.until(() => client.of('delta', running)[0]);
    const fresh = client.generate('b');
    expect(await client.call({ type: 'dispose' })).toBeNull();
    for (const id of [running, fresh]) {
      expect(client.terminalsOf(id)).toMatchObject([
        { type: 'failed', error: { code: 'DISPOSED' } },
      ]);
    }
    expect(client.addon.engines[0]!.stopped).toBe(true);
    await client.until(() => client.closed || undefined);
  });

  it('dispose during the load stops what was loaded', async () => {
    const client = start({ onCreate: () => pause(10) as Promise<void> });
    const id = client.generate('a');
    const ready = client.call({ type: 'ready' });
    ready.catch(() => undefined);
    await client.call({ type: 'dispose' });
    await expect(ready).rejects.toMatchObject({ code: 'DISPOSED' });
    expect(client.terminalsOf(id)).toMatchObject([{ error: { code: 'DISPOSED' } }]);
    expect(client.addon.engines.map((engine) => engine.stopped)).toEqual([true]);
  });

  it('a client that goes away stops the engine', async () => {
    const client = start({ nextToken: () => 65 });
    const id = client.generate('a', { ignoreEos: true });
    await client.until(() => client.of('delta', id)[0]);
    client.port.close();
    for (let i = 0; i < 100 && !client.addon.engines[0]!.stopped; i++) await pause();
    expect(client.addon.engines[0]!.stopped).toBe(true);
  });

  it('a lost engine fails every open request, and all that comes after', async () => {
    const client = start({ manual: true });
    await client.call({ type: 'ready' });
    const ids = [client.generate('a'), client.generate('b')];
    await submissions(client, 2);
    client.addon.engines[0]!.lose('an invariant broke');
    for (const id of ids) {
      expect(await client.end(id)).toMatchObject({
        type: 'failed',
        error: { code: 'ENGINE_LOST', message: 'an invariant broke' },
      });
    }
    const after = client.generate('c');
    expect(await client.end(after)).toMatchObject({ error: { code: 'ENGINE_LOST' } });
  });

  it('comes exactly once per request and call, under random commands', async () => {
    for (let seed = 0; seed < 40; seed++) {
      const random = new Random(seed);
      const slowLoad = random.below(2) === 0;
      const client = start({
        maxRunning: 1 + random.below(6),
        tokensPerStep: 1 + random.below(3),
        onCreate: () => (slowLoad ? (pause(3) as Promise<void>) : undefined),
      });
      const ids: number[] = [];
      const calls: Promise<unknown>[] = [];
      const call = (command: Record<string, unknown> & { type: string }) => {
        const answer = client.call(command).catch((error: { code: string }) => error.code);
        calls.push(answer);
      };
      for (let i = 0; i < 80; i++) {
        const kind = random.below(12);
        const name = random.pick(['a', 'b', 'c']);
        if (kind < 5) {
          const adapter = random.pick([null, null, 'a', 'b', 'c']);
          const tokens = Array.from({ length: random.below(8) }, () => random.below(VOCAB + 2));
          const prompt = random.pick<WirePrompt>([
            { kind: 'tokens', tokens },
            { kind: 'text', text: 'hello <|im_end|> world' },
            { kind: 'messages', messages: [{ role: 'user', content: 'hi' }] },
          ]);
          const sampling: Sampling = { maxOutputTokens: 1 + random.below(30), seed: i };
          if (random.below(3) === 0) sampling.stop = ['a', 'e', ' '];
          if (random.below(3) === 0) sampling.stopTokenIds = [random.below(256)];
          ids.push(client.generate(prompt, sampling, adapter));
        } else if (kind < 8 && ids.length > 0) {
          client.send({ type: 'cancel', id: random.pick(ids) });
        } else if (kind === 8) {
          call({ type: 'addAdapter', name, directory: random.pick(['/x', '/y', '/broken']) });
        } else if (kind === 9) {
          call({ type: 'removeAdapter', name });
        } else if (kind === 10) {
          call(random.pick([{ type: 'stats' }, { type: 'ready' }, { type: 'listAdapters' }]));
        } else {
          await pause(random.below(3));
        }
      }
      if (random.below(2) === 0) call({ type: 'dispose' });
      else await Promise.all(ids.map((id) => client.end(id)));
      await Promise.all(calls);
      await pause();
      for (const id of ids) {
        const types = client.events.flatMap((e) => ('id' in e && e.id === id ? [e.type] : []));
        const terminals = types.filter((type) => ['finish', 'aborted', 'failed'].includes(type));
        expect(terminals.length, `seed ${seed} request ${id}: ${types.join(' ')}`).toBe(1);
        expect(types.at(-1)).toBe(terminals[0]);
        const starts = types.filter((type) => type === 'start').length;
        expect(starts).toBeLessThanOrEqual(1);
        if (types.includes('delta')) expect(types[0]).toBe('start');
      }
      client.port.close();
    }
  });
});
