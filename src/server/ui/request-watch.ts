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

/** What a tenant, or those who are none, asked of a name. */
export interface NamedCounts extends AdapterCounts {
  tenant: string | undefined;
  name: string;
}

export const WINDOW_SECONDS = 30;

export class RequestWatch {
  readonly firstToken = new LatencyWindow(WINDOW_SECONDS);
  readonly betweenTokens = new LatencyWindow(WINDOW_SECONDS);
  readonly #counts = new Map<string, NamedCounts>();
  readonly #tenants = new Set<string>();

  /** Those that have asked for something. */
  get tenants(): ReadonlySet<string> {
    return this.#tenants;
  }

  get counts(): Iterable<NamedCounts> {
    return this.#counts.values();
  }

  readonly observer: EngineObserver = ({ kind, adapters, tenant }) => {
    if (tenant !== undefined) this.#tenants.add(tenant);
    const names = adapters.map(withoutVersion);
    let state: 'waiting' | 'running' | 'over' = 'waiting';
    let isFirst = true;
    const move = (to: typeof state) => {
      for (const name of names) this.#move(tenant, name, state, to);
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

  #move(tenant: string | undefined, name: string, from: string, to: string): void {
    const key = `${tenant ?? ''}\0${name}`;
    const none = { tenant, name, waiting: 0, running: 0, requests: 0 };
    const counts = this.#counts.get(key) ?? none;
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

/** name@hash is its name's. */
const withoutVersion = (name: string) => name.replace(/@[^@]*$/, '');
