// Embeddings: the AI SDK's embedMany, and LangChain's embeddings in a store that searches by meaning.
import { InMemoryStore } from '@langchain/langgraph';
import { cosineSimilarity, embed, embedMany } from 'ai';
import { createLorax } from 'lorax-js';
import { LoraxEmbeddings } from 'lorax-js/langchain';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const adapters = { french: `${demo}/adapters/french` };
const faq = {
  order: 'Where is my order 4821?',
  hours: 'When are you open on Sunday?',
  shipping: 'Do you ship to Norway?',
};
const question = 'Where is order 1234?';

const lorax = createLorax({ model: demo, adapters });
const { embeddings, usage } = await embedMany({
  model: lorax.embeddingModel('base'),
  values: Object.values(faq),
});
const { embedding } = await embed({ model: lorax.embeddingModel('base'), value: question });
console.log(`${embeddings[0].length} numbers a text, ${usage.tokens} tokens`);
Object.keys(faq).forEach((key, index) => {
  console.log(key.padEnd(10), cosineSimilarity(embedding, embeddings[index]).toFixed(3));
});

// The same engine, with an adapter: what it changed in the model shows in the vectors.
const store = new InMemoryStore({
  index: {
    embeddings: new LoraxEmbeddings({ model: demo, adapters, adapter: 'french' }),
    dims: embedding.length,
    fields: ['text'],
  },
});
for (const [key, text] of Object.entries(faq)) await store.put(['faq'], key, { text });
const [best] = await store.search(['faq'], { query: question, limit: 1 });
console.log(`nearest with french: ${best.key} (${best.score.toFixed(3)})`);
