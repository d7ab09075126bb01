// An adapter is its content: replaced under load, pinned, pointed back, removed; and tenants.
import { createEngine, type Engine, type EngineView } from 'lorax-js/engine';
import { cpSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startHub, temporaryDirectory } from '../worker/sources/fixture.js';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const directoryOf = (name: string) => path.join(demo, 'adapters', name);
const engines: Engine[] = [];
// Tenants' files lie there; engines read it when they start.
beforeEach(() => {
  process.env.XDG_CACHE_HOME = temporaryDirectory();
});
afterEach(() => Promise.all(engines.splice(0).map((engine) => engine.dispose())));

function start(options: Partial<Parameters<typeof createEngine>[0]> = {}): Engine {
  const engine = createEngine({ model: demo, ...exactDevice, ...options });
  engines.push(engine);
  return engine;
}

const questions = ['Where is my order 4821?', 'Can I return my shoes?', 'Do you ship to Norway?'];

interface Answer {
  hash: string;
  tokens: number[];
}

async function answerOf(
  engine: EngineView<unknown>,
  adapter: string,
  question = questions[0]!,
  maxOutputTokens = 40,
): Promise<Answer> {
  const answer: Answer = { hash: '', tokens: [] };
  const events = engine.generate({
    messages: [{ role: 'user', content: question }],
    adapter,
    sampling: { maxOutputTokens, ignoreEos: true },
  });
  for await (const event of events) {
    if (event.type === 'start') answer.hash = event.adapter?.hash ?? '';
    if (event.type === 'delta') answer.tokens.push(...event.tokenIds);
  }
  return answer;
}

/** What each content answers, by its hash. */
async function referencesOf(engine: Engine, names: string[]) {
  const references = new Map<string, number[][]>();
  for (const name of names) {
    const { hash } = await engine.adapters.add(`reference-${name}`, directoryOf(name));
    const answers = [];
    for (const question of questions) {
      answers.push((await answerOf(engine, `reference-${name}`, question)).tokens);
    }
    references.set(hash, answers);
    await engine.adapters.remove(`reference-${name}`);
  }
  return references;
}

describe('a name', () => {
  it('is replaced 100 times under load: each answer is wholly of one version', async () => {
    const engine = start();
    const voices = ['pirate', 'json', 'german'];
    const references = await referencesOf(engine, voices);
    await engine.adapters.add('voice', directoryOf('pirate'));
    let replacing = true;
    const answers: (Answer & { question: number })[] = [];
    const askOn = async (question: number) => {
      while (replacing) {
        answers.push({ ...(await answerOf(engine, 'voice', questions[question])), question });
      }
    };
    const asking = [0, 1, 2, 0, 1, 2].map(askOn);
    for (let i = 1; i <= 100; i++) {
      const { hash } = await engine.adapters.add('voice', directoryOf(voices[i % 3]!));
      // What is asked for after an add is of its content.
      if (i % 20 !== 0) continue;
      expect((await answerOf(engine, 'voice', questions[0], 4)).hash).toBe(hash);
    }
    replacing = false;
    await Promise.all(asking);
    expect(answers.length).toBeGreaterThan(20);
    expect(new Set(answers.map(({ hash }) => hash)).size).toBe(3);
    for (const { hash, tokens, question } of answers) {
      expect(tokens).toEqual(references.get(hash)![question]);
    }
    // Nothing of the old ones is left.
    await expect.poll(async () => (await engine.adapters.list()).length).toBe(1);
    const { freedBytes } = await engine.adapters.remove('voice');
    expect(freedBytes).toBeGreaterThan(0);
    await expect.poll(async () => (await engine.stats()).pages.adapter).toBe(0);
  });

  it('may be written over in place, in the same directory', async () => {
    const engine = start();
    const references = await referencesOf(engine, ['pirate', 'json']);
    const directory = path.join(temporaryDirectory(), 'voice');
    mkdirSync(directory);
    for (const voice of ['pirate', 'json', 'pirate']) {
      cpSync(directoryOf(voice), directory, { recursive: true });
      const { hash } = await engine.adapters.add('voice', directory);
      const answer = await answerOf(engine, 'voice');
      expect(answer).toEqual({ hash, tokens: references.get(hash)![0] });
    }
  });

  it('is pinned by a hash, and pointed back', async () => {
    const engine = start();
    const one = await engine.adapters.add('voice', directoryOf('pirate'));
    const old = await answerOf(engine, 'voice');
    const two = await engine.adapters.add('voice', directoryOf('json'));
    expect((await answerOf(engine, 'voice')).hash).toBe(two.hash);
    const pinned = `voice@${one.hash.slice(0, 12)}`;
    expect(await answerOf(engine, pinned)).toEqual(old);
    expect(await engine.adapters.identify(pinned)).toEqual({ name: pinned, hash: one.hash });
    expect(await engine.adapters.add('voice', { hash: one.hash.slice(0, 8) })).toEqual(one);
    expect(await answerOf(engine, 'voice')).toEqual(old);
    await expect(answerOf(engine, 'voice@deadbeef')).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
    await expect(engine.adapters.add('voice', { hash: 'deadbeef' })).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
    await expect(engine.adapters.add('voice', { hash: 'xyz' })).rejects.toMatchObject({
      ...{ code: 'INVALID_OPTIONS', data: { field: 'source.hash' } },
    });
  });

  it('whose version was written over says that it is not there any more', async () => {
    const engine = start();
    const directory = path.join(temporaryDirectory(), 'voice');
    cpSync(directoryOf('pirate'), directory, { recursive: true });
    const { hash } = await engine.adapters.add('voice', directory);
    cpSync(directoryOf('json'), directory, { recursive: true });
    await engine.adapters.add('voice', directory);
    await expect(answerOf(engine, `voice@${hash}`)).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      message: expect.stringContaining('is not there any more') as string,
    });
  });

  it('is removed when its last request has ended, and says what that freed', async () => {
    const engine = start();
    const { hash } = await engine.adapters.add('voice', directoryOf('pirate'));
    const { bytes } = (await engine.adapters.list())[0]!;
    const expected = await answerOf(engine, 'voice', questions[0], 200);
    const running = answerOf(engine, 'voice', questions[0], 200);
    while ((await engine.stats()).requests.running === 0);
    let ended = false;
    void running.then(() => (ended = true));
    const removed = await engine.adapters.remove('voice');
    await running;
    expect(ended).toBe(true);
    expect(removed).toEqual({ name: 'voice', hash, freedBytes: bytes });
    expect(await running).toEqual(expected);
    await expect.poll(async () => (await engine.stats()).pages.adapter).toBe(0);
    await expect(answerOf(engine, 'voice')).rejects.toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
    await expect(engine.adapters.remove('voice')).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
  });
});

describe('tenants', () => {
  it('with the same name and different weights are never mixed', async () => {
    const engine = start();
    const references = await referencesOf(engine, ['pirate', 'json']);
    const [a, b] = [engine.tenant('a'), engine.tenant('b')];
    const [mine, theirs] = await Promise.all([
      a.adapters.add('voice', directoryOf('pirate')),
      b.adapters.add('voice', directoryOf('json')),
    ]);
    const rounds = Array.from({ length: 24 }, async (_, i) => {
      const [view, { hash }] = i % 2 === 0 ? [a, mine] : [b, theirs];
      const question = i % 3;
      expect(await answerOf(view, 'voice', questions[question])).toEqual({
        ...{ hash, tokens: references.get(hash)![question] },
      });
    });
    await Promise.all(rounds);
    await expect(answerOf(engine, 'voice')).rejects.toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
    await expect(answerOf(engine.tenant('c'), 'voice')).rejects.toMatchObject({
      ...{ code: 'ADAPTER_NOT_FOUND', data: { known: [] } },
    });
  });

  it("see their own names and counts, and what is everybody's", async () => {
    const engine = start();
    await engine.adapters.add('shared', directoryOf('caps'));
    const [a, b] = [engine.tenant('a'), engine.tenant('b')];
    await a.adapters.add('own', directoryOf('caps'));
    await answerOf(a, 'own');
    await answerOf(a, 'shared');
    await answerOf(b, 'shared');
    const names = async (view: EngineView<unknown>) =>
      (await view.adapters.list()).map(({ name, activeRequests }) => [name, activeRequests]);
    expect(await names(a)).toEqual([['own', 0]]);
    expect(await names(b)).toEqual([]);
    expect(await names(engine)).toEqual([['shared', 0]]);
    const [ofA, ofB] = [await a.stats(), await b.stats()];
    expect(ofA.totals).toMatchObject({ finished: 2, outputTokens: 80 });
    expect(ofB).toEqual({
      requests: { running: 0, waiting: 0 },
      totals: {
        ...ofA.totals,
        finished: 1,
        outputTokens: 40,
        promptTokens: ofA.totals.promptTokens / 2,
      },
    });
    expect((await engine.stats()).totals.finished).toBe(3);
    // One's leaving is nothing to the other.
    await a.dispose();
    await expect(answerOf(a, 'own')).rejects.toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
    expect((await answerOf(b, 'shared')).tokens.length).toBe(40);
    expect(() => engine.tenant('')).toThrow('tenant');
    expect(() => engine.tenant('a\0b')).toThrow('NUL');
  });

  it("never get at what another's credentials have fetched", async () => {
    const server = await startHub();
    const files = Object.fromEntries(
      readdirSync(directoryOf('pirate')).map((file) => [
        file,
        readFileSync(path.join(directoryOf('pirate'), file)),
      ]),
    );
    server.add('acme/secret', files, { token: 'token-of-a' });
    const engine = start({
      hub: { endpoint: server.url, cacheDirectory: temporaryDirectory(), token: false },
      sources: [(_, { tenant = '' }) => ({ hub: 'acme/secret', token: `token-of-${tenant}` })],
    });
    const [a, b] = [engine.tenant('a'), engine.tenant('b')];
    expect((await answerOf(a, 'secret')).tokens.length).toBe(40);
    for (const view of [b, engine]) {
      await expect(answerOf(view, 'secret')).rejects.toMatchObject({
        ...{ code: 'ADAPTER_FETCH_FAILED', data: { reason: 'unauthorized' } },
      });
    }
    await server.stop();
    // The hub cannot say no any more; a's files still are nobody else's.
    await expect(engine.tenant('b').adapters.prefetch('secret')).rejects.toMatchObject({
      code: 'ADAPTER_FETCH_FAILED',
    });
    expect((await answerOf(a, 'secret')).tokens.length).toBe(40);
  });
});
