// LangChain's messages on their way to the engine: every form of text, calls, results, reasoning.
import {
  AIMessage,
  ChatMessage,
  FunctionMessage,
  HumanMessage,
  RemoveMessage,
  SystemMessage,
  ToolMessage,
} from '@langchain/core/messages';
import type { BaseMessage } from '@langchain/core/messages';
import { describe, expect, it } from 'vitest';
import { convertMessages } from '../../../src/langchain/convert-messages.js';

const base64 = (text: string) => Buffer.from(text).toString('base64');
const human = (...content: object[]) => new HumanMessage({ content: content as never });
const textOf = (message: BaseMessage) => convertMessages([message])[0]?.content;

describe('roles', () => {
  it('are the engine’s', () => {
    expect(
      convertMessages([
        new SystemMessage('be brief'),
        new HumanMessage('hi'),
        new AIMessage('hello'),
        new ChatMessage('and?', 'user'),
        new SystemMessage('be long'),
      ]),
    ).toEqual([
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'hello' },
      { role: 'user', content: 'and?' },
      { role: 'system', content: 'be long' },
    ]);
  });

  it.each([
    [new ChatMessage('x', 'critic'), /messages\[0\] is a message of role "critic"/],
    [new RemoveMessage({ id: '1' }), /messages\[0\] is a message of type "remove"/],
    [
      new FunctionMessage({ content: 'x', name: 'f' }),
      /messages\[0\] is a message of type "function"/,
    ],
  ])('it does not have are refused: %#', (message, error) => {
    expect(() => convertMessages([message as BaseMessage])).toThrow(error);
  });
});

describe('text', () => {
  it('may come in parts, as every provider writes them', () => {
    expect(textOf(human({ type: 'text', text: 'a ' }, { type: 'text', text: 'b' }))).toBe('a b');
    expect(textOf(human({ type: 'text', source_type: 'text', text: 'c' }))).toBe('c');
    expect(textOf(new SystemMessage({ content: [{ type: 'text', text: 'd' }] }))).toBe('d');
  });

  it('may be in a file', () => {
    const json = '{"a": "ä"}';
    expect(textOf(human({ type: 'text-plain', text: 'plain' }))).toBe('plain');
    expect(textOf(human({ type: 'file', source_type: 'text', text: 'old' }))).toBe('old');
    const named = { type: 'file', source_type: 'text', text: 'x', metadata: { filename: 'a.txt' } };
    expect(textOf(human(named))).toBe('a.txt:\nx');
    expect(textOf(human({ type: 'file', mimeType: 'application/json', data: base64(json) }))).toBe(
      json,
    );
    expect(
      textOf(
        human({
          ...{ type: 'file', source_type: 'base64', mime_type: 'text/csv; charset=utf-8' },
          data: base64('a,b'),
        }),
      ),
    ).toBe('a,b');
    expect(
      textOf(human({ type: 'file', url: `data:text/plain;base64,${base64('in a URL')}` })),
    ).toBe('in a URL');
    const bytes = new TextEncoder().encode('bytes');
    expect(textOf(human({ type: 'file', mimeType: 'text/plain', data: bytes }))).toBe('bytes');
  });

  it.each([
    ['an image', { type: 'image_url', image_url: { url: 'https://x.org/a.png' } }, /type "image"/],
    ['an image', { type: 'image', mimeType: 'image/png', data: 'AAAA' }, /type "image"/],
    ['audio', { type: 'audio', mimeType: 'audio/wav', data: 'AAAA' }, /type "audio"/],
    ['a PDF', { type: 'file', mimeType: 'application/pdf', data: 'AAAA' }, /type "file"/],
    [
      'a remote file',
      { type: 'file', mimeType: 'text/plain', url: 'https://x.org' },
      /fetches nothing/,
    ],
    ['bytes that are no text', { type: 'file', mimeType: 'text/plain', data: '/w==' }, /not UTF-8/],
  ])('is all there is: %s is refused, with its place', (_, block, error) => {
    const messages = [new HumanMessage('hi'), human({ type: 'text', text: 'see' }, block)];
    expect(() => convertMessages(messages)).toThrow(error);
    expect(() => convertMessages(messages)).toThrow(/^messages\[1\]\.content\[1\] is /);
  });
});

describe('turns with tools', () => {
  const call = { id: 'c1', name: 'add', args: { a: 1 }, type: 'tool_call' as const };

  it('hold calls and results', () => {
    expect(
      convertMessages([
        new AIMessage({ content: 'let me see', tool_calls: [call] }),
        new ToolMessage({ content: '3', tool_call_id: 'c1', name: 'add' }),
        new ToolMessage({ content: [{ type: 'text', text: '4' }], tool_call_id: 'c2' }),
      ]),
    ).toEqual([
      {
        ...{ role: 'assistant', content: 'let me see' },
        toolCalls: [{ id: 'c1', name: 'add', arguments: { a: 1 } }],
      },
      { role: 'tool', toolCallId: 'c1', name: 'add', content: '3' },
      { role: 'tool', toolCallId: 'c2', content: '4' },
    ]);
  });

  it('may say a call twice, in blocks as well', () => {
    const blocks = [
      { type: 'text', text: 'some text' },
      { type: 'tool_use', id: 'c1', name: 'add', input: { a: 1 } },
    ];
    const v1 = new AIMessage({
      contentBlocks: [{ type: 'text', text: 'some text' }, { ...call }],
    });
    for (const message of [new AIMessage({ content: blocks, tool_calls: [call] }), v1]) {
      expect(convertMessages([message])).toEqual([
        {
          ...{ role: 'assistant', content: 'some text' },
          toolCalls: [{ id: 'c1', name: 'add', arguments: { a: 1 } }],
        },
      ]);
    }
  });

  it('written by hand may lack ids', () => {
    const message = new AIMessage({ content: '', tool_calls: [{ name: 'add', args: {} }] });
    expect(convertMessages([new HumanMessage('x'), message])[1]).toMatchObject({
      toolCalls: [{ id: 'call-1-0', name: 'add' }],
    });
  });
});

describe('reasoning of earlier turns', () => {
  it('is told apart from the text, wherever a provider has it', () => {
    const expected = { role: 'assistant', content: '42', reasoning: 'hm' };
    const blocks = [
      { type: 'reasoning', reasoning: 'hm' },
      { type: 'text', text: '42' },
    ];
    const beside = { content: '42', additional_kwargs: { reasoning_content: 'hm' } };
    for (const message of [
      new AIMessage({ content: blocks }),
      new AIMessage({ contentBlocks: blocks as never }),
      new AIMessage(beside),
      new AIMessage({ ...beside, response_metadata: { model_provider: 'deepseek' } }),
      new AIMessage({
        content: [
          { type: 'thinking', thinking: 'hm' },
          { type: 'text', text: '42' },
        ],
        response_metadata: { model_provider: 'anthropic' },
      }),
    ]) {
      expect(convertMessages([message])).toEqual([expected]);
    }
  });
});
