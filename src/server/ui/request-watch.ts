/**
 * What is seen of requests as they go by: who waits for and runs on which adapter, how long first tokens
 * take, how long there is between tokens. An observer of the engine; no prompt passes here.
 *
 * A name is remembered once a request for it has started, so names that do not exist leave nothing.
 */
import type { EngineObserver } from '../process/observed-engine.js';
import { LatencyWindow } from './latency-window.js';

export interface AdapterCounts {
  waiting: number;
  running: number;
  /** That have started. */
  requests: number;
}

export const WINDOW_SECONDS = 30;

export class RequestWatch {
  readonly firstToken = new LatencyWindow(WINDOW_SECONDS);
  readonly betweenTokens = new LatencyWindow(WINDOW_SECONDS);
  readonly #counts = new Map<string, AdapterCounts>();
  readonly #tenants = new Set<string>();

  /** Those that have asked for something. */
  get tenants(): ReadonlySet<string> {
    return this.#tenants;
  }

  of(tenant: string | undefined, name: string): AdapterCounts {
    return this.#counts.get(keyOf(tenant, name)) ?? { waiting: 0, running: 0, requests: 0 };
  }

  readonly observer: EngineObserver = ({ kind, adapters, tenant }) => {
    if (tenant !== undefined) this.#tenants.add(tenant);
    const keys = adapters.map((name) => keyOf(tenant, name));
    let state: 'waiting' | 'running' | 'over' = 'waiting';
    let isFirst = true;
    const move = (to: typeof state) => {
      for (const key of keys) this.#move(key, state, to);
      state = to;
    };
    move('waiting');
    return {
      start: () => {
        if (state === 'waiting') move('running');
      },
      tokens: (count, sinceMs) => {
        if (isFirst) this.firstToken.record(sinceMs);
        else this.betweenTokens.record(sinceMs / count, count);
        isFirst = false;
      },
      end: ({ outcome }) => {
        // Nobody tells when an embedding starts.
        if (kind === 'embed' && outcome === 'finished') move('running');
        move('over');
      },
    };
  };

  #move(key: string, from: string, to: string): void {
    const counts = this.#counts.get(key) ?? { waiting: 0, running: 0, requests: 0 };
    this.#counts.set(key, counts);
    if (to === 'waiting') counts.waiting++;
    else if (from === 'waiting') counts.waiting--;
    else if (from === 'running') counts.running--;
    if (to === 'running') {
      counts.running++;
      counts.requests++;
    }
    if (counts.waiting + counts.running + counts.requests === 0) this.#counts.delete(key);
  }
}

const keyOf = (tenant: string | undefined, name: string) => `${tenant ?? ''}\0${name}`;
