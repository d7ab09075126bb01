/**
 * Which adapters are where right now, and which are waited for: the truth behind the adapters' metrics.
 *
 * The engine has no slots: an adapter takes pages of the pool it shares with KV. What vLLM calls
 * "max_lora" is therefore how many there would be if the pages that nobody has now, or that hold cold
 * prefixes, were filled with adapters of the usual size. Used by vllm-metrics.ts and lorax-metrics.ts.
 */
import type { AdapterInfo, Engine, EngineInfo, EngineStats } from '../../types.js';
import { lookAtEngine } from '../engine-look.js';

export interface Census {
  info: EngineInfo;
  stats: EngineStats;
  adapters: AdapterInfo[];
  /** Names in the page pool. */
  resident: string[];
  /** Names that open requests wait for, not resident. */
  waiting: string[];
  /** That the pool could hold beside the KV of what runs. */
  maxResident: number;
  /** Of the pool, by running requests: adapters that are in use leave less for KV. */
  kvUsage: number;
}

export async function takeCensus(
  engine: Engine,
  tenants: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): Promise<Census> {
  const { info, stats, shared, owned } = await lookAtEngine(engine, tenants);
  // A tenant's own and the shared ones may have one name; where it is resident, it is.
  const byName = new Map<string, AdapterInfo>();
  for (const adapter of [shared, ...owned.values()].flat()) {
    if (byName.get(adapter.name)?.state !== 'resident') byName.set(adapter.name, adapter);
  }
  const adapters = [...byName.values()];
  const inPages = adapters.filter(({ state }) => state === 'resident');
  const resident = inPages.map(({ name }) => name).sort();
  const pagesOf = ({ bytes }: AdapterInfo) => Math.max(1, Math.ceil(bytes / info.pageBytes));
  const known = adapters.filter(({ bytes }) => bytes > 0);
  const usual = known.reduce((sum, each) => sum + pagesOf(each), 0) / Math.max(1, known.length);
  const { total, free, cold, kv } = stats.pages;
  const room = Math.floor((free + cold) / Math.max(1, usual));
  const inUse = inPages
    .filter(({ activeRequests }) => activeRequests > 0)
    .reduce((sum, each) => sum + pagesOf(each), 0);
  return {
    ...{ info, stats, adapters, resident },
    waiting: [...wanted].filter((name) => byName.get(name)?.state !== 'resident').sort(),
    maxResident: resident.length + room,
    kvUsage: kv === 0 ? 0 : kv / Math.max(kv, total - inUse),
  };
}
