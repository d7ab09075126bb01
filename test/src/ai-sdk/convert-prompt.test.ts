// Prompts of the AI SDK as chat messages: every kind of part, and what is refused.
import type { LanguageModelV4Prompt } from '@ai-sdk/provider';
import { UnsupportedFunctionalityError } from '@ai-sdk/provider';
import { describe, expect, it } from 'vitest';
import { convertPrompt } from '../../../src/ai-sdk/convert-prompt.js';

const file = (mediaType: string, data: unknown, filename?: string) =>
  ({ type: 'file', mediaType, data, filename }) as never;
const bytes = (text: string) => new TextEncoder().encode(text);

describe('user messages', () => {
  it('join their texts and text files, each on lines of its own', () => {
    const prompt: LanguageModelV4Prompt = [
      { role: 'system', content: 'Be brief.' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Compare:' },
          file('text/markdown', { type: 'data', data: bytes('# naïve') }, 'a.md'),
          file('application/json', { type: 'data', data: btoa('{"a":1}') }, 'b.json'),
          file('text', { type: 'text', text: 'inline' }),
          file('application/ld+json; charset=utf-8', { type: 'data', data: bytes('[]') }),
        ],
      },
    ];
    expect(convertPrompt(prompt)).toEqual({
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Compare:\na.md:\n# naïve\nb.json:\n{"a":1}\ninline\n[]' },
      ],
      warnings: [],
    });
  });

  it.each([
    ['image/png', { type: 'data', data: new Uint8Array([137]) }],
    ['audio/wav', { type: 'data', data: 'UklGRg==' }],
    ['application/pdf', { type: 'data', data: bytes('%PDF') }],
    ['text/plain', { type: 'url', url: new URL('https://example.com/a.txt') }],
    ['text/plain', { type: 'reference', reference: { openai: 'file-1' } }],
    ['text/plain', { type: 'data', data: new Uint8Array([0xff, 0xfe, 0x00]) }],
  ])('refuse %s as %j', (mediaType, data) => {
    for (const role of ['user', 'assistant'] as const) {
      const prompt = [{ role, content: [file(mediaType, data)] }];
      let error: unknown;
      try {
        convertPrompt(prompt);
      } catch (thrown) {
        error = thrown;
      }
      expect(UnsupportedFunctionalityError.isInstance(error)).toBe(true);
      expect((error as Error).message).toContain(mediaType);
      expect((error as Error).message).toContain(role);
    }
  });
});

describe('assistant and tool messages', () => {
  it('keep calls, reasoning and results, in any order of turns', () => {
    const call = (toolCallId: string, input: unknown) => ({
      ...{ type: 'tool-call' as const, toolCallId, toolName: 'f', input },
    });
    const result = (toolCallId: string, output: object) =>
      ({ type: 'tool-result', toolCallId, toolName: 'f', output }) as never;
    const { messages, warnings } = convertPrompt([
      {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'hm' },
          { type: 'text', text: 'I look.' },
          call('a', { x: 1 }),
          call('b', undefined),
          call('c', 'half a {'),
          { type: 'custom', kind: 'other.thing' },
        ],
      },
      { role: 'user', content: [{ type: 'text', text: 'hurry' }] },
      {
        role: 'tool',
        content: [
          result('b', { type: 'json', value: { y: [2] } }),
          result('a', { type: 'text', value: 'one' }),
          { type: 'tool-approval-response', approvalId: 'z', approved: true },
        ],
      },
      { role: 'tool', content: [result('c', { type: 'execution-denied' })] },
    ]);
    expect(messages).toEqual([
      {
        ...{ role: 'assistant', content: 'I look.', reasoning: 'hm' },
        toolCalls: [
          { id: 'a', name: 'f', arguments: { x: 1 } },
          { id: 'b', name: 'f', arguments: {} },
          { id: 'c', name: 'f', arguments: { input: 'half a {' } },
        ],
      },
      { role: 'user', content: 'hurry' },
      { role: 'tool', toolCallId: 'b', name: 'f', content: '{"y":[2]}' },
      { role: 'tool', toolCallId: 'a', name: 'f', content: 'one' },
      { role: 'tool', toolCallId: 'c', name: 'f', content: expect.stringContaining('not allow') },
    ]);
    expect(warnings).toEqual([{ type: 'other', message: expect.stringContaining('custom') }]);
  });

  it.each([
    [{ type: 'error-text', value: 'no' }, 'no'],
    [{ type: 'error-json', value: { code: 7 } }, '{"code":7}'],
    [{ type: 'execution-denied', reason: 'too late' }, 'too late'],
    [
      {
        type: 'content',
        value: [
          { type: 'text', text: 'see' },
          { type: 'file', mediaType: 'text/csv', data: { type: 'data', data: btoa('a,b') } },
        ],
      },
      'see\na,b',
    ],
  ])('say %j as text', (output, content) => {
    const part = { type: 'tool-result', toolCallId: 'a', toolName: 'f', output };
    const { messages } = convertPrompt([{ role: 'tool', content: [part as never] }]);
    expect(messages).toEqual([{ role: 'tool', toolCallId: 'a', name: 'f', content }]);
  });

  it('refuse images in results', () => {
    const value = [{ type: 'file', mediaType: 'image/png', data: { type: 'data', data: '' } }];
    const output = { type: 'content', value };
    const part = { type: 'tool-result', toolCallId: 'a', toolName: 'f', output };
    expect(() => convertPrompt([{ role: 'tool', content: [part as never] }])).toThrow(
      /tool results of media type image\/png/,
    );
  });
});
