// A LangGraph agent: one adapter fills in a form (the call of a tool), another writes the letter.
// The demo model was never taught tools; the grammar makes its calls valid all the same.
import { HumanMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { END, MessagesAnnotation, START, StateGraph } from '@langchain/langgraph';
import { ToolNode } from '@langchain/langgraph/prebuilt';
import { ChatLorax } from 'lorax-js/langchain';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const names = ['json', 'pirate'];

const model = new ChatLorax({
  model: demo,
  adapters: Object.fromEntries(names.map((name) => [name, `${demo}/adapters/${name}`])),
  temperature: 0,
  maxTokens: 80,
});

const trackOrder = tool(({ order }) => `Order ${order} is on its way and arrives on Tuesday.`, {
  name: 'track_order',
  description: 'Says where an order is.',
  schema: z.object({ order: z.string().regex(/^\d{4}$/) }),
});

const clerk = model.bindTools([trackOrder], {
  adapter: 'json',
  tool_choice: 'track_order',
  parallel_tool_calls: false,
});
const writer = model.withConfig({ adapter: 'pirate' });

const graph = new StateGraph(MessagesAnnotation)
  .addNode('clerk', async ({ messages }) => ({ messages: [await clerk.invoke(messages)] }))
  .addNode('tools', new ToolNode([trackOrder]))
  .addNode('writer', async ({ messages }) => ({ messages: [await writer.invoke(messages)] }))
  .addEdge(START, 'clerk')
  .addEdge('clerk', 'tools')
  .addEdge('tools', 'writer')
  .addEdge('writer', END)
  .compile();

const input = { messages: [new HumanMessage('Where is my order 4821?')] };
for await (const update of await graph.stream(input, { streamMode: 'updates' })) {
  for (const [node, { messages }] of Object.entries(update)) {
    for (const { text, tool_calls: calls = [] } of messages) {
      const called = calls.map(({ name, args }) => `${name}(${JSON.stringify(args)})`);
      console.log(`${node}: ${[text, ...called].filter(Boolean).join(' ')}`);
    }
  }
}
