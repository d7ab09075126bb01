/**
 * One look at the engine: its numbers, and a row for each adapter, everybody's and each tenant's.
 */
import type { AdapterInfo, Engine, EngineInfo, EngineStats } from '../../types.js';
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
  const tenants = [...watch.tenants];
  const [info, stats, shared, ...owned] = await Promise.all([
    engine.ready(),
    engine.stats(),
    engine.adapters.list(),
    ...tenants.map((id) => engine.tenant(id).adapters.list()),
  ]);
  const rowsOf = (tenant: string | undefined, list: AdapterInfo[]) =>
    list.map((adapter) => rowOf(tenant, adapter, info, watch));
  return {
    ...{ at: Date.now(), facts: factsOf(info), now: nowOf(stats) },
    adapters: [
      ...rowsOf(undefined, shared),
      ...owned.flatMap((list, i) => rowsOf(tenants[i], list)),
    ],
  };
}

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

function rowOf(
  tenant: string | undefined,
  { name, state, source, hash, bytes, rank, activeRequests, error }: AdapterInfo,
  { pageBytes }: EngineInfo,
  watch: RequestWatch,
): AdapterRow {
  const { waiting, requests } = watch.of(tenant, name);
  return {
    ...{ name, state, source, bytes, rank, waiting, requests },
    ...(tenant === undefined ? {} : { tenant }),
    ...(hash === undefined ? {} : { hash: hash.slice(0, 12) }),
    ...(error === undefined ? {} : { error: error.message }),
    ...{ pages: Math.ceil(bytes / Math.max(1, pageBytes)), running: activeRequests },
  };
}
