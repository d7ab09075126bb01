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

/** Full, and so many were refused just now. */
function refusing(times: number): Admissions {
  const admissions = new Admissions(1);
  admissions.enter();
  for (let i = 0; i < times; i++) expect(admissions.refuse()?.code).toBe('QUEUE_FULL');
  return admissions;
}

it('holds nothing while nobody is refused, or few are', async () => {
  expect((await readFrom([new Pace(refusing(0)).of(ready())], 10))()).toBe(10);
  expect((await readFrom([new Pace(refusing(6)).of(ready())], 10))()).toBe(10);
});

it('while many are, lets the start and the first token through and the others once a tick', async () => {
  const pace = new Pace(refusing(10_000));
  const read = await readFrom([pace.of(ready()), pace.of(ready()), pace.of(ready())], 10);
  expect(read()).toBe(6);
  expect(vi.getTimerCount()).toBe(1);
  for (const expected of [9, 12]) {
    vi.advanceTimersByTime(99);
    await settled();
    expect(read()).toBe(expected - 3);
    vi.advanceTimersByTime(1);
    await settled();
    expect(read()).toBe(expected);
  }
});

it('holds them for as much shorter as fewer are', async () => {
  const read = await readFrom([new Pace(refusing(100)).of(ready())], 3);
  expect(read()).toBe(2);
  vi.advanceTimersByTime(29);
  await settled();
  expect(read()).toBe(2);
  vi.advanceTimersByTime(1);
  await settled();
  expect(read()).toBe(3);
});

it('lets all through again a while after the last refusal', async () => {
  const admissions = refusing(100);
  vi.advanceTimersByTime(1000);
  expect(admissions.refusalsPerSecond).toBeCloseTo(100 / Math.E);
  vi.advanceTimersByTime(2000);
  const read = await readFrom([new Pace(admissions).of(ready())], 10);
  expect(read()).toBe(10);
});

it('tells the engine at once that a reader has left', async () => {
  const events = new Pace(refusing(1_000)).of(ready());
  await readFrom([events], 3);
  await events.return?.();
  expect(returned).toHaveBeenCalledOnce();
});
