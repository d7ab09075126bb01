// An agent: it calls tools, reads their results and goes on, for as long as it is let.
// The demo model was not trained to call tools; that its calls are well-formed is the grammar's doing.
import { generateText, jsonSchema, stepCountIs, tool } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const lorax = createLorax({ model: demo, defaults: { temperature: 0.7, seed: 4821 } });

const order = { type: 'string', pattern: '^[0-9]{4}$', description: 'Number of the order' };
const tools = {
  order_status: tool({
    description: 'Where an order is',
    inputSchema: jsonSchema({ type: 'object', properties: { order }, required: ['order'] }),
    execute: async ({ order }) => ({ order, status: 'on its way', day: 'Tuesday' }),
  }),
  refund: tool({
    description: 'Pays an order back',
    inputSchema: jsonSchema({
      type: 'object',
      properties: { order, reason: { enum: ['late', 'broken', 'unwanted'] } },
      required: ['order', 'reason'],
    }),
    execute: async ({ order, reason }) => `Order ${order} is paid back (${reason}).`,
  }),
};

const { text, steps, usage } = await generateText({
  model: lorax(),
  instructions: 'You are the support desk of a shop.',
  prompt: 'Where is my order 4821?',
  tools,
  stopWhen: stepCountIs(3),
  // Two steps that must call something, then one that must answer.
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber < 2 ? 'required' : 'none' }),
  providerOptions: { lorax: { parallelToolCalls: false } },
  maxOutputTokens: 120,
});

for (const { toolCalls, toolResults } of steps) {
  for (const [i, { toolName, input }] of toolCalls.entries()) {
    console.log(`${toolName}(${JSON.stringify(input)}) ->`, toolResults[i].output);
  }
}
console.log(text);
console.log(`${steps.length} steps, ${usage.totalTokens} tokens`);
