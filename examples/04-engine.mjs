// The engine without a framework: events, logprobs, adapters that come and go, stats.
import { createEngine } from 'lorax-js/engine';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));

const engine = createEngine({
  model: demo,
  memoryBytes: 128 * 1024 * 1024,
  onProgress: ({ stage, name, loadedBytes, totalBytes }) => {
    if (loadedBytes === totalBytes) console.log(`loaded ${stage} ${name}: ${totalBytes} bytes`);
  },
});

const info = await engine.ready();
console.log(`${info.architecture} on ${info.deviceDescription}, ${info.contextTokens} tokens`);

const { hash } = await engine.adapters.add('pirate', `${demo}/adapters/pirate`);
console.log(`pirate is ${hash.slice(0, 12)}`);

const events = engine.generate({
  messages: [{ role: 'user', content: 'Where is my order 4821?' }],
  adapter: 'pirate',
  sampling: { temperature: 0.8, topP: 0.95, seed: 7, maxOutputTokens: 12, logprobs: 2 },
  onUsage: (usage, timing) => console.log('usage', usage, `${timing.totalMs.toFixed(0)} ms`),
});
for await (const event of events) {
  if (event.type !== 'delta') continue;
  const logprobs = event.logprobs.map(({ logprob }) => logprob.toFixed(2)).join(' ');
  console.log(JSON.stringify(event.text).padEnd(16), logprobs);
}

console.log(await engine.adapters.list());
await engine.adapters.remove('pirate');
console.log((await engine.stats()).pages);
await engine.dispose();
