/** Constraints on their way through a port: compiled once, shared, waited for, refused, forgotten. */
import { describe, expect, it } from 'vitest';
import type { WireConstraint } from '../../../worker/protocol.js';
import { GrammarCache } from '../../../worker/grammar/grammar-cache.js';
import { pause, start, submissions, type Client } from '../port-client.js';

const json = (schema: unknown): WireConstraint => ({
  ...{ type: 'json', schema: JSON.stringify(schema) },
});

function ask(client: Client, id: number, constraint: WireConstraint): void {
  const sampling = { maxOutputTokens: 2 };
  const prompt = { kind: 'text' as const, text: 'x' };
  client.send({ type: 'generate', id, prompt, adapters: [], sampling, constraint });
}

describe('a request with a constraint', () => {
  it('is submitted with its grammar, which equal constraints share', async () => {
    const compiled: string[] = [];
    const client = start({ onCompileGrammar: (text) => compiled.push(text) });
    ask(client, 101, { type: 'regex', pattern: 'a|b' });
    ask(client, 102, { type: 'regex', pattern: 'a|b' });
    ask(client, 103, json({ type: 'null' }));
    ask(client, 104, { type: 'grammar', grammar: 'root ::= "x"' });
    client.generate('free', { maxOutputTokens: 2 });
    await Promise.all([101, 102, 103, 104].map((id) => client.end(id)));
    expect(compiled.sort()).toEqual(['root ::= "null"\n', 'root ::= "x"', 'root ::= [a-b]\n']);
    const { submissions: all } = client.addon.engines[0]!;
    const grammars = all.map(({ constraint }) => constraint?.grammar);
    expect(grammars.filter((grammar) => grammar === undefined)).toHaveLength(1);
    expect(new Set(grammars)).toHaveProperty('size', 4);
    expect(all.every(({ constraint }) => constraint?.triggers === undefined)).toBe(true);
  });

  it('that cannot be compiled fails alone, with its code and data', async () => {
    const client = start({
      onCompileGrammar: (text) => {
        if (!text.includes('bad')) return 1;
        const data = { line: 1, column: 2 };
        throw Object.assign(new Error('no such rule'), { code: 'GRAMMAR_INVALID', data });
      },
    });
    ask(client, 101, json({ type: 'string', contains: {} }));
    ask(client, 102, { type: 'regex', pattern: '(' });
    ask(client, 103, { type: 'grammar', grammar: 'bad' });
    ask(client, 104, json({ type: 'integer' }));
    const code = async (id: number) => {
      const event = await client.end(id);
      return event.type === 'failed' ? event.error : event.type;
    };
    expect(await code(101)).toMatchObject({
      ...{ code: 'CONSTRAINT_UNSUPPORTED', data: { keyword: 'contains', pointer: '#' } },
    });
    expect(await code(102)).toMatchObject({ code: 'CONSTRAINT_INVALID' });
    expect(await code(103)).toMatchObject({ code: 'GRAMMAR_INVALID', data: { column: 2 } });
    expect(await code(104)).toBe('finish');
  });

  it('can be cancelled while its grammar is made; others go on', async () => {
    let release = () => {};
    const made = new Promise<void>((resolve) => (release = resolve));
    const client = start({
      onCompileGrammar: async () => {
        await made;
        return 1;
      },
    });
    ask(client, 101, { type: 'regex', pattern: 'a' });
    ask(client, 102, { type: 'regex', pattern: 'a' });
    expect((await client.end(client.generate('free', { maxOutputTokens: 2 }))).type).toBe('finish');
    client.send({ type: 'cancel', id: 101 });
    expect((await client.end(101)).type).toBe('aborted');
    release();
    expect((await client.end(102)).type).toBe('finish');
    await submissions(client, 2);
    await pause();
    expect(client.addon.engines[0]!.submissions).toHaveLength(2);
  });
});

describe('the cache', () => {
  const cacheOf = () => {
    const texts: string[] = [];
    const cache = new GrammarCache(async (text) => {
      texts.push(text);
      return { shortestTokens: 1 };
    });
    return { cache, texts };
  };

  it('keeps what was used last', async () => {
    const { cache, texts } = cacheOf();
    const of = (word: string) => cache.of(word, async () => `root ::= "${word}"`);
    await of('first');
    await of('second');
    for (let i = 0; i < 200; i++) {
      await of(`x${i}`);
      await of('first');
    }
    expect(texts.filter((text) => text.includes('first'))).toHaveLength(1);
    await of('second');
    expect(texts.filter((text) => text.includes('second'))).toHaveLength(2);
  });

  it('holds no more text than it may', async () => {
    const { cache, texts } = cacheOf();
    const of = (i: number) => cache.of(`${i}`.padEnd(1 << 20, '.'), async () => `root ::= "${i}"`);
    for (let i = 0; i < 20; i++) await of(i);
    await of(19);
    expect(texts).toHaveLength(20);
    await of(0);
    expect(texts).toHaveLength(21);
  });

  it('tries again what failed', async () => {
    let fails = true;
    const cache = new GrammarCache(async () => {
      if (fails) throw new Error('not now');
      return { shortestTokens: 1 };
    });
    const ask = () => cache.of('a', async () => 'root ::= "a"');
    await expect(ask()).rejects.toThrow('not now');
    fails = false;
    expect(await ask()).toEqual({ shortestTokens: 1 });
  });
});
