/**
 * All that one look at the engine shows, at one moment: for /metrics and the dashboard.
 */
import type { AdapterInfo, Engine, EngineInfo, EngineStats } from '../types.js';

export interface EngineLook {
  info: EngineInfo;
  stats: EngineStats;
  /** Everybody's. */
  shared: AdapterInfo[];
  /** Each tenant's view, by its id. */
  owned: Map<string, AdapterInfo[]>;
}

export async function lookAtEngine(engine: Engine, tenants: Iterable<string>): Promise<EngineLook> {
  const ids = [...tenants];
  const [info, stats, shared, ...lists] = await Promise.all([
    engine.ready(),
    engine.stats(),
    engine.adapters.list(),
    ...ids.map((id) => engine.tenant(id).adapters.list()),
  ]);
  return { info, stats, shared, owned: new Map(ids.map((id, i) => [id, lists[i] ?? []])) };
}
