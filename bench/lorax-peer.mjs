// lorax-js as a peer of bench/run.mjs: one JSON command a line on stdin, one JSON answer a line.
//
// Everything goes the way users write it: one streamText() of the AI SDK per sequence.
//   {"case":"prefill","prompt":512,"adapters":0|1}              -> tokens of the prompt per second
//   {"case":"decode","sequences":16,"adapters":8,"tokens":96,"prompt":32}
//        -> tokens per second of all sequences together, counted from the moment each of them has
//           its first token to the end
// `adapters`: how many distinct rank-16 adapters the sequences are spread over; 0 = base only.

import { readdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { streamText } from 'ai';
import { createLorax } from '../dist/index.mjs'; // bench/ is a package of its own: no self-reference
import { answerCommands } from './answer-commands.mjs';

const { values } = parseArgs({
  options: { model: { type: 'string' }, adapters: { type: 'string' } },
});
const names = values.adapters
  ? readdirSync(values.adapters, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort()
  : [];
const lorax = createLorax({
  model: values.model,
  device: 'cpu', // as the other peers, also where there is a GPU
  adapters: Object.fromEntries(names.map((name) => [name, path.join(values.adapters, name)])),
});

let templateTokens = 0;

const { deviceDescription } = await lorax.engine.ready();
templateTokens = (await prefill({ prompt: 1, adapters: 0 })).promptTokens - 1;
await answerCommands(deviceDescription, { prefill, decode });
await lorax.dispose();

/**
 * Exactly `tokens` tokens, the chat template's among them, different for each sequence: digits, each
 * of which is a token of its own to SmolLM2's tokenizer and to the demo model's.
 */
function promptOf(tokens, sequence) {
  let state = sequence;
  return Array.from({ length: Math.max(1, tokens - templateTokens) }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 16) % 10;
  }).join('');
}

function modelFor(sequence, adapters) {
  return adapters === 0 ? lorax() : lorax(names[sequence % adapters]);
}

function stream(sequence, { prompt, adapters, tokens }) {
  return streamText({
    model: modelFor(sequence, adapters),
    prompt: promptOf(prompt, sequence),
    temperature: 0,
    maxOutputTokens: tokens,
    maxRetries: 0,
    providerOptions: { lorax: { ignoreEos: true } },
    onError: ({ error }) => {
      throw error;
    },
  });
}

async function prefill({ prompt, adapters }) {
  const startedAt = performance.now();
  const result = stream(Math.floor(Math.random() * 1e6), { prompt, adapters, tokens: 1 });
  await result.consumeStream();
  const seconds = (performance.now() - startedAt) / 1000;
  const usage = await result.usage;
  return { tokensPerSecond: usage.inputTokens / seconds, promptTokens: usage.inputTokens };
}

async function decode({ sequences, adapters, tokens, prompt }) {
  const before = new Array(sequences).fill(0); // pieces seen until every sequence had its first
  let waiting = sequences;
  let countingFrom = 0;
  const usages = await Promise.all(
    Array.from({ length: sequences }, async (_, sequence) => {
      const result = stream(sequence, { prompt, adapters, tokens });
      let pieces = 0;

      for await (const _text of result.textStream) {
        pieces += 1;
        if (pieces === 1 && --waiting === 0) countingFrom = performance.now();
        if (waiting > 0) before[sequence] = pieces;
      }
      return result.usage;
    }),
  );
  const seconds = (performance.now() - countingFrom) / 1000;
  const generated = usages.reduce((sum, usage) => sum + usage.outputTokens, 0);
  const early = before.reduce((sum, pieces) => sum + pieces, 0);
  return { tokensPerSecond: (generated - early) / seconds, generated };
}
