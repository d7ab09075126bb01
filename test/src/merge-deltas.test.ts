/** What piles up in the port: fewer deltas, the same text and order. */
import { describe, expect, it } from 'vitest';

import { mergeDeltas } from '../../src/merge-deltas.js';
import type { WorkerEvent } from '../../worker/protocol.js';

const delta = (id: number, text: string, ...tokenIds: number[]): WorkerEvent => ({
  type: 'delta',
  id,
  text,
  tokenIds,
});
const start = (id: number): WorkerEvent => ({
  type: 'start',
  id,
  adapter: null,
  promptTokens: 1,
  cachedTokens: 0,
  queueMs: 0,
});

describe('mergeDeltas', () => {
  it('leaves a single message as it is', () => {
    const message = [delta(1, 'a', 1), delta(2, 'b', 2)];
    expect(mergeDeltas([message])).toBe(message);
  });

  it("joins a request's neighbouring deltas, whatever others' lie between", () => {
    const merged = mergeDeltas([
      [start(1), delta(1, 'a', 1), delta(2, 'x', 7)],
      [delta(2, 'y', 8), delta(1, 'b', 2, 3)],
      [delta(1, 'c', 4)],
    ]);
    expect(merged).toEqual([start(1), delta(1, 'abc', 1, 2, 3, 4), delta(2, 'xy', 7, 8)]);
  });

  it('keeps log probabilities beside their tokens', () => {
    const logprob = (tokenId: number) => ({ tokenId, logprob: -1, top: [] });
    const first: WorkerEvent = {
      type: 'delta',
      id: 1,
      text: 'a',
      tokenIds: [1],
      logprobs: [logprob(1)],
    };
    const second: WorkerEvent = {
      type: 'delta',
      id: 1,
      text: 'b',
      tokenIds: [2],
      logprobs: [logprob(2)],
    };
    expect(mergeDeltas([[first], [second]])).toEqual([
      { type: 'delta', id: 1, text: 'ab', tokenIds: [1, 2], logprobs: [logprob(1), logprob(2)] },
    ]);
  });

  it('does not reach across an end: an id may begin anew behind it', () => {
    const failed: WorkerEvent = {
      type: 'aborted',
      id: 1,
      usage: { promptTokens: 1, cachedTokens: 0, outputTokens: 1 },
      timing: { queueMs: 0, timeToFirstTokenMs: 1, totalMs: 2 },
    };
    const merged = mergeDeltas([[delta(1, 'a', 1)], [failed], [delta(1, 'b', 2)]]);
    expect(merged).toEqual([delta(1, 'a', 1), failed, delta(1, 'b', 2)]);
  });

  it('joins reasoning and arguments, across the tokens beside them', () => {
    const think = (text: string): WorkerEvent => ({ type: 'reasoning-delta', id: 1, text });
    const call = { callId: 'c', name: 'f' };
    const args = (piece: string): WorkerEvent => ({
      ...{ type: 'tool-call-delta', id: 1, callId: 'c', delta: piece },
    });
    const startCall: WorkerEvent = { type: 'tool-call-start', id: 1, ...call };
    const endCall: WorkerEvent = { type: 'tool-call-end', id: 1, ...call, input: '{"a":1}' };
    const merged = mergeDeltas([
      [delta(1, '', 1), think('a'), delta(1, '', 2), think('b'), delta(1, '', 3)],
      [delta(1, 'text', 4), delta(1, '', 5), startCall, args('{"a"')],
      [delta(1, '', 6), args(':1}'), endCall],
    ]);
    expect(merged).toEqual([
      ...[delta(1, '', 1, 2, 3), think('ab'), delta(1, 'text', 4, 5, 6)],
      ...[startCall, args('{"a":1}'), endCall],
    ]);
  });
});
