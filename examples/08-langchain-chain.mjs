// A LangChain chain: one prompt, the base and two adapters, streamed and in batches.
import { StringOutputParser } from '@langchain/core/output_parsers';
import { ChatPromptTemplate } from '@langchain/core/prompts';
import { RunnableParallel } from '@langchain/core/runnables';
import { ChatLorax } from 'lorax-js/langchain';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const names = ['pirate', 'french'];

const model = new ChatLorax({
  model: demo,
  adapters: Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
  temperature: 0,
  maxTokens: 80,
});

const prompt = ChatPromptTemplate.fromMessages([
  ['system', 'You are the support desk of a shop.'],
  ['human', 'Where is my order {number}?'],
]);
/** The same chain with another adapter: all of them share one engine. */
const chainOf = (adapter) =>
  prompt.pipe(model.withConfig({ adapter })).pipe(new StringOutputParser());

for await (const piece of await chainOf('pirate').stream({ number: '4821' })) {
  process.stdout.write(piece);
}
console.log('\n');

// The three answer in one batch of the engine.
const desk = RunnableParallel.from(
  Object.fromEntries(['base', ...names].map((adapter) => [adapter, chainOf(adapter)])),
);
console.log(await desk.invoke({ number: '1234' }));

// So do the inputs of batch().
const numbers = ['1111', '2222', '3333'].map((number) => ({ number }));
for (const answer of await chainOf('base').batch(numbers)) console.log(answer);

const message = await model.invoke('Do you ship to Norway?', { adapter: 'french' });
const { adapter, adapter_hash, finish_reason } = message.response_metadata;
console.log({ adapter, hash: adapter_hash.slice(0, 12), finish_reason, ...message.usage_metadata });
