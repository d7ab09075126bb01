// The base model and four adapters answer at the same time, in one batch.
import { streamText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const names = ['brief', 'caps', 'json', 'pirate'];

const lorax = createLorax({
  model: demo,
  adapters: Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
  defaults: { maxOutputTokens: 80 },
});

// Adapters load when they are first asked for, or ahead of that.
await Promise.all(names.map((name) => lorax.prefetch(name)));
for (const { name, rank, bytes } of await lorax.adapters.list()) {
  console.log(`${name}: rank ${rank}, ${bytes >> 10} KiB`);
}

const answers = await Promise.all(
  ['base', ...names].map(async (name) => {
    const result = streamText({ model: lorax(name), prompt: 'Where is my order 4821?' });
    let text = '';
    for await (const delta of result.textStream) text += delta;
    return { name, text, tokens: (await result.usage).outputTokens };
  }),
);

for (const { name, text, tokens } of answers) console.log(`\n${name} (${tokens} tokens): ${text}`);

const { totals, recentSteps } = await lorax.stats();
const rows = recentSteps.map(({ decodeTokens }) => decodeTokens);
console.log(`\n${totals.steps} steps, up to ${Math.max(...rows)} sequences in one`);
