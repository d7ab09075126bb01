// Search by meaning: texts and a question become vectors, and the nearest texts win.
import { cosineSimilarity, embed, embedMany } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const lorax = createLorax({ model: demo, adapters: { json: `${demo}/adapters/json` } });

const texts = [
  'Your order is on its way and arrives on Friday.',
  'You can return the yoga mat within thirty days.',
  'On Saturday we are open from 10 to 16.',
  'The canvas backpack costs 49 euros.',
];
const question = 'What are your opening hours on Saturday?';

// An adapter sees texts with its own eyes; a model trained for search would rank better than this one.
for (const name of ['base', 'json']) {
  const model = lorax.embeddingModel(name);
  const { embeddings, usage } = await embedMany({ model, values: texts });
  const { embedding } = await embed({ model, value: question });
  console.log(`\n${name}: ${usage.tokens} tokens, ${embedding.length} numbers each`);
  embeddings
    .map((each, i) => ({ text: texts[i], similarity: cosineSimilarity(each, embedding) }))
    .sort((a, b) => b.similarity - a.similarity)
    .forEach(({ text, similarity }) => console.log(similarity.toFixed(3), text));
}

// The engine underneath gives Float32Arrays, of any pooling.
const { embeddings } = await lorax.engine.embed({
  input: texts,
  pooling: 'last',
  normalize: false,
});
console.log(`\nlast token: ${embeddings.map((each) => Math.hypot(...each).toFixed(1)).join(', ')}`);

await lorax.dispose();
