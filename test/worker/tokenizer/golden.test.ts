// Prompts as transformers tokenizes them (fixtures/make_fixtures.py), for three kinds of tokenizer.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../../../src/types.js';
import { Tokenizer } from '../../../worker/tokenizer/tokenizer.js';

interface Goldens {
  chats: { messages: ChatMessage[]; ids: number[] }[];
  texts: { text: string; ids: number[] }[];
}

const CONTEXT = 100_000;

describe.each(['chatml', 'llama3', 'sentencepiece'])('%s', (name) => {
  const directory = fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url));
  const goldens = JSON.parse(readFileSync(`${directory}/goldens.json`, 'utf8')) as Goldens;

  it('equals apply_chat_template', async () => {
    const tokenizer = await Tokenizer.load(directory);
    expect(goldens.chats.length).toBeGreaterThanOrEqual(40);
    for (const { messages, ids } of goldens.chats) {
      const { ids: ours } = await tokenizer.encodeChat({ messages }, CONTEXT);
      expect(ours, JSON.stringify(messages)).toEqual(ids);
    }
  });

  it('equals the call with a text', async () => {
    const tokenizer = await Tokenizer.load(directory);
    expect(goldens.texts.length).toBeGreaterThanOrEqual(40);
    for (const { text, ids } of goldens.texts) {
      expect(await tokenizer.encodeText(text, CONTEXT), JSON.stringify(text)).toEqual(ids);
      expect(await tokenizer.encodeWholeText(text, CONTEXT)).toEqual(ids);
    }
  });
});
