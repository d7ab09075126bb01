// Scrapes of many adapters: how often they are asked for is not how often they are made.
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ServerMetrics } from '../../../src/server/metrics/server-metrics.js';
import { FakeEngine } from '../../../src/testing/fake-engine.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
  const write = vi.spyOn(Registry.prototype, 'metrics');
  write.mockImplementation(async () => `scrape ${write.mock.calls.length}`);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const answers = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`a${i}`, 'x']));

it('of 2,000 adapters is given again for a tenth of a second; those who ask at once share one', async () => {
  const engine = new FakeEngine({ answers: answers(2000) });
  const metrics = new ServerMetrics(() => engine, 'demo');
  expect(await Promise.all([metrics.text(), metrics.text()])).toEqual(['scrape 1', 'scrape 1']);
  vi.advanceTimersByTime(99);
  expect(await metrics.text()).toBe('scrape 1');
  vi.advanceTimersByTime(2);
  expect(await metrics.text()).toBe('scrape 2');
});

it('of a few is new each time', async () => {
  const metrics = new ServerMetrics(() => new FakeEngine({ answers: answers(3) }), 'demo');
  expect(await metrics.text()).toBe('scrape 1');
  vi.advanceTimersByTime(1);
  expect(await metrics.text()).toBe('scrape 2');
});

it('that failed is not kept', async () => {
  const metrics = new ServerMetrics(() => new FakeEngine(), 'demo');
  vi.mocked(Registry.prototype.metrics).mockRejectedValueOnce(new Error('full'));
  await expect(metrics.text()).rejects.toThrow('full');
  vi.advanceTimersByTime(1);
  expect(await metrics.text()).toMatch(/^scrape/);
});
