/**
 * One look at the engine: its numbers, and a row for each adapter, everybody's and each tenant's.
 */
import type { AdapterInfo, Engine, EngineInfo, EngineStats } from '../../types.js';
import { lookAtEngine } from '../engine-look.js';
import type { AdapterRow, DashboardEvent, EngineFacts } from './dashboard-events.js';
import type { RequestWatch } from './request-watch.js';

export interface EngineSample {
  /** ms since the epoch. */
  at: number;
  facts: EngineFacts;
  now: NonNullable<DashboardEvent['now']>;
  adapters: AdapterRow[];
}

export async function sampleEngine(engine: Engine, watch: RequestWatch): Promise<EngineSample> {
  const { info, stats, shared, owned } = await lookAtEngine(engine, watch.tenants);
  const rows = new Map<string, AdapterRow>();
  const add = (tenant: string | undefined, list: readonly AdapterInfo[]) => {
    for (const adapter of list) rows.set(keyOf(tenant, adapter.name), rowOf(tenant, adapter, info));
  };
  add(undefined, shared);
  for (const [tenant, list] of owned) add(tenant, list);
  for (const { tenant, name, running, waiting, requests } of watch.counts) {
    // A name that a tenant has not for itself is everybody's.
    const row = rows.get(keyOf(tenant, name)) ?? rows.get(keyOf(undefined, name));
    if (row === undefined) continue;
    row.running += running;
    row.waiting += waiting;
    row.requests += requests;
  }
  return {
    ...{ at: Date.now(), facts: factsOf(info), now: nowOf(stats) },
    adapters: [...rows.values()],
  };
}

const keyOf = (tenant: string | undefined, name: string) => `${tenant ?? ''}\0${name}`;

function factsOf(info: EngineInfo): EngineFacts {
  const { architecture, device, deviceDescription, precision } = info;
  const { contextTokens, pageBytes, blockTokens } = info;
  return {
    ...{ architecture, device, deviceDescription, precision },
    ...{ contextTokens, pageBytes, blockTokens },
  };
}

function nowOf({ pages, host, requests, totals, recentSteps }: EngineStats): EngineSample['now'] {
  return {
    ...{ pages, host, requests, totals },
    steps: recentSteps.map(({ prefillTokens, decodeTokens, adapters, ms }) => [
      ...([prefillTokens, decodeTokens, adapters] as const),
      Math.round(ms * 1000) / 1000,
    ]),
  };
}

/** Without counts. */
function rowOf(
  tenant: string | undefined,
  { name, state, source, hash, bytes, rank, activeRequests, error }: AdapterInfo,
  { pageBytes }: EngineInfo,
): AdapterRow {
  return {
    ...{ name, state, source, bytes, rank, running: 0, waiting: 0, requests: 0 },
    ...(tenant === undefined ? {} : { tenant }),
    ...(hash === undefined ? {} : { hash: hash.slice(0, 12) }),
    ...(error === undefined ? {} : { error: error.message }),
    ...{ pages: Math.ceil(bytes / Math.max(1, pageBytes)), holding: activeRequests },
  };
}
