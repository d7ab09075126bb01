import { describe, expect, it } from 'vitest';
import { EVENT, FINISH_REASONS } from '../../worker/addon.js';
import { readStepEvents, type StepEventHandler } from '../../worker/step-events.js';

function record(ints: number[], floats: number[] = [], failures: never[] = []): unknown[] {
  const seen: unknown[] = [];
  const handler: StepEventHandler = {
    started: (...args) => seen.push(['started', ...args]),
    tokens: (id, { tokenIds, numTop, topIds, logprobs }) =>
      seen.push(['tokens', id, [...tokenIds], numTop, [...topIds], [...logprobs]]),
    embedded: (id, embedding) => seen.push(['embedded', id, [...embedding]]),
    finished: (id, reason) => seen.push(['finished', id, FINISH_REASONS[reason]]),
    aborted: (id) => seen.push(['aborted', id]),
    failed: (id, { code }) => seen.push(['failed', id, code]),
  };
  const step = { ints: Int32Array.from(ints), floats: Float32Array.from(floats), failures };
  readStepEvents(step, handler);
  return seen;
}

describe('readStepEvents', () => {
  it('reads every kind of record, one after another', () => {
    const failures = [{ code: 'A' }, { code: 'B' }] as never[];
    const ints = [
      ...[EVENT.Started, 7, 1500, 32],
      ...[EVENT.Tokens, 7, 2, 2, 10, 11, 20, 21, 22, 23],
      ...[EVENT.Tokens, 8, 3, -1, 1, 2, 3],
      ...[EVENT.Embedded, 11, 3],
      ...[EVENT.Tokens, 9, 1, 0, 5],
      ...[EVENT.Embedded, 12, 1],
      ...[EVENT.Finished, 7, 1, 2],
      ...[EVENT.Aborted, 8, 3],
      ...[EVENT.Failed, 9, 1, 1],
      ...[EVENT.Failed, 10, 0, 0],
    ];
    const floats = [-1, -2, -3, -4, -5, -6, 0.5, 0.25, 0.125, -7, 8];
    expect(record(ints, floats, failures)).toEqual([
      ['started', 7, 1500, 32],
      ['tokens', 7, [10, 11], 2, [20, 21, 22, 23], [-1, -2, -3, -4, -5, -6]],
      ['tokens', 8, [1, 2, 3], -1, [], []],
      ['embedded', 11, [0.5, 0.25, 0.125]],
      ['tokens', 9, [5], 0, [], [-7]],
      ['embedded', 12, [8]],
      ['finished', 7, 'max-output-tokens'],
      ['aborted', 8],
      ['failed', 9, 'B'],
      ['failed', 10, 'A'],
    ]);
  });

  it('does not guess at what it does not know', () => {
    expect(() => record([EVENT.Aborted, 1, 0, 99, 1])).toThrow('Unknown step event 99 at word 3');
  });
});
