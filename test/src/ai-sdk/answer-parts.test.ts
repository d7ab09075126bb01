// Events of an answer as parts: every part that begins ends, also where the answer is cut off.
import { describe, expect, it } from 'vitest';
import { addToContent, AnswerParts } from '../../../src/ai-sdk/answer-parts.js';
import type { LoraxContent } from '../../../src/ai-sdk/model-types.js';
import type { FinishEvent, TokenEvent } from '../../../src/types.js';

type Event = Exclude<TokenEvent, { type: 'start' }>;

const finish: FinishEvent = {
  ...{ type: 'finish', reason: 'stop', rawReason: 'eos' },
  usage: { promptTokens: 1, cachedTokens: 0, outputTokens: 1 },
  timing: { queueMs: 0, timeToFirstTokenMs: 1, totalMs: 2 },
};
const text = (piece: string): Event => ({ type: 'delta', text: piece, tokenIds: [1] });
const thought = (piece: string): Event => ({ type: 'reasoning-delta', text: piece });
const call = (callId: string, input: string): Event[] => [
  { type: 'tool-call-start', callId, name: 'f' },
  ...[...input].map((delta): Event => ({ type: 'tool-call-delta', callId, delta })),
  { type: 'tool-call-end', callId, name: 'f', input },
];

function partsOf(events: Event[]) {
  const parts = new AnswerParts();
  return events.flatMap((event) => parts.of(event));
}

describe('AnswerParts', () => {
  it('begins and ends each part, with an id of its own', () => {
    const events = [text(''), thought('a'), text(''), thought('b'), text('c'), text('d')];
    expect(partsOf([...events, ...call('x', '{}'), ...call('y', '{}'), finish])).toEqual([
      { type: 'reasoning-start', id: '0' },
      { type: 'reasoning-delta', id: '0', delta: 'a' },
      { type: 'reasoning-delta', id: '0', delta: 'b' },
      { type: 'reasoning-end', id: '0' },
      { type: 'text-start', id: '1' },
      { type: 'text-delta', id: '1', delta: 'c' },
      { type: 'text-delta', id: '1', delta: 'd' },
      { type: 'text-end', id: '1' },
      ...['x', 'y'].flatMap((id) => [
        { type: 'tool-input-start', id, toolName: 'f' },
        { type: 'tool-input-delta', id, delta: '{' },
        { type: 'tool-input-delta', id, delta: '}' },
        { type: 'tool-input-end', id },
        { type: 'tool-call', toolCallId: id, toolName: 'f', input: '{}' },
      ]),
    ]);
  });

  it('ends a call that was cut off without making one of it', () => {
    const parts = partsOf([...call('x', '{"a": 1}').slice(0, 4), { ...finish, reason: 'length' }]);
    expect(parts.at(-1)).toEqual({ type: 'tool-input-end', id: 'x' });
    expect(parts.map(({ type }) => type)).not.toContain('tool-call');
  });

  it('has no parts where nothing was said', () => {
    expect(partsOf([text(''), text(''), finish])).toEqual([]);
  });

  it('are the content of an answer that is not streamed', () => {
    const content: LoraxContent[] = [];
    const events = [thought('a'), thought('b'), text('c'), text('d'), ...call('x', '{}'), finish];
    for (const part of partsOf(events)) addToContent(content, part);
    expect(content).toEqual([
      { type: 'reasoning', text: 'ab' },
      { type: 'text', text: 'cd' },
      { type: 'tool-call', toolCallId: 'x', toolName: 'f', input: '{}' },
    ]);
  });
});
