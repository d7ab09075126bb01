/**
 * What the suite's parts share: ChatLorax on the real engine and the demo model, the tools and
 * prompts the list of LangChain's standard tests asks with, and small readers.
 *
 * The demo model was never taught tools, so calls are forced where the list wants one: the grammar
 * then makes them, and valid ones. The built package is what is tested.
 */
import { AIMessageChunk } from '@langchain/core/messages';
import { ChatPromptTemplate } from '@langchain/core/prompts';
import { StructuredTool } from '@langchain/core/tools';
import { ChatLorax } from 'lorax-js/langchain';
import type { ChatLoraxFields } from 'lorax-js/langchain';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { z } from 'zod/v3';
import { exactDevice } from '../../e2e/suites/test-device.js';

export const demo = fileURLToPath(new URL('../../../models/demo', import.meta.url));
export const adapterNames = readdirSync(`${demo}/adapters`).sort();

export const engineFields: ChatLoraxFields = {
  ...{ model: demo, ...exactDevice },
  adapters: Object.fromEntries(adapterNames.map((name) => [name, `${demo}/adapters/${name}`])),
};

/** All of them share one engine. */
export function makeModel(fields: ChatLoraxFields = {}): ChatLorax {
  return new ChatLorax({ ...engineFields, temperature: 0, maxTokens: 64, ...fields });
}

export const adderSchema = z
  .object({
    a: z.number().int().describe('The first summand.'),
    b: z.number().int().describe('The second summand.'),
  })
  .describe('Adds two whole numbers.');

export class AdderTool extends StructuredTool {
  name = 'adder';
  description = 'Adds two whole numbers.';
  schema = adderSchema;
  protected async _call({ a, b }: z.infer<typeof adderSchema>): Promise<string> {
    return JSON.stringify({ sum: a + b });
  }
}

/** Arguments of its calls. */
export const isAdder = { a: expect.any(Number), b: expect.any(Number) };

export const addition = ChatPromptTemplate.fromMessages([
  ['system', 'You cannot add by yourself; always use {tool}.'],
  ['human', 'How much is 1234567 + 89?'],
]);

export async function fold(stream: AsyncIterable<AIMessageChunk>): Promise<AIMessageChunk> {
  let whole: AIMessageChunk | undefined;
  for await (const chunk of stream) whole = whole === undefined ? chunk : whole.concat(chunk);
  if (whole === undefined) throw new Error('the stream was empty');
  return whole;
}
