/** What engines count, as callers and tenants see it. Part of types.ts, which exports it. */

export interface EngineStats {
  /**
   * `kv`: of running requests; `cold`: prefixes that none of them has; `adapter`: in use or idle.
   * Cold and idle ones are cache: they go when pages are wanted.
   */
  pages: {
    total: number;
    free: number;
    kv: number;
    cold: number;
    adapter: number;
    retiring: number;
  };
  /** Packed adapters in host memory; `bytes` counts those being read, too. */
  host: { bytes: number; budgetBytes: number; images: number };
  requests: { running: number; waiting: number };
  /** Since start. */
  totals: {
    steps: number;
    promptTokens: number;
    /** Of the prompt tokens, those whose KV was reused. */
    cachedTokens: number;
    outputTokens: number;
    preemptions: number;
    /** Requests that found a part of their prompt, and that found none. Not embeddings. */
    prefixHits: number;
    prefixMisses: number;
    /** Pages of prefixes that were given up. */
    prefixEvictions: number;
    /** Times a request needed an adapter and it was in the pool; `adapterLoads`: it was not. */
    adapterHits: number;
    adapterLoads: number;
    adapterEvictions: number;
    /** Adapters dropped from host memory, and read from disk again. */
    hostDrops: number;
    hostReads: number;
    finished: number;
    aborted: number;
    failed: number;
  };
  /** The newest steps, oldest first, at most 256. */
  recentSteps: { prefillTokens: number; decodeTokens: number; adapters: number; ms: number }[];
}

/** What a tenant sees of an engine: what it did itself. */
export interface TenantStats {
  requests: { running: number; waiting: number };
  totals: {
    promptTokens: number;
    outputTokens: number;
    finished: number;
    aborted: number;
    failed: number;
  };
}
