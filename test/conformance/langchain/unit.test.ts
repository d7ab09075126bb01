// LangChain's eight standard unit tests for chat models, in our own words. None needs a model.
import { HumanMessage } from '@langchain/core/messages';
import { ChatLorax } from 'lorax-js/langchain';
import { describe, expect, it } from 'vitest';
import { AdderTool, adderSchema, engineFields } from './fixtures.js';

/** What the list constructs every model with. */
const standard = {
  ...engineFields,
  ...{ temperature: 0, maxTokens: 100, timeout: 60_000, stopSequences: [], maxRetries: 2 },
};

describe('standard unit tests', () => {
  it('1 init', () => {
    expect(new ChatLorax(standard)).toBeInstanceOf(ChatLorax);
  });

  it('2 init with an API key, of which there is no use', () => {
    const model = new ChatLorax({ ...standard, apiKey: 'test' });
    expect(JSON.stringify(model)).not.toContain('api_key');
  });

  it('3 init for streaming', () => {
    expect(new ChatLorax({ ...standard, streaming: true }).streaming).toBe(true);
  });

  it('4 bindTools', () => {
    expect(new ChatLorax(standard).bindTools([new AdderTool()])).toHaveProperty('invoke');
  });

  it('5 withStructuredOutput', () => {
    expect(new ChatLorax(standard).withStructuredOutput(adderSchema)).toHaveProperty('invoke');
  });

  it('6 standard parameters for LangSmith', () => {
    expect(new ChatLorax(standard).getLsParams({})).toStrictEqual({
      ...{ ls_provider: 'lorax', ls_model_name: 'base', ls_model_type: 'chat' },
      ...{ ls_temperature: 0, ls_max_tokens: 100, ls_stop: [] },
    });
  });

  it('7 invoke with an aborted signal rejects', async () => {
    const signal = AbortSignal.abort();
    const call = new ChatLorax(standard).invoke([new HumanMessage('hello')], { signal });
    await expect(call).rejects.toThrow(/abort/i);
  });

  it('8 stream with an aborted signal gives nothing', async () => {
    const seen: unknown[] = [];
    const read = async () => {
      const signal = AbortSignal.abort();
      const stream = await new ChatLorax(standard).stream([new HumanMessage('hello')], { signal });
      for await (const chunk of stream) seen.push(chunk);
    };
    await expect(read()).rejects.toThrow(/abort/i);
    expect(seen).toEqual([]);
  });
});
