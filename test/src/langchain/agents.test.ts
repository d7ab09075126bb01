// ChatLorax inside LangGraph and langchain's createAgent, on scripted answers.
import { AIMessage, AIMessageChunk, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { StringOutputParser } from '@langchain/core/output_parsers';
import { ChatPromptTemplate } from '@langchain/core/prompts';
import { tool } from '@langchain/core/tools';
import { END, MemorySaver, MessagesAnnotation, START, StateGraph } from '@langchain/langgraph';
import { ToolNode, toolsCondition } from '@langchain/langgraph/prebuilt';
import { createAgent } from 'langchain';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { ChatLorax } from '../../../src/langchain/chat-lorax.js';
import type { FakeAnswer } from '../../../src/testing/fake-answer.js';
import { RecordedEngine } from './recorded-engine.js';

const add = tool(({ a, b }: { a: number; b: number }) => String(a + b), {
  ...{ name: 'add', description: 'Adds two numbers.' },
  schema: z.object({ a: z.number(), b: z.number() }),
});

/** Calls the tool once, then says what came of it. */
const adder: FakeAnswer = ({ messages, tools }) => {
  const last = messages.at(-1);
  if (last?.role === 'tool') return `It is ${last.content}.`;
  return tools.length > 0 ? { toolCalls: [{ name: 'add', arguments: { a: 1, b: 2 } }] } : 'No.';
};

function setUp(base: FakeAnswer = adder) {
  const engine = new RecordedEngine({ base });
  return { engine, llm: new ChatLorax({ engine }) };
}

const kinds = (messages: { type: string }[]) => messages.map(({ type }) => type);

describe('a chain', () => {
  it('of prompt, model and parser invokes and streams', async () => {
    const { llm } = setUp(({ messages }) => `Say: ${messages.at(-1)?.content}`);
    const prompt = ChatPromptTemplate.fromMessages([
      ['system', 'Be brief.'],
      ['human', '{question}'],
    ]);
    const chain = prompt.pipe(llm).pipe(new StringOutputParser());
    expect(await chain.invoke({ question: 'why?' })).toBe('Say: why?');
    const pieces: string[] = [];
    for await (const piece of await chain.stream({ question: 'why?' })) pieces.push(piece);
    expect(pieces.filter(Boolean)).toEqual(['Say:', ' why?']);
  });

  it('with fallbacks and retries behaves as any model', async () => {
    const { llm } = setUp(new Error('out of order'));
    const other = setUp('here I am').llm;
    expect((await llm.withFallbacks([other]).invoke('x')).text).toBe('here I am');
  });
});

describe('LangGraph', () => {
  const graphOf = (llm: ChatLorax) => {
    const model = llm.bindTools([add]);
    return new StateGraph(MessagesAnnotation)
      .addNode('model', async ({ messages }) => ({ messages: [await model.invoke(messages)] }))
      .addNode('tools', new ToolNode([add]))
      .addEdge(START, 'model')
      .addConditionalEdges('model', toolsCondition, ['tools', END])
      .addEdge('tools', 'model')
      .compile({ checkpointer: new MemorySaver() });
  };

  it('calls tools in a loop and remembers the thread', async () => {
    const { llm, engine } = setUp();
    const graph = graphOf(llm);
    const config = { configurable: { thread_id: '1' } };
    const { messages } = await graph.invoke({ messages: [new HumanMessage('1 + 2?')] }, config);
    expect(kinds(messages)).toEqual(['human', 'ai', 'tool', 'ai']);
    expect(messages.at(-1)?.text).toBe('It is 3.');
    await graph.invoke({ messages: [new HumanMessage('again')] }, config);
    expect(engine.requests[2]).toMatchObject({
      messages: [
        { role: 'user', content: '1 + 2?' },
        { role: 'assistant', toolCalls: [{ name: 'add', arguments: { a: 1, b: 2 } }] },
        { role: 'tool', name: 'add', content: '3' },
        { role: 'assistant', content: 'It is 3.' },
        { role: 'user', content: 'again' },
      ],
    });
  });

  it('streams the tokens of a node that only invokes', async () => {
    const graph = graphOf(setUp().llm);
    const stream = await graph.stream(
      { messages: [new HumanMessage('1 + 2?')] },
      { configurable: { thread_id: '2' }, streamMode: 'messages' },
    );
    const chunks: AIMessageChunk[] = [];
    for await (const [message] of stream) {
      if (AIMessageChunk.isInstance(message)) chunks.push(message);
    }
    expect(chunks.some(({ tool_call_chunks }) => (tool_call_chunks ?? []).length > 0)).toBe(true);
    expect(chunks.map(({ text }) => text).filter(Boolean)).toEqual(['It', ' is', ' 3.']);
  });

  it('stops its model with itself', async () => {
    const engine = new RecordedEngine({ base: 'a b c d e f g h i j k l m n o p q r s t' }, 5);
    const graph = graphOf(new ChatLorax({ engine }));
    const controller = new AbortController();
    const run = graph.invoke(
      { messages: [new HumanMessage('x')] },
      { configurable: { thread_id: '3' }, signal: controller.signal },
    );
    setTimeout(() => controller.abort(), 20);
    await expect(run).rejects.toThrow();
    expect((await engine.stats()).totals.aborted).toBe(1);
  });
});

describe('createAgent', () => {
  it('calls its tools until the answer', async () => {
    const { llm, engine } = setUp();
    const agent = createAgent({ model: llm, tools: [add], systemPrompt: 'You can add.' });
    const { messages } = await agent.invoke({ messages: [new HumanMessage('1 + 2?')] });
    expect(kinds(messages)).toEqual(['human', 'ai', 'tool', 'ai']);
    expect((messages[2] as ToolMessage).content).toBe('3');
    expect(messages.at(-1)?.text).toBe('It is 3.');
    expect(engine.request.messages?.[0]).toEqual({ role: 'system', content: 'You can add.' });
  });

  it('gives structured output by the model’s own way, as its profile says', async () => {
    const { llm, engine } = setUp(() => '{"sum": 3}');
    const responseFormat = z.object({ sum: z.number() });
    const agent = createAgent({ model: llm, tools: [], responseFormat });
    const { structuredResponse } = await agent.invoke({ messages: [new HumanMessage('1 + 2?')] });
    expect(structuredResponse).toEqual({ sum: 3 });
    expect(engine.request.constraint).toMatchObject({
      type: 'json',
      schema: { properties: { sum: { type: 'number' } } },
    });
  });

  it('streams its model’s tokens', async () => {
    const { llm } = setUp();
    const agent = createAgent({ model: llm, tools: [add] });
    const stream = await agent.stream(
      { messages: [new HumanMessage('1 + 2?')] },
      { streamMode: 'messages' },
    );
    let text = '';
    for await (const [message] of stream) if (AIMessage.isInstance(message)) text += message.text;
    expect(text).toBe('It is 3.');
  });

  it('streams by content block where asked to (v3)', async () => {
    const { llm, engine } = setUp(({ messages }) =>
      messages.at(-1)?.role === 'tool'
        ? 'It is 3.'
        : {
            ...{ reasoning: 'let me think', text: 'Adding.' },
            toolCalls: [{ name: 'add', arguments: { a: 1, b: 2 } }],
          },
    );
    const agent = createAgent({ model: llm, tools: [add] });
    const input = { messages: [new HumanMessage('1 + 2?')] };
    const run = await agent.streamEvents(input, { version: 'v3' });
    const seen: unknown[] = [];
    for await (const message of run.messages) {
      const [reasoning, text] = [await message.reasoning, await message.text];
      seen.push({ reasoning, text });
    }
    expect(seen).toEqual([
      { reasoning: 'let me think', text: 'Adding.' },
      { reasoning: '', text: 'It is 3.' },
    ]);
    expect(engine.request.messages?.[1]).toMatchObject({
      ...{ role: 'assistant', content: 'Adding.', reasoning: 'let me think' },
      toolCalls: [{ name: 'add', arguments: { a: 1, b: 2 } }],
    });
  });
});
