import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Admissions } from '../../../src/server/admissions.js';
import { turn } from '../../../src/server/turns.js';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

describe('Admissions', () => {
  it('has so many places, and gives each back once', () => {
    const admissions = new Admissions(2);
    const leave = admissions.enter();
    admissions.enter();
    expect(() => admissions.enter()).toThrow(expect.objectContaining({ code: 'QUEUE_FULL' }));
    expect(() => admissions.check()).toThrow('2 requests are waiting already.');
    leave();
    leave();
    expect(admissions.waiting).toBe(1);
    admissions.check();
  });

  it('says when there may be a place: by the gaps between admissions', () => {
    const admissions = new Admissions(3);
    const leaves = [admissions.enter(), admissions.enter(), admissions.enter()];
    const retryAfter = () => {
      try {
        admissions.check();
      } catch (error) {
        return (error as { data: { retryAfterMs?: number } }).data.retryAfterMs;
      }
      return 'a place';
    };
    expect(retryAfter()).toBeUndefined();
    leaves[0]?.();
    vi.advanceTimersByTime(200);
    leaves[1]?.();
    expect(retryAfter()).toBe('a place');
    admissions.enter();
    admissions.enter();
    expect(retryAfter()).toBe(200);
  });
});

describe('turn', () => {
  it('lets some go on at once and the others in order, with timers in between', async () => {
    const order: number[] = [];
    const all = Array.from({ length: 100 }, async (_, index) => {
      await turn();
      order.push(index);
    });
    await Promise.resolve();
    await Promise.resolve();
    const atOnce = order.length;
    expect(atOnce).toBeGreaterThan(0);
    expect(atOnce).toBeLessThan(50);
    await new Promise(setImmediate);
    expect(order.length).toBeLessThan(100);
    await Promise.all(all);
    expect(order).toEqual(order.map((_, index) => index));
  });
});
