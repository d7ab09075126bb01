/** Structured output with random weights under three kinds of tokenizers, and of the demo model. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll } from 'vitest';
import { FIXTURES } from '../worker/fixtures.js';
import { writeTinyModel } from '../worker/tiny-model.js';
import { describeStructured } from './suites/structured-output.js';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'lorax-structured-'));
const directory = (tokenizer: string) => path.join(folder, tokenizer);

beforeAll(async () => {
  for (const [seed, tokenizer] of FIXTURES.entries()) {
    const options = { tokenizer, seed: 100 + seed, hiddenSize: 64, contextTokens: 2048 };
    await writeTinyModel(directory(tokenizer), options);
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

for (const tokenizer of FIXTURES) {
  describeStructured(`random weights, ${tokenizer}`, () => ({
    model: directory(tokenizer),
    generations: tokenizer === 'chatml' ? 2000 : 700,
    device: exactDevice,
  }));
}

describeStructured('the demo model', () => ({
  ...{ model: demo, generations: 2000, device: exactDevice },
}));
