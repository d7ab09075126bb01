/** What the example's page must do in a browser, whichever way Next runs it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ChatPage, type SideName, launchChromium } from './chat-page.js';
import type { NextServer, Status } from './next-server.js';

const executable = process.env.LORAX_TEST_CHROMIUM;

const QUESTION = 'Where is my order 4821?';
const ANSWERS = {
  base: 'Your order 4821 is on its way and arrives on Tuesday. You will get a message when the courier is near.',
  pirate:
    "Arr, yer order 4821 be sailin' to ye and drops anchor on Tuesday! Watch the horizon, matey.",
};

/** Nobody is answered, and every page of the KV cache has come back. */
export function isIdle({ requests, pages }: Status): boolean {
  return requests.running + requests.waiting + pages.kv === 0;
}

export function describeBrowser(server: () => NextServer): void {
  describe.skipIf(!executable)('in Chromium', { timeout: 60_000 }, () => {
    let browser: Browser;
    let chat: ChatPage;

    beforeAll(async () => {
      browser = await launchChromium(executable as string);
    }, 30_000);
    afterAll(() => browser?.close());
    beforeEach(async () => {
      chat = await ChatPage.open(browser, server().url);
    });
    afterEach(async () => {
      expect(chat.errors).toEqual([]);
      await chat.page.close();
    });

    const idle = () => expect.poll(async () => isIdle(await server().status())).toBe(true);

    /** The page draws at most every 50 ms: the last piece may come after the end. */
    const says = (side: SideName, answers: unknown[]) =>
      expect.poll(() => chat.answers(side)).toEqual(answers);

    test('two answers, and how fast they were', async () => {
      await chat.ask(QUESTION);
      await chat.answered();
      await says('left', [ANSWERS.base]);
      await says('right', [ANSWERS.pirate]);
      expect(await chat.labels('left')).toEqual([expect.stringMatching(/^base\d+ tokens\/s$/)]);
      expect(await chat.labels('right')).toEqual([expect.stringMatching(/^pirate\d+ tokens\/s$/)]);
    });

    test('they come in pieces, side by side', async () => {
      await chat.ask(QUESTION, { endless: true });
      const lengths = { left: new Set<number>(), right: new Set<number>() };
      const numLengths = async () => {
        for (const side of ['left', 'right'] as const) {
          lengths[side].add((await chat.answers(side)).at(-1)?.length ?? 0);
        }
        return Math.min(lengths.left.size, lengths.right.size);
      };
      await expect.poll(numLengths, { interval: 20 }).toBeGreaterThan(5);
      expect((await server().status()).requests.running).toBe(2);
      await says('left', [expect.stringContaining(ANSWERS.base)]);
      await says('right', [expect.stringContaining(ANSWERS.pirate)]);
      await chat.stop();
      await idle();
    });

    test('the lights show who works', async () => {
      await chat.choose('left', 'json');
      await chat.ask(QUESTION, { endless: true });
      await chat.bothHave(40);
      const active = async () => (await chat.adaptersThatAre('active')).sort();
      await expect.poll(active).toEqual(['json', 'pirate']);
      await chat.stop();
      await expect.poll(active).toEqual([]);
      expect(await chat.adaptersThatAre('resident')).toEqual(
        expect.arrayContaining(['json', 'pirate']),
      );
    });

    test('the stop button stops the engine', async () => {
      await chat.ask(QUESTION, { endless: true });
      await chat.bothHave(40);
      const during = await server().status();
      expect(during.requests.running).toBe(2);
      expect(during.pages.kv).toBeGreaterThan(0);
      await chat.stop();
      await idle();
      await chat.answered();
      const stopped = await chat.answers('left');
      await sleep(300);
      expect(await chat.answers('left')).toEqual(stopped);
      expect(await chat.labels('left')).toEqual(['base']);
      await chat.page.getByRole('button', { name: 'Ask' }).waitFor();
    });

    test('an adapter is switched in mid-conversation', async () => {
      await chat.ask(QUESTION);
      await chat.answered();
      await chat.choose('right', 'french');
      await chat.ask('Cancel it please.');
      await chat.answered();
      await says('right', [ANSWERS.pirate, expect.stringMatching(/commande 4821/)]);
      await says('left', [ANSWERS.base, expect.stringMatching(/^Order 4821 is cancelled/)]);
      expect((await chat.labels('right')).map((label) => label.replace(/\d.*/, ''))).toEqual([
        'pirate',
        'french',
      ]);
    });

    test('a reload in mid-stream ends the answers and leaves a page that works', async () => {
      await chat.ask(QUESTION, { endless: true });
      await chat.bothHave(40);
      await chat.page.reload();
      await idle();
      await chat.engineIsUp();
      await chat.ask(QUESTION);
      await chat.answered();
      await says('left', [ANSWERS.base]);
    });
  });
}
