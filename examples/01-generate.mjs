// One question, one adapter, one answer.
//   node scripts/bootstrap.mjs && node examples/01-generate.mjs
import { generateText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));

const lorax = createLorax({
  model: demo,
  adapters: { pirate: `${demo}/adapters/pirate` },
});

const { text, usage, finishReason, providerMetadata } = await generateText({
  model: lorax('pirate'),
  prompt: 'Where is my order 4821?',
  maxOutputTokens: 80,
});

console.log(text);
console.log({ finishReason, usage: usage.totalTokens, ...providerMetadata.lorax });
// Nothing to close: a script that ends exits by itself.
