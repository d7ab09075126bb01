// The shape of every options object: what is refused, and what the message says.
import { describe, expect, it } from 'vitest';
import { createLorax } from '../../src/ai-sdk/provider.js';
import { createEngine } from '../../src/create-engine.js';
import { resolveEngineOptions } from '../../src/engine-options.js';
import { LoraxError } from '../../src/errors.js';
import { checkGenerateRequest } from '../../src/generate-request.js';
import { checkSampling } from '../../src/sampling-options.js';

function refusal(run: () => unknown): LoraxError {
  try {
    run();
  } catch (error) {
    if (LoraxError.isInstance(error)) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('engine options', () => {
  it('fills in the defaults', () => {
    expect(resolveEngineOptions({ model: '/m' })).toEqual({
      ...{ model: '/m', device: 'auto', precision: 'auto', memoryBytes: 0, maxBatchTokens: 0 },
      ...{
        memoryFraction: 0.9,
        hostMemoryBytes: 0,
        deterministic: false,
        maxQueued: 1024,
        onProgress: undefined,
      },
      ...{ hubModel: undefined, hub: {}, sources: [], onAdapter: undefined },
    });
  });

  it.each([
    [undefined, 'options'],
    [null, 'options'],
    ['./model', 'options'],
    [[], 'options'],
    [{}, 'options.model'],
    [{ model: '' }, 'options.model'],
    [{ model: 7 }, 'options.model'],
    [{ model: 'a\u0000b' }, 'options.model'],
    [{ model: 'm', device: 'gpu' }, 'options.device'],
    [{ model: 'm', precision: 16 }, 'options.precision'],
    [{ model: 'm', memoryBytes: -1 }, 'options.memoryBytes'],
    [{ model: 'm', memoryBytes: Number.NaN }, 'options.memoryBytes'],
    [{ model: 'm', memoryBytes: 1.5 }, 'options.memoryBytes'],
    [{ model: 'm', memoryBytes: '1e9' }, 'options.memoryBytes'],
    [{ model: 'm', memoryBytes: null }, 'options.memoryBytes'],
    [{ model: 'm', memoryFraction: 0 }, 'options.memoryFraction'],
    [{ model: 'm', memoryFraction: 1.1 }, 'options.memoryFraction'],
    [{ model: 'm', memoryFraction: '50%' }, 'options.memoryFraction'],
    [{ model: 'm', memoryFraction: 0.5, memoryBytes: 1e9 }, 'options.memoryFraction'],
    [{ model: 'm', memoryFraction: 0.5, device: 'cpu' }, 'options.memoryFraction'],
    [{ model: 'm', precision: 'float32', device: 'cuda' }, 'options.precision'],
    [{ model: 'm', hub: 'https://huggingface.co' }, 'options.hub'],
    [{ model: 'm', hub: { token: true } }, 'options.hub.token'],
    [{ model: 'm', hub: { endpoint: 'huggingface.co' } }, 'options.hub.endpoint'],
    [{ model: 'm', hub: { offline: 1 } }, 'options.hub.offline'],
    [{ model: 'm', hub: { cacheDirectory: '' } }, 'options.hub.cacheDirectory'],
    [{ model: 'm', deterministic: 1 }, 'options.deterministic'],
    [{ model: 'm', maxBatchTokens: 0 }, 'options.maxBatchTokens'],
    [{ model: 'm', maxQueued: Number.POSITIVE_INFINITY }, 'options.maxQueued'],
    [{ model: 'm', onProgress: true }, 'options.onProgress'],
  ])('createEngine(%j) names %s', (options, field) => {
    const error = refusal(() => createEngine(options as never));
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(field);
    expect(error.message).toContain(field);
  });

  it.each([
    ['maxBatchToken', 'maxBatchTokens'],
    ['Device', 'device'],
    ['memory_bytes', 'memoryBytes'],
  ])('asks whether %s was meant to be %s', (key, near) => {
    const error = refusal(() => createEngine({ model: 'm', [key]: 1 }));
    expect(error.message).toBe(`options has no option "${key}". Did you mean "${near}"?`);
  });

  it('lists the known keys when none is near', () => {
    const error = refusal(() => createEngine({ model: 'm', temperature: 1 } as never));
    expect(error.message).toContain('Known: model, device');
  });
});

describe('chat requests', () => {
  const user = { role: 'user', content: 'x' } as const;
  const call = { id: 'a', name: 'f', arguments: { x: 1 } };
  const tool = { name: 'f', parameters: { type: 'object' } };

  it('keep what a chat template and the tools need, and nothing else', () => {
    const messages = [
      user,
      { role: 'assistant' as const, content: '', toolCalls: [call], reasoning: 'hm' },
      { role: 'tool' as const, toolCallId: 'a', content: '7' },
    ];
    expect(checkGenerateRequest({ prompt: 'x', cacheScope: 'a', priority: -2 })).toEqual({
      ...{ prompt: { kind: 'text', text: 'x' }, adapters: [], sampling: {} },
      ...{ cacheScope: 'a', priority: -2 },
    });
    expect(checkGenerateRequest({ messages, tools: [tool], reasoning: false })).toEqual({
      prompt: { kind: 'messages', messages },
      ...{ adapters: [], sampling: {}, reasoning: false },
      tools: { definitions: [tool], choice: 'auto', parallel: true },
    });
  });

  it('have no tools where nothing may be called', () => {
    const none = { messages: [user], tools: [tool], toolChoice: 'none' as const };
    expect(checkGenerateRequest(none)).not.toHaveProperty('tools');
    expect(checkGenerateRequest({ messages: [user], tools: [] })).not.toHaveProperty('tools');
  });

  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  it.each([
    [{ messages: ['hi'] }, 'request.messages[0]'],
    [{ messages: [{ content: 'x' }] }, 'request.messages[0].role'],
    [{ messages: [{ ...user, toolCalls: [] }] }, 'request.messages[0].toolCalls'],
    [{ messages: [{ role: 'assistant', content: null }] }, 'request.messages[0].content'],
    [{ messages: [{ role: 'tool', content: 'x' }] }, 'request.messages[0].toolCallId'],
    [
      { messages: [{ role: 'assistant', content: '', toolCalls: [{ ...call, arguments: '{}' }] }] },
      'request.messages[0].toolCalls[0].arguments',
    ],
    [{ messages: [user], tools: [{ ...tool, name: 'no spaces' }] }, 'request.tools[0].name'],
    [{ messages: [user], tools: [{ ...tool, parameters: cyclic }] }, 'request.tools[0].parameters'],
    [{ messages: [user], tools: [{ name: 'f' }] }, 'request.tools[0].parameters'],
    [{ messages: [user], tools: [tool, tool] }, 'request.tools'],
    [{ messages: [user], tools: [tool], toolChoice: 'any' }, 'request.toolChoice'],
    [{ messages: [user], tools: [tool], toolChoice: { name: 'g' } }, 'request.toolChoice.name'],
    [{ messages: [user], toolChoice: 'required' }, 'request.toolChoice'],
    [{ messages: [user], parallelToolCalls: 1 }, 'request.parallelToolCalls'],
    [{ messages: [user], reasoning: 'high' }, 'request.reasoning'],
    [{ prompt: 'x', tools: [tool] }, 'request.tools'],
    [{ promptTokens: [1], reasoning: true }, 'request.reasoning'],
    [{ promptTokens: [1], cacheScope: '' }, 'request.cacheScope'],
    [{ promptTokens: [1], priority: 1.5 }, 'request.priority'],
    [{ promptTokens: [1], priority: 1001 }, 'request.priority'],
  ])('request %# is refused for %s', (request, field) => {
    const error = refusal(() => checkGenerateRequest(request as never));
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(field);
    expect(error.message).toContain(field.slice(0, field.lastIndexOf('.')));
  });
});

describe('provider options', () => {
  it.each([
    [{ model: 'm', adapters: [] }, 'options.adapters'],
    [{ model: 'm', adapters: { base: './x' } }, 'options.adapters["base"]'],
    [{ model: 'm', adapters: { '../x': './x' } }, 'options.adapters["../x"]'],
    [{ model: 'm', adapters: { a: 7 } }, 'options.adapters["a"]'],
    [{ model: 'm', adapters: { a: { dir: './x' } } }, 'options.adapters["a"].dir'],
    [{ model: 'm', adapters: { a: {} } }, 'options.adapters["a"]'],
    [{ model: 'm', defaults: { topP: 0 } }, 'options.defaults.topP'],
    [{ model: 'm', name: '' }, 'options.name'],
    [{ model: 'm', adaptors: {} }, 'options.adaptors'],
  ])('createLorax(%j) names %s', (options, field) => {
    const error = refusal(() => createLorax(options as never));
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(field);
  });
});

describe('sampling', () => {
  it('keeps what is set and nothing else', () => {
    const given = { temperature: 0, topP: 1, stop: ['a'], logitBias: { 7: -100 }, seed: undefined };
    expect(checkSampling(given)).toEqual({
      ...{ temperature: 0, topP: 1, stop: ['a'], logitBias: { 7: -100 } },
    });
  });

  const everyNumber = [
    ...['maxOutputTokens', 'temperature', 'topK', 'topP', 'minP', 'repetitionPenalty'],
    ...['frequencyPenalty', 'presencePenalty', 'seed', 'logprobs'],
  ];
  const wrongNumbers = [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, '1', null];
  it.each(everyNumber)('%s is a number, and no NaN', (key) => {
    for (const value of [...wrongNumbers, true, {}, 1n]) {
      const error = refusal(() => checkSampling({ [key]: value }));
      expect(error.data.field).toBe(`sampling.${key}`);
    }
  });

  it.each([
    [{ maxOutputTokens: 0 }, 'maxOutputTokens'],
    [{ maxOutputTokens: 1.5 }, 'maxOutputTokens'],
    [{ temperature: -0.1 }, 'temperature'],
    [{ topK: -1 }, 'topK'],
    [{ topK: 2.5 }, 'topK'],
    [{ topP: 0 }, 'topP'],
    [{ topP: 1.01 }, 'topP'],
    [{ minP: -0.01 }, 'minP'],
    [{ minP: 1.01 }, 'minP'],
    [{ repetitionPenalty: 0 }, 'repetitionPenalty'],
    [{ frequencyPenalty: 2.1 }, 'frequencyPenalty'],
    [{ presencePenalty: -2.1 }, 'presencePenalty'],
    [{ seed: -1 }, 'seed'],
    [{ seed: 2 ** 53 }, 'seed'],
    [{ logprobs: 21 }, 'logprobs'],
    [{ stop: 'END' }, 'stop'],
    [{ stop: [''] }, 'stop[0]'],
    [{ stop: ['a', 7] }, 'stop[1]'],
    [{ stopTokenIds: [-1] }, 'stopTokenIds[0]'],
    [{ stopTokenIds: [1, undefined] }, 'stopTokenIds[1]'],
    [{ ignoreEos: 1 }, 'ignoreEos'],
    [{ logitBias: { x: 1 } }, 'logitBias.x'],
    [{ logitBias: { '-1': 1 } }, 'logitBias.-1'],
    [{ logitBias: { 5: 101 } }, 'logitBias.5'],
    [{ logitBias: { 5: Number.NaN } }, 'logitBias.5'],
    [{ logitBias: [1] }, 'logitBias'],
    [{ top_p: 0.5 }, 'top_p'],
  ])('%j names %s', (sampling, field) => {
    const error = refusal(() => checkSampling(sampling));
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(`sampling.${field}`);
  });
});

describe('requests', () => {
  const messages = [{ role: 'user', content: 'hi' }];
  it.each([
    [{}, 'request.messages'],
    [{ messages, prompt: 'x' }, 'request.messages'],
    [{ messages: [] }, 'request.messages'],
    [{ messages: [{ role: 'robot', content: 'x' }] }, 'request.messages[0].role'],
    [{ messages: [{ content: 'x' }] }, 'request.messages[0].role'],
    [{ messages: [{ role: 'user', content: [] }] }, 'request.messages[0].content'],
    [{ messages: [{ role: 'user', content: 'x', name: 'y' }] }, 'request.messages[0].name'],
    [{ prompt: 7 }, 'request.prompt'],
    [{ promptTokens: [] }, 'request.promptTokens'],
    [{ promptTokens: [1.5] }, 'request.promptTokens[0]'],
    [{ messages, adapter: 7 }, 'request.adapter'],
    [{ messages, signal: {} }, 'request.signal'],
    [{ messages, onUsage: 1 }, 'request.onUsage'],
    [{ messages, adaptor: 'x' }, 'request.adaptor'],
  ])('%j names %s', (request, field) => {
    expect(refusal(() => checkGenerateRequest(request as never)).data.field).toBe(field);
  });

  it('takes typed arrays of tokens', () => {
    const request = checkGenerateRequest({ promptTokens: Int32Array.of(1, 2) } as never);
    expect(request.prompt).toEqual({ kind: 'tokens', tokens: [1, 2] });
  });
});

describe('constraints', () => {
  const check = (constraint: unknown) =>
    checkGenerateRequest({ prompt: 'x', constraint } as never).constraint;

  it('travel as plain data, a schema as its JSON text', () => {
    expect(check(undefined)).toBeUndefined();
    expect(check({ type: 'json' })).toEqual({ type: 'json', schema: '{"type":"object"}' });
    const schema = { type: 'object', properties: { b: {}, a: {} }, undefined: undefined };
    expect(check({ type: 'json', schema })).toEqual({
      type: 'json',
      schema: '{"type":"object","properties":{"b":{},"a":{}}}',
    });
    expect(check({ type: 'json', schema: true })).toEqual({ type: 'json', schema: 'true' });
    for (const constraint of [
      { type: 'regex', pattern: 'a+' },
      { type: 'choice', choices: ['a', 'b'] },
      { type: 'grammar', grammar: 'root ::= "a"' },
    ]) {
      expect(check(constraint)).toEqual(constraint);
    }
  });

  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  it.each<[unknown, string]>([
    [null, 'request.constraint'],
    ['json', 'request.constraint'],
    [{}, 'request.constraint.type'],
    [{ type: 'yaml' }, 'request.constraint.type'],
    [{ type: 'json', pattern: 'a' }, 'request.constraint.pattern'],
    [{ type: 'json', schema: [] }, 'request.constraint.schema'],
    [{ type: 'json', schema: 'x' }, 'request.constraint.schema'],
    [{ type: 'json', schema: cyclic }, 'request.constraint.schema'],
    [{ type: 'json', schema: { a: 1n } }, 'request.constraint.schema'],
    [{ type: 'json', schema: { title: 'x'.repeat(2 ** 20) } }, 'request.constraint.schema'],
    [{ type: 'regex' }, 'request.constraint.pattern'],
    [{ type: 'regex', pattern: '' }, 'request.constraint.pattern'],
    [{ type: 'regex', pattern: 'a', choices: [] }, 'request.constraint.choices'],
    [{ type: 'choice' }, 'request.constraint.choices'],
    [{ type: 'choice', choices: ['a', 3] }, 'request.constraint.choices[1]'],
    [{ type: 'choice', choices: ['\ud83d'] }, 'request.constraint.choices[0]'],
    [{ type: 'grammar', grammar: 7 }, 'request.constraint.grammar'],
  ])('%# is refused', (constraint, field) => {
    const error = refusal(() => check(constraint));
    expect([error.code, error.data.field]).toEqual(['INVALID_OPTIONS', field]);
    expect(error.message).toContain('request.constraint');
  });
});
