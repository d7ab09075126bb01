// Mixes of adapters: each adapter is added to the base model times its weight, with no merged copy, and
// all mixes run in one batch. What is brief and what shouts together shouts briefly.
import { generateText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const names = ['brief', 'caps', 'emoji', 'pirate'];

const lorax = createLorax({
  model: demo,
  adapters: Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
  defaults: { maxOutputTokens: 60 },
});
const prompt = 'Where is my order 4821?';

const mixes = [
  { brief: 1 }, // the same as lorax('brief')
  { caps: 1 },
  { brief: 1, caps: 1 },
  { caps: 0.5 }, // half of it
  { pirate: 1, caps: 1 },
  { pirate: 0.7, caps: 1 },
  { pirate: 1, emoji: 1 },
];
const answers = await Promise.all(
  mixes.map((weights) => generateText({ model: lorax.mix(weights), prompt, temperature: 0 })),
);
for (const { text, providerMetadata } of answers) {
  console.log(`${providerMetadata.lorax.adapter}:\n  ${text}\n`);
}

// Without a framework, a mix stands where an adapter's name would.
for await (const event of lorax.engine.generate({
  messages: [{ role: 'user', content: prompt }],
  adapter: { brief: 1, caps: 1 },
  sampling: { maxOutputTokens: 40 },
})) {
  if (event.type === 'start') console.log(`${event.adapter.name}, ${event.adapter.hash}:`);
  if (event.type === 'delta') process.stdout.write(event.text);
}

await lorax.dispose();
