// LangChain's embeddings: a store that searches by meaning, as the base and as an adapter see it.
import { InMemoryStore } from '@langchain/langgraph';
import { LoraxEmbeddings } from 'lorax-js/langchain';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const adapters = { french: `${demo}/adapters/french` };
const faq = {
  order: 'Where is my order 4821?',
  hours: 'When are you open on Sunday?',
  shipping: 'Do you ship to Norway?',
};

for (const adapter of ['base', 'french']) {
  // Both share one engine, also with chat models of the same options.
  const embeddings = new LoraxEmbeddings({ model: demo, adapters, adapter });
  const { length: dims } = await embeddings.embedQuery('How long is a vector?');
  const store = new InMemoryStore({ index: { embeddings, dims, fields: ['text'] } });
  for (const [key, text] of Object.entries(faq)) await store.put(['faq'], key, { text });

  console.log(`\n${adapter}, ${dims} numbers a text`);
  for (const query of ['What about order 1234?', 'Are you open on Monday?']) {
    const [best] = await store.search(['faq'], { query, limit: 1 });
    console.log(`${query} -> ${best.key} (${best.score.toFixed(3)})`);
  }
}
