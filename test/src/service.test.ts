// Whose turn a request has and until when: what the worker is told, and what ends here.
import { generateText, embedMany } from 'ai';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createFakeLorax } from '../../src/test.js';
import { createLoraxOn } from '../../src/ai-sdk/provider.js';
import { ChatLorax } from '../../src/langchain/chat-lorax.js';
import { LoraxEmbeddings } from '../../src/langchain/lorax-embeddings.js';
import { LoraxLLM } from '../../src/langchain/lorax-llm.js';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FakeWorker } from '../fakes/fake-worker.js';
import { ask, codeOf, read, settled, setUp } from './client-under-test.js';

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] }));
afterEach(() => void vi.useRealTimers());

const late = { code: 'DEADLINE_EXCEEDED' };

describe('a deadline', () => {
  it('ends a request whose adapter is still on its way', async () => {
    const { engine, worker } = setUp({ deafTo: ['addAdapter'] });
    engine.adapters.add('slow', './slow').catch(() => undefined);
    const usages: unknown[] = [];
    const onUsage = (usage: unknown) => usages.push(usage);
    const request = ask('x', { adapter: 'slow', deadline: 100, onUsage });
    const held = read(engine.generate(request)).catch((error: unknown) => error);
    const embedded = engine.embed({ input: ['x'], adapter: 'slow', deadline: 100 });
    const failed = embedded.catch((error: unknown) => error);
    await settled();
    vi.advanceTimersByTime(99);
    await settled();
    expect(usages).toEqual([]);
    vi.advanceTimersByTime(1);
    for (const error of [await held, await failed]) {
      expect(error).toMatchObject({
        ...{ ...late, message: expect.stringContaining('adapters') as string },
        data: { deadlineMs: 100, waitedMs: 100, outputTokens: 0 },
      });
    }
    expect(usages).toHaveLength(1);
    expect(worker.connection.generateIds).toEqual([]);
    worker.connection.die();
  });

  it('ends one that the worker has not begun, and tells it so', async () => {
    const { engine, worker } = setUp({ manual: true });
    const request = ask('x', { deadline: new Date(Date.now() + 50) });
    const waiting = read(engine.generate(request)).catch((error: unknown) => error);
    const embedded = engine.embed({ input: ['x'], deadline: 50 }).catch((error: unknown) => error);
    await settled();
    vi.advanceTimersByTime(50);
    expect(await waiting).toMatchObject(late);
    expect(await embedded).toMatchObject(late);
    await settled();
    expect(worker.connection.commands.filter(({ type }) => type === 'cancel')).toHaveLength(2);
    expect(worker.connection.open.size).toBe(0);
  });

  it('leaves what has begun to the engine', async () => {
    const { engine, worker } = setUp({ manual: true });
    const answer = read(engine.generate(ask('x', { deadline: 50 })));
    await settled();
    const [id] = worker.connection.generateIds;
    worker.connection.start(id!);
    worker.connection.token(id!, 'so far');
    vi.advanceTimersByTime(1000);
    await settled();
    worker.connection.finish(id!, 'deadline');
    expect((await answer).text).toBe('so far');
    expect(worker.connection.commands.filter(({ type }) => type === 'cancel')).toEqual([]);
  });

  it('that is over when asked ends at once; one that is met is forgotten', async () => {
    const { engine } = setUp({ manual: true });
    const over = codeOf(read(engine.generate(ask('x', { deadline: new Date(0) }))));
    vi.advanceTimersByTime(1);
    expect(await over).toBe('DEADLINE_EXCEEDED');
    const fast = setUp();
    expect((await read(fast.engine.generate(ask('x y', { deadline: 5000 })))).text).toBe('x y');
    expect(vi.getTimerCount()).toBe(0);
  });

  it('of the fake engine cuts an answer as the real one does', async () => {
    const lorax = createFakeLorax({ answers: { base: 'one two three four' }, tokenMs: 10 });
    const cut = read(lorax.engine.generate(ask('x', { deadline: 25 })));
    await vi.advanceTimersByTimeAsync(30);
    expect((await cut).text).toBe('one two');
    const none = codeOf(read(lorax.engine.generate(ask('x', { deadline: 5 }))));
    await vi.advanceTimersByTimeAsync(30);
    expect(await none).toBe('DEADLINE_EXCEEDED');
  });
});

describe('tenant, weight, priority and deadline', () => {
  const model = mkdtempSync(path.join(tmpdir(), 'lorax-service-'));
  const told = ({ connection }: FakeWorker) =>
    connection.commands.flatMap((command) => {
      if (command.type !== 'generate' && command.type !== 'embed') return [];
      const { type, tenant, tenantWeight, priority, deadlineAt } = command;
      return [{ type, tenant, tenantWeight, priority, deadlineAt }];
    });

  it('of a tenant come with all it asks for', async () => {
    const { engine, worker } = setUp();
    const heavy = engine.tenant('heavy', { weight: 3 });
    const request = { priority: 2, deadline: 1000 };
    await read(heavy.generate(ask('x', request)));
    await heavy.embed({ input: ['x'], ...request });
    await engine.tenant('light').embed({ input: ['x'] });
    const deadlineAt = Date.now() + 1000;
    const own = { tenant: 'heavy', tenantWeight: 3, priority: 2, deadlineAt };
    expect(told(worker)).toEqual([
      { type: 'generate', ...own },
      { type: 'embed', ...own },
      { type: 'embed', tenant: 'light' },
    ]);
    for (const weight of [0, -1, Infinity, '3', 2000]) {
      expect(() => engine.tenant('t', { weight: weight as number })).toThrow('options.weight');
    }
    expect(() => engine.tenant('t', { wait: 1 } as never)).toThrow('no option "wait"');
  });

  it('are given by the AI SDK in providerOptions', async () => {
    const worker = new FakeWorker();
    const provider = createLoraxOn(worker.connect, { model });
    const lorax = provider.tenant('acme', { weight: 2 });
    const providerOptions = { lorax: { priority: -1, deadline: 2000 } };
    await generateText({ model: lorax(), prompt: 'x', providerOptions });
    await embedMany({ model: lorax.embeddingModel(), values: ['a', 'b'], providerOptions });
    const deadlineAt = Date.now() + 2000;
    const all = { tenant: 'acme', tenantWeight: 2, priority: -1, deadlineAt };
    expect(told(worker)).toEqual([
      { type: 'generate', ...all },
      { type: 'embed', ...all },
    ]);
    const wrong = { lorax: { deadline: 'soon' } };
    await expect(
      generateText({ model: lorax(), prompt: 'x', providerOptions: wrong }),
    ).rejects.toThrow('providerOptions.lorax.deadline');
    await provider.dispose();
  });

  it('are options of a call of LangChain, and of its embeddings', async () => {
    const { engine: all, worker } = setUp();
    const engine = all.tenant('acme');
    const options = { priority: 4, deadline: 3000 };
    await new ChatLorax({ engine }).invoke('x', options);
    await new LoraxLLM({ engine }).invoke('x', options);
    await new LoraxEmbeddings({ engine, ...options }).embedQuery('x');
    const expected = { tenant: 'acme', priority: 4, deadlineAt: Date.now() + 3000 };
    expect(told(worker)).toEqual([
      { type: 'generate', ...expected },
      { type: 'generate', ...expected },
      { type: 'embed', ...expected },
    ]);
    expect(() => new LoraxEmbeddings({ engine, deadline: -1 })).toThrow('options.deadline');
  });
});

describe('a refusal that says when to try again', () => {
  it('is obeyed by the AI SDK', async () => {
    let calls = 0;
    const data = { waiting: 3, retryAfterMs: 4321.5 };
    const full = { code: 'QUEUE_FULL', message: 'full', data };
    const worker = new FakeWorker({ answer: () => (++calls === 1 ? full : ['ok']) });
    const model = mkdtempSync(path.join(tmpdir(), 'lorax-service-'));
    const lorax = createLoraxOn(worker.connect, { model });
    const answer = generateText({ model: lorax(), prompt: 'x' });
    await settled();
    await vi.advanceTimersByTimeAsync(4321);
    await settled();
    expect(calls).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect((await answer).text).toBe('ok');
    await lorax.dispose();
  });
});
