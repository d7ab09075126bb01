/**
 * What this engine has that vLLM has not: pages by kind, tiers of adapters, evictions, fairness, steps.
 *
 * Read off the same census as vllm-metrics.ts. Called by server-metrics.ts.
 */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { EngineStats } from '../../types.js';
import type { ReadCensus } from './vllm-metrics.js';

const COUNTERS = {
  steps: ['lorax:engine_steps_total', 'Steps of the engine.'],
  adapterHits: ['lorax:adapter_hits_total', 'Times a request’s adapter was in the page pool.'],
  adapterLoads: ['lorax:adapter_loads_total', 'Times it had to be copied there.'],
  adapterEvictions: ['lorax:adapter_evictions_total', 'Adapters that left the page pool.'],
  hostDrops: ['lorax:adapter_host_drops_total', 'Adapters dropped from host memory.'],
  hostReads: ['lorax:adapter_host_reads_total', 'Adapters read from disk again.'],
  prefixHits: ['lorax:prefix_hit_requests_total', 'Requests that found a part of their prompt.'],
  prefixMisses: ['lorax:prefix_miss_requests_total', 'Requests that found none of it.'],
  prefixEvictions: ['lorax:prefix_evictions_total', 'Pages of prefixes that were given up.'],
  finished: ['lorax:requests_finished_total', 'Requests that finished.'],
  aborted: ['lorax:requests_aborted_total', 'Requests whose client left.'],
  failed: ['lorax:requests_failed_total', 'Requests that failed.'],
} as const satisfies Partial<Record<keyof EngineStats['totals'], readonly [string, string]>>;

const PAGE_KINDS = ['free', 'kv', 'cold', 'adapter', 'retiring'] as const;
const STATES = ['absent', 'fetching', 'on-disk', 'host', 'resident', 'failed'] as const;

export function registerLoraxMetrics(registry: Registry): ReadCensus {
  const registers = [registry];
  const pages = new Gauge({
    ...{ name: 'lorax:pages', help: 'Pages of the pool, by what holds them.', registers },
    labelNames: ['kind'],
  });
  const pageBytes = new Gauge({ name: 'lorax:page_bytes', help: 'Bytes of a page.', registers });
  const tiers = new Gauge({
    ...{ name: 'lorax:adapters', help: 'Adapters, by where they are.', registers },
    labelNames: ['state'],
  });
  const host = new Gauge({
    ...{ name: 'lorax:host_bytes', help: 'Packed adapters in host memory.', registers },
    labelNames: ['kind'],
  });
  const counters = Object.entries(COUNTERS).map(([key, [name, help]]) => ({
    key: key as keyof typeof COUNTERS,
    counter: new Counter({ name, help, registers }),
  }));

  return ({ info, stats, adapters }) => {
    for (const kind of PAGE_KINDS) pages.set({ kind }, stats.pages[kind]);
    pageBytes.set(info.pageBytes);
    for (const state of STATES) {
      tiers.set({ state }, adapters.filter((each) => each.state === state).length);
    }
    host.set({ kind: 'used' }, stats.host.bytes);
    host.set({ kind: 'budget' }, stats.host.budgetBytes);
    for (const { key, counter } of counters) {
      counter.reset();
      counter.inc(stats.totals[key]);
    }
  };
}
