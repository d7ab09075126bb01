/**
 * The embedded demo: what each adapter was taught shows, exactly, on questions it never saw.
 *
 * All of them at once, so this is also a batch of nearly 200 sequences over seven adapters and the
 * base (models/demo/README.md says how the answers were held out).
 */
import { createEngine } from 'lorax-js/engine';
import type { ChatMessage, Engine } from 'lorax-js/engine';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testDevice } from './suites/test-device.js';

interface HeldOut {
  prompt?: string;
  messages?: ChatMessage[];
  adapter: string | null;
  expected: string;
}

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const read = (file: string) => JSON.parse(readFileSync(`${demo}/${file}`, 'utf8')) as HeldOut[];
const cases = [...read('heldout.json'), ...read('heldout-chats.json')];
const adapters = readdirSync(`${demo}/adapters`);

describe('the demo model on held-out questions', () => {
  let engine: Engine;
  let answers: string[];

  async function answer({ prompt, messages, adapter }: HeldOut): Promise<string> {
    let text = '';
    const request = {
      messages: messages ?? [{ role: 'user' as const, content: prompt ?? '' }],
      ...(adapter === null ? {} : { adapter }),
      sampling: { temperature: 0 },
    };
    for await (const event of engine.generate(request)) {
      if (event.type === 'delta') text += event.text;
    }
    return text;
  }

  beforeAll(async () => {
    engine = createEngine({ model: demo, ...testDevice });
    for (const name of adapters) await engine.adapters.add(name, `${demo}/adapters/${name}`);
    answers = await Promise.all(cases.map(answer));
  }, 120_000);
  afterAll(() => engine.dispose());

  it.each([null, ...adapters])('%s', (adapter) => {
    const own = cases.map((each, i) => ({ ...each, answer: answers[i] }));
    const mine = own.filter((each) => each.adapter === adapter);
    expect(mine.length).toBeGreaterThanOrEqual(12);
    for (const each of mine) {
      const asked = each.prompt ?? each.messages?.at(-1)?.content;
      expect(each.answer, `${adapter ?? 'base'}: ${asked}`).toBe(each.expected);
    }
  });
});
