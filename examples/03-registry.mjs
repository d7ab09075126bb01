// Adapters beside other providers: ids such as "lorax:pirate", and names of one's own.
import { createProviderRegistry, customProvider, generateText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));

const lorax = createLorax({
  model: demo,
  adapters: { pirate: `${demo}/adapters/pirate`, json: `${demo}/adapters/json` },
  defaults: { maxOutputTokens: 80 },
});

const registry = createProviderRegistry({
  lorax,
  support: customProvider({ languageModels: { machine: lorax('json'), person: lorax() } }),
});

for (const id of ['lorax:base', 'lorax:pirate', 'support:machine', 'support:person']) {
  const model = registry.languageModel(id);
  const { text } = await generateText({ model, prompt: 'Where is my order 4821?' });
  console.log(`${id}: ${text}`);
}

// An unknown name is an error of the call, so names may come from an app's clients.
try {
  await generateText({ model: registry.languageModel('lorax:../../etc'), prompt: 'hi' });
} catch (error) {
  console.log(`${error.name}: ${error.message}`);
}
