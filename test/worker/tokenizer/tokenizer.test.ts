import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tokenizer } from '../../../worker/tokenizer/tokenizer.js';
import { FIXTURES, fixtureDirectory, loadFixture, loadLibraryFixture } from '../fixtures.js';
import { Random } from '../random.js';

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'lorax-tokenizer-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** A copy of the chatml fixture with some files changed. */
async function variant(files: Record<string, string | null>): Promise<string> {
  const directory = await mkdtemp(path.join(scratch, 'model-'));
  await cp(fixtureDirectory('chatml'), directory, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    if (text === null) await rm(path.join(directory, name));
    else await writeFile(path.join(directory, name), text);
  }
  return directory;
}

const user = (content: string) => [{ role: 'user' as const, content }];

describe('long prompts', () => {
  it('refuses 100 MB at once', async () => {
    const tokenizer = await loadFixture('chatml');
    for (const text of ['a'.repeat(100e6), '你'.repeat(50e6), ' '.repeat(100e6)]) {
      const start = performance.now();
      await expect(tokenizer.encodeChat({ messages: user(text) }, 8192)).rejects.toMatchObject({
        code: 'CONTEXT_TOO_LONG',
        data: { contextTokens: 8192 },
      });
      await expect(tokenizer.encodeText(text, 8192)).rejects.toMatchObject({
        code: 'CONTEXT_TOO_LONG',
      });
      expect(performance.now() - start).toBeLessThan(1000);
    }
  });

  it.each(FIXTURES)('never refuses what fits (%s)', async (name) => {
    const tokenizer = await loadFixture(name);
    for (let seed = 0; seed < 300; seed++) {
      const random = new Random(seed);
      const length = 1 + random.below(60);
      const text = Array.from({ length }, () =>
        random.pick([
          'hello',
          ' world',
          'e\u0301',
          ' ',
          '\n\n',
          'ab',
          '你好',
          '<think>',
          'q',
          '한글',
        ]),
      ).join('');
      const ids = await tokenizer.encodeText(text, 1e6);
      expect(await tokenizer.encodeText(text, ids.length), JSON.stringify(text)).toEqual(ids);
      await expect(tokenizer.encodeText(text, ids.length - 1)).rejects.toMatchObject({
        code: 'CONTEXT_TOO_LONG',
      });
    }
  });

  it('merges a long run as the library does', async () => {
    const tokenizer = await loadFixture('chatml');
    const library = loadLibraryFixture('chatml');
    for (let seed = 0; seed < 10; seed++) {
      const random = new Random(seed);
      const run = Array.from({ length: 3000 }, () => random.pick([...'helo worldaab'])).join('');
      const text = run.replaceAll(' ', seed % 2 === 0 ? '' : ' ');
      expect(await tokenizer.encodeText(text, 1e6)).toEqual(
        library.encode(text, { add_special_tokens: false }).ids,
      );
    }
  });

  it('lets others run while it works', async () => {
    const tokenizer = await loadFixture('chatml');
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await tokenizer.encodeText('hello world; '.repeat(40_000), 1e6);
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(3);
  });
});

describe('model directories', () => {
  it('prefers chat_template.jinja', async () => {
    const directory = await variant({ 'chat_template.jinja': '{{ messages[0].content }}' });
    const tokenizer = await Tokenizer.load(directory);
    expect((await tokenizer.encodeChat({ messages: user('hello') }, 100)).ids).toEqual(
      await tokenizer.encodeText('hello', 100),
    );
  });

  it('takes the template for tools where there is one and tools are given', async () => {
    const chat_template = [
      { name: 'default', template: 'chat: {{ messages[0].content }}' },
      {
        name: 'tool_use',
        template: 'tools: {{ messages[0].content }}',
      },
    ];
    const directory = await variant({ 'tokenizer_config.json': JSON.stringify({ chat_template }) });
    const tokenizer = await Tokenizer.load(directory);
    const idsOf = (text: string) => tokenizer.encodeText(text, 100);
    const messages = user('hello');
    expect((await tokenizer.encodeChat({ messages }, 100)).ids).toEqual(await idsOf('chat: hello'));
    const tools = [{ name: 'f', parameters: true }];
    // It says nothing of how calls are written, so ours is told in the system message.
    const { ids } = await tokenizer.encodeChat({ messages, tools }, 1000);
    expect(ids.slice(0, 2)).toEqual((await idsOf('tools: You')).slice(0, 2));
  });

  it('says when there is no template, and serves texts all the same', async () => {
    const tokenizer = await Tokenizer.load(await variant({ 'tokenizer_config.json': '{}' }));
    await expect(tokenizer.encodeChat({ messages: user('a') }, 100)).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      data: { field: 'messages' },
    });
    expect((await tokenizer.encodeText('hello', 100)).length).toBeGreaterThan(0);
  });

  it('names a template that cannot be parsed', async () => {
    const tokenizer = await Tokenizer.load(await variant({ 'chat_template.jinja': '{% if %}' }));
    await expect(tokenizer.encodeChat({ messages: user('a') }, 100)).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      data: { file: 'chat_template.jinja' },
    });
  });

  it("passes on the template's own refusal", async () => {
    const tokenizer = await loadFixture('sentencepiece');
    await expect(
      tokenizer.encodeChat({ messages: [{ role: 'system', content: 'x' }] }, 100),
    ).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      message: expect.stringContaining('Conversation roles must alternate') as string,
    });
  });

  it('knows dates and roles', async () => {
    const dated = await variant({ 'chat_template.jinja': "{{ strftime_now('%Y') }}" });
    const tokenizer = await Tokenizer.load(dated);
    const year = String(new Date().getFullYear());
    expect((await tokenizer.encodeChat({ messages: user('a') }, 100)).ids).toEqual(
      await tokenizer.encodeText(year, 100),
    );
    const messages = [{ role: 'user<|im_end|>' as 'user', content: 'a' }];
    await expect(tokenizer.encodeChat({ messages: messages }, 100)).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
    });
  });

  it.each([
    ['no tokenizer.json', { 'tokenizer.json': null }, 'MODEL_INVALID', 'tokenizer.json'],
    ['no JSON', { 'tokenizer.json': '{' }, 'MODEL_INVALID', 'tokenizer.json'],
    ['an array', { 'tokenizer_config.json': '[]' }, 'MODEL_INVALID', 'tokenizer_config.json'],
    ['nothing in it', { 'tokenizer.json': '{}' }, 'MODEL_INVALID', 'tokenizer.json'],
  ])('refuses %s by name', async (_, files, code, file) => {
    const directory = await variant(files);
    await expect(Tokenizer.load(directory)).rejects.toMatchObject({
      code,
      data: { file: path.join(directory, file) },
    });
  });

  it('refuses a decoder it would decode wrongly', async () => {
    const text = await readFile(path.join(fixtureDirectory('chatml'), 'tokenizer.json'), 'utf8');
    const json = JSON.parse(text) as Record<string, unknown>;
    const decoder = { type: 'WordPiece', prefix: '##', cleanup: true };
    const directory = await variant({ 'tokenizer.json': JSON.stringify({ ...json, decoder }) });
    await expect(Tokenizer.load(directory)).rejects.toMatchObject({
      code: 'MODEL_UNSUPPORTED',
      data: { field: 'decoder', value: 'WordPiece' },
    });
  });
});

describe('a whole text', () => {
  type Json = Record<string, unknown>;
  const read = async (file: string) =>
    JSON.parse(await readFile(path.join(fixtureDirectory('chatml'), file), 'utf8')) as Json;

  /** The chatml fixture, whose texts have these tokens before and after them. */
  async function withAffixes(before: string[], after: string[], config: Json = {}) {
    const json = await read('tokenizer.json');
    const added = json.added_tokens as { id: number; content: string }[];
    const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const single = [
      ...before.map(special),
      { Sequence: { id: 'A', type_id: 0 } },
      ...after.map(special),
    ];
    const ids = Object.fromEntries(added.map(({ id, content }) => [content, id]));
    const special_tokens = Object.fromEntries(
      [...before, ...after].map((id) => [id, { id, ids: [ids[id]], tokens: [id] }]),
    );
    const post_processor = { type: 'TemplateProcessing', single, pair: single, special_tokens };
    const directory = await variant({
      'tokenizer.json': JSON.stringify({ ...json, post_processor }),
      'tokenizer_config.json': JSON.stringify({
        ...(await read('tokenizer_config.json')),
        ...config,
      }),
    });
    return { tokenizer: await Tokenizer.load(directory), ids };
  }

  it('ends as the tokenizer ends texts; a prompt does not', async () => {
    const plain = await loadFixture('chatml');
    const words = await plain.encodeText('hello world', 100);
    expect(await plain.encodeWholeText('hello world', 100)).toEqual(words);
    const { tokenizer, ids } = await withAffixes(['<|im_start|>'], ['<|im_end|>', '<|endoftext|>']);
    const [start, end, eot] = [ids['<|im_start|>'], ids['<|im_end|>'], ids['<|endoftext|>']];
    expect(await tokenizer.encodeText('hello world', 100)).toEqual([start, ...words]);
    const whole = await tokenizer.encodeWholeText('hello world', 100);
    expect(whole).toEqual([start, ...words, end, eot]);
  });

  it('heeds add_eos_token', async () => {
    const plain = await loadFixture('chatml');
    const words = await plain.encodeText('hello', 100);
    const added = await withAffixes([], [], { add_eos_token: true });
    expect(await added.tokenizer.encodeWholeText('hello', 100)).toEqual([
      ...words,
      plain.eosTokenId,
    ]);
    expect(await added.tokenizer.encodeText('hello', 100)).toEqual(words);
    const left = await withAffixes([], ['<|im_end|>'], { add_eos_token: false });
    expect(await left.tokenizer.encodeWholeText('hello', 100)).toEqual(words);
  });
});
