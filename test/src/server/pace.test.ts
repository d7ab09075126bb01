// Streams beside refusals: their first tokens at once, the others together every tick.
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Admissions } from '../../../src/server/admissions.js';
import { Pace } from '../../../src/server/pace.js';
import type { TokenEvent } from '../../../src/types.js';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'setTimeout'] }));
afterEach(() => void vi.useRealTimers());

const returned = vi.fn();
/** Events that are there whenever they are asked for. */
function ready(): AsyncIterator<TokenEvent> {
  const value = { type: 'delta' } as unknown as TokenEvent;
  return {
    next: () => Promise.resolve({ done: false, value }),
    return: () => {
      returned();
      return Promise.resolve({ done: true, value: undefined });
    },
  };
}

/** What has come once all that was there has been asked for. */
async function readFrom(events: AsyncIterator<TokenEvent>[], times: number): Promise<() => number> {
  let read = 0;
  for (const each of events) {
    void (async () => {
      for (let i = 0; i < times; i++) {
        await each.next();
        read++;
      }
    })();
  }
  await settled();
  return () => read;
}

async function settled(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

it('holds nothing while nobody is refused', async () => {
  const admissions = new Admissions(1);
  const pace = new Pace(admissions);
  admissions.enter();
  expect(admissions.isRefusing).toBe(false);
  expect((await readFrom([pace.of(ready())], 10))()).toBe(10);
});

it('while somebody is, lets the start and the first token through and the others once a tick', async () => {
  const admissions = new Admissions(1);
  const pace = new Pace(admissions);
  admissions.enter();
  expect(() => admissions.check()).toThrow('1 requests are waiting already.');
  const read = await readFrom([pace.of(ready()), pace.of(ready()), pace.of(ready())], 10);
  expect(read()).toBe(6);
  expect(vi.getTimerCount()).toBe(1);
  for (const expected of [9, 12]) {
    vi.advanceTimersByTime(100);
    await settled();
    expect(read()).toBe(expected);
  }
});

it('lets all through again a second after the last refusal', async () => {
  const admissions = new Admissions(1);
  const pace = new Pace(admissions);
  const leave = admissions.enter();
  expect(admissions.refuse()?.code).toBe('QUEUE_FULL');
  leave();
  vi.advanceTimersByTime(999);
  expect(admissions.refuse()).toBeUndefined();
  expect(admissions.isRefusing).toBe(true);
  const read = await readFrom([pace.of(ready())], 10);
  expect(read()).toBe(2);
  vi.advanceTimersByTime(100);
  await settled();
  expect(read()).toBe(10);
});

it('tells the engine at once that a reader has left', async () => {
  const admissions = new Admissions(1);
  admissions.enter();
  admissions.refuse();
  const events = new Pace(admissions).of(ready());
  await readFrom([events], 3);
  await events.return?.();
  expect(returned).toHaveBeenCalledOnce();
});
