/** Native counters -> the EngineStats that callers see. Called by engine-port.ts. */
import type { EngineStats } from '../src/types.js';
import type { NativeStats } from './addon.js';

/** `preparing`: requests that native code has not been given yet. */
export function engineStats(stats: NativeStats, preparing: number): EngineStats {
  const { pages, running, waiting, recentSteps } = stats;
  const { steps, promptTokens, cachedTokens, outputTokens, preemptions } = stats;
  const { prefixHits, prefixMisses, prefixEvictions } = stats;
  const { adapterHits, adapterLoads, adapterEvictions, hostDrops, hostReads } = stats;
  const { finished, aborted, failed } = stats;
  const recent: EngineStats['recentSteps'] = [];
  // [prefillTokens, decodeTokens, adapters, microseconds] each
  for (let i = 0; i + 3 < recentSteps.length; i += 4) {
    recent.push({
      prefillTokens: recentSteps[i] as number,
      decodeTokens: recentSteps[i + 1] as number,
      adapters: recentSteps[i + 2] as number,
      ms: (recentSteps[i + 3] as number) / 1000,
    });
  }
  return {
    pages,
    host: stats.host,
    requests: { running, waiting: waiting + preparing },
    totals: {
      ...{ steps, promptTokens, cachedTokens, outputTokens, preemptions },
      ...{ prefixHits, prefixMisses, prefixEvictions },
      ...{ adapterHits, adapterLoads, adapterEvictions, hostDrops, hostReads },
      ...{ finished, aborted, failed },
    },
    recentSteps: recent,
  };
}
