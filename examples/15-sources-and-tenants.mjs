// Adapters from where they are, found by name; versions of one; tenants that see their own.
import { generateText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));

const lorax = createLorax({
  model: demo, // or 'org/name@revision' of the Hugging Face hub
  adapters: {
    pirate: `${demo}/adapters/pirate`,
    // Also: 'hf://org/name@revision', { hub: 'org/name', token }, 'https://example.com/loras/x',
    // 's3://bucket/loras/x', { s3: 's3://bucket/loras/x', endpoint: 'http://minio:9000' }.
  },
  // Names that are not registered are looked for here, in this order, and nowhere else.
  sources: [
    { folder: `${demo}/adapters` },
    // { hub: 'my-org/*' }, { s3: 's3://bucket/loras/*' },
    // What a function finds belongs to the tenant it was asked for.
    (name, { tenant }) => (name === 'voice' && voices[tenant]) || undefined,
  ],
  defaults: { maxOutputTokens: 40, temperature: 0 },
  onAdapter: ({ name, tenant, state }) =>
    console.log(`  (${tenant === undefined ? '' : `${tenant}: `}${name} is ${state})`),
});

const voices = { acme: `${demo}/adapters/pirate`, globex: `${demo}/adapters/german` };
const ask = async (model) => (await generateText({ model, prompt: 'Where is my order?' })).text;

await lorax.prefetch('json'); // ahead of the first request
console.log('json:', await ask(lorax('json')));

for (const tenant of Object.keys(voices)) {
  const mine = lorax.tenant(tenant);
  console.log(`${tenant}'s voice:`, await ask(mine('voice')));
  console.log((await mine.stats()).totals);
}

// A name points to a content. Requests that run finish on what they began with.
const first = await lorax.adapters.add('house-style', `${demo}/adapters/brief`);
await lorax.adapters.add('house-style', `${demo}/adapters/caps`);
console.log('new:', await ask(lorax('house-style')));
console.log('old:', await ask(lorax(`house-style@${first.hash.slice(0, 12)}`)));
await lorax.adapters.add('house-style', { hash: first.hash }); // back
console.log('back:', await ask(lorax('house-style')));
console.log(await lorax.adapters.remove('house-style'));

for (const name of ['unheard-of', '../adapters/pirate']) {
  await ask(lorax(name)).catch((error) => console.log(`${error.name}: ${error.message}`));
}
await lorax.dispose();
