import { describe, expect, it } from 'vitest';
import type { Sampling } from '../../src/types.js';
import type { WirePrompt } from '../../worker/protocol.js';
import { Random } from './random.js';
import { VOCAB, CONTEXT, start, submissions, pause, inDirectory } from './port-client.js';

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
    expect(await client.call({ type: 'addAdapter', name, source: inDirectory('/a') })).toEqual({
      hash: 'hash of /a',
      directory: '/a',
    });
    const id = client.generate('x', { maxOutputTokens: 3 }, name);
    await submissions(client, 1);
    expect(await client.call({ type: 'listAdapters' })).toEqual([
      expect.objectContaining({ name, rank: 8, bytes: 1000, activeRequests: 1 }),
    ]);
    // The weights under the name change; the request goes on with the old ones.
    await client.call({ type: 'addAdapter', name, source: inDirectory('/b') });
    const [engine] = client.addon.engines;
    for (let i = 0; i < 3; i++) engine!.step();
    await client.end(id);
    expect(client.of('start', id)[0]?.adapter).toEqual({ name: 'pirate', hash: 'hash of /a' });
    expect(engine!.removedAdapters).toEqual([0]);
    expect(await client.call({ type: 'removeAdapter', name })).toEqual({
      ...{ name: 'pirate', hash: 'hash of /b', freedBytes: 1001 },
    });
    expect(engine!.removedAdapters).toEqual([0, 1]);
    const gone = client.generate('x', {}, name);
    expect(await client.end(gone)).toMatchObject({
      error: { code: 'ADAPTER_NOT_FOUND', data: { adapter: 'pirate' } },
    });
  });

  it('may be asked for in the same message that adds them', async () => {
    const client = start();
    client.send({ type: 'addAdapter', call: 500, name: 'a', source: inDirectory('/a') });
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
      client.call({ type: 'addAdapter', name: 'a', source: inDirectory('/broken') }),
    ).rejects.toMatchObject({ code: 'ADAPTER_INVALID', message: '/broken' });
    await expect(
      client.call({ type: 'addAdapter', name: 'a', source: inDirectory('/nan') }),
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
          call({
            type: 'addAdapter',
            name,
            source: inDirectory(random.pick(['/x', '/y', '/broken'])),
          });
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
