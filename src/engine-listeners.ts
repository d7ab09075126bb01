/**
 * Who hears what of a shared engine: each provider of its own adapters, in its own names. Used by
 * engine-client.ts.
 */
import { scopeOf } from './adapter-scope.js';
import { withoutScopes } from './client-errors.js';
import type { LoraxError } from './errors.js';
import type { AdapterEvent, LoadProgress } from './types.js';

export interface EngineListeners {
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  onAdapter?: ((event: AdapterEvent) => void) | undefined;
}

export class ProviderListeners {
  readonly #byProvider = new Map<string, EngineListeners>();

  set(provider: string, listeners: EngineListeners): void {
    this.#byProvider.set(provider, listeners);
  }

  delete(provider: string): void {
    this.#byProvider.delete(provider);
  }

  progress(progress: LoadProgress): void {
    const ofAdapter = progress.stage === 'adapter' || progress.stage === 'fetch-adapter';
    for (const [provider, { onProgress: listener }] of this.#byProvider) {
      if (listener === undefined) continue;
      if (ofAdapter && !progress.name.startsWith(provider)) continue;
      const name = ofAdapter ? shownName(progress.name) : progress.name;
      // In a microtask: a throwing listener must not stop the events of others.
      queueMicrotask(() => listener({ ...progress, name }));
    }
  }

  /** `full`: with the scope. */
  adapter(full: string, { error, ...event }: Omit<AdapterEvent, 'name'>): void {
    for (const [provider, { onAdapter: listener }] of this.#byProvider) {
      if (listener === undefined || !full.startsWith(provider)) continue;
      const told: AdapterEvent = { name: shownName(full), ...event };
      if (error !== undefined) {
        told.error = withoutScopes(error, scopeOf(provider, event.tenant)) as LoraxError;
      }
      queueMicrotask(() => listener(told));
    }
  }
}

function shownName(full: string): string {
  return full.slice(full.lastIndexOf('\0') + 1);
}
