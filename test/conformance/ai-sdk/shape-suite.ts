// The same app code on the AI SDK's own mock and on lorax: its stream has the same shape.
import type { LanguageModelV4, LanguageModelV4StreamPart } from '@ai-sdk/provider';
import type { LoraxProvider } from 'lorax-js';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as templates from '../../chat-templates.js';
import { demoVariant, type DemoVariant } from '../../demo-variant.js';
import type { Sdk } from './sdk.js';

const USAGE = {
  inputTokens: { total: 3, noCache: 3, cacheRead: 0, cacheWrite: undefined },
  outputTokens: { total: 2, text: 2, reasoning: undefined },
  raw: { promptTokens: 3, cachedTokens: 0, outputTokens: 2 },
};

/** As the specification has it. */
function scripted(answer: LanguageModelV4StreamPart[], unified: 'stop' | 'tool-calls') {
  const parts: LanguageModelV4StreamPart[] = [
    { type: 'stream-start', warnings: [] },
    { type: 'response-metadata', id: 'mock', timestamp: new Date(), modelId: 'mock' },
    ...answer,
    {
      ...{ type: 'finish', usage: USAGE, finishReason: { unified, raw: 'eos' } },
      providerMetadata: { mock: {} },
    },
  ];
  return {
    stream: new ReadableStream<LanguageModelV4StreamPart>({
      start: (controller) => {
        for (const part of parts) controller.enqueue(part);
        controller.close();
      },
    }),
  };
}

const text: LanguageModelV4StreamPart[] = [
  { type: 'text-start', id: '0' },
  ...['It is ', 'on its way.'].map((delta) => ({ type: 'text-delta' as const, id: '0', delta })),
  { type: 'text-end', id: '0' },
];
const reasoned: LanguageModelV4StreamPart[] = [
  { type: 'reasoning-start', id: '0' },
  { type: 'reasoning-delta', id: '0', delta: 'hm' },
  { type: 'reasoning-end', id: '0' },
  { type: 'text-start', id: '1' },
  { type: 'text-delta', id: '1', delta: 'yes' },
  { type: 'text-end', id: '1' },
];
const call: LanguageModelV4StreamPart[] = [
  { type: 'tool-input-start', id: 'a', toolName: 'now' },
  { type: 'tool-input-delta', id: 'a', delta: '{}' },
  { type: 'tool-input-end', id: 'a' },
  { type: 'tool-call', toolCallId: 'a', toolName: 'now', input: '{}' },
];

export function describeShape({ ai, createLorax, MockLanguageModel }: Sdk): void {
  let variants: DemoVariant[];
  let lorax: LoraxProvider;
  let thinking: LoraxProvider;
  beforeAll(() => {
    variants = [demoVariant(templates.HERMES), demoVariant(templates.HERMES_OPEN_THINKING)];
    [lorax, thinking] = variants.map(({ directory }) => createLorax({ model: directory })) as [
      LoraxProvider,
      LoraxProvider,
    ];
  });
  afterAll(async () => {
    await Promise.all([lorax.dispose(), thinking.dispose()]);
    for (const variant of variants) variant.remove();
  });

  const mock = (...answers: LanguageModelV4StreamPart[][]) => {
    let step = 0;
    return new MockLanguageModel({
      doStream: async () => {
        const answer = answers[step++]!;
        return scripted(answer, answer === call ? 'tool-calls' : 'stop');
      },
    }) as LanguageModelV4;
  };

  /** An app's own parts, each with the names of its fields; runs of one kind count once. */
  const shapeOf = async (model: unknown, options: object = {}) => {
    const { fullStream } = ai.streamText({
      ...{ model: model as LanguageModelV4, prompt: 'Where is my order 4821?' },
      ...{ maxOutputTokens: 60, ...options },
    });
    const shape: string[] = [];
    for await (const part of fullStream) {
      const fields = Object.entries(part).filter(([, value]) => value !== undefined);
      // How long things took, and what providers say beside the answer, is theirs.
      const own = ['performance', 'providerMetadata', 'request', 'response'];
      const names = fields.map(([name]) => name).filter((name) => !own.includes(name));
      const line = `${part.type}: ${names.sort().join(' ')}`;
      if (line !== shape.at(-1)) shape.push(line);
    }
    return shape;
  };

  it('an answer', async () => {
    const shape = await shapeOf(lorax());
    expect(shape).toEqual(await shapeOf(mock(text)));
    expect(shape.map((line) => line.split(':')[0])).toContain('text-delta');
  });

  it('a call, its result, and the answer to it', async () => {
    let steps = 0;
    const options = {
      stopWhen: ai.stepCountIs(2),
      tools: {
        now: ai.tool({
          inputSchema: ai.jsonSchema({ type: 'object', additionalProperties: false }),
          execute: async () => 'noon',
        }),
      },
      prepareStep: () => ({ toolChoice: steps++ === 0 ? 'required' : 'none' }),
      providerOptions: { lorax: { parallelToolCalls: false } },
    };
    const shape = await shapeOf(lorax(), options);
    steps = 0;
    expect(shape).toEqual(await shapeOf(mock(call, text), options));
    const types = shape.map((line) => line.split(':')[0]);
    expect(types).toEqual(expect.arrayContaining(['tool-call', 'tool-result', 'text-delta']));
  });

  it('reasoning before an answer', async () => {
    const options = { providerOptions: { lorax: { choice: ['yes', 'no'] } } };
    const shape = await shapeOf(thinking(), options);
    expect(shape).toEqual(await shapeOf(mock(reasoned), options));
    expect(shape.map((line) => line.split(':')[0])).toContain('reasoning-delta');
  });

  it('an abort', async () => {
    const aborted = async (model: unknown, options: object) => {
      const controller = new AbortController();
      controller.abort();
      return shapeOf(model, { ...options, abortSignal: controller.signal });
    };
    expect(await aborted(lorax(), {})).toEqual(await aborted(mock(text), {}));
  });
}
