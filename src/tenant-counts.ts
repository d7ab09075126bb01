/**
 * What each tenant's requests have come to, counted where they end; nothing of others shows in it.
 * Used by engine-client.ts.
 */
import type { TenantStats } from './types.js';

export interface CountedUsage {
  promptTokens: number;
  outputTokens: number;
}

type Totals = TenantStats['totals'];

export class TenantCounts {
  /** By scope; a tenant that has asked for nothing has none. */
  readonly #totals = new Map<string, Totals>();

  count(
    own: string,
    outcome: 'finished' | 'aborted' | 'failed',
    { promptTokens, outputTokens }: CountedUsage,
  ): void {
    const totals = this.#totals.get(own) ?? noTotals();
    totals[outcome]++;
    totals.promptTokens += promptTokens;
    totals.outputTokens += outputTokens;
    this.#totals.set(own, totals);
  }

  totals(own: string): Totals {
    return { ...(this.#totals.get(own) ?? noTotals()) };
  }

  /** Of a tenant, or of all tenants of a provider. */
  forget(prefix: string): void {
    for (const own of this.#totals.keys()) if (own.startsWith(prefix)) this.#totals.delete(own);
  }
}

function noTotals(): Totals {
  return { promptTokens: 0, outputTokens: 0, finished: 0, aborted: 0, failed: 0 };
}
