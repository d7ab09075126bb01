/** The demo model's chat template and tokenizer against transformers' apply_chat_template. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../../../src/types.js';
import { Tokenizer } from '../../../worker/tokenizer/tokenizer.js';

interface ChatGolden {
  messages: ChatMessage[];
  addGenerationPrompt: boolean;
  text: string;
  tokens: number[];
  /** What comes out when control tokens are recognised in what a user typed. */
  naiveTokens?: number[];
}

const path = (file: string) => fileURLToPath(new URL(`../../../${file}`, import.meta.url));
const goldens = JSON.parse(
  readFileSync(path('test/golden/demo/chat.json'), 'utf8'),
) as ChatGolden[];

describe("the demo model's chats are encoded as transformers does", async () => {
  const tokenizer = await Tokenizer.load(path('models/demo'));
  it.each(goldens.map((golden) => [golden.text, golden] as const))('%j', async (_, golden) => {
    const tokens = (await tokenizer.encodeChat({ messages: golden.messages }, 4096)).ids;
    // The engine always asks for an answer; without it a prompt is the same up to there.
    const compared = golden.addGenerationPrompt ? tokens : tokens.slice(0, golden.tokens.length);
    expect(compared).toEqual(golden.tokens);
    if (golden.naiveTokens !== undefined) expect(tokens).not.toEqual(golden.naiveTokens);
  });
});
