/**
 * One adapter on its way: from its source, through the worker, to a state that its listeners hear of.
 *
 * An entry has at most one load that somebody can join; one that was cancelled is joined by nobody,
 * and what still comes of it changes nothing that began later. Used by adapter-table.ts.
 */
import type { LoadedAdapter, WireSource } from '../worker/protocol.js';
import type { ResolvedSource } from './adapter-source.js';
import { LoraxError } from './errors.js';
import type { AdapterEvent, RemovedAdapter } from './types.js';

export interface AddCommand {
  name: string;
  source: WireSource;
  tenant?: string;
  /** What its content must be. */
  hash?: string;
}

/** The way to the worker. Both throw where it takes no calls any more. */
export interface AdapterCommands {
  add(
    command: AddCommand,
    onFetched: () => void,
  ): { result: Promise<LoadedAdapter>; cancel(): void };
  remove(name: string): Promise<RemovedAdapter>;
  prefetch(name: string): Promise<unknown>;
}

export interface Load {
  result: Promise<LoadedAdapter>;
  /** Requests that wait for it. */
  waiting: number;
  /** Wanted whether or not a request waits. */
  kept: boolean;
  cancel(): void;
}

/** One name of a request. */
export interface Need {
  /** The full name, once it is loaded; undefined = it is. */
  loading: Promise<string> | undefined;
  name: string;
  /** Who waited does so no more. */
  leave(): void;
}

/** What a name means. */
export interface AdapterEntry {
  readonly source: ResolvedSource;
  readonly tenant: string | undefined;
  /** Of a version: the only content it may have. */
  readonly hash: string | undefined;
  readonly order: number;
  state: Exclude<AdapterEvent['state'], 'removed'>;
  error: LoraxError | undefined;
  /** What the present worker has. */
  loaded: LoadedAdapter | undefined;
  /** What the name stands for, whichever worker loads it. */
  known: LoadedAdapter | undefined;
  loading: Load | undefined;
  removed: boolean;
  /** By a lookup, which has others to ask where this one has no such adapter. */
  looked: boolean;
  /** Somebody has heard of it. */
  told: boolean;
}

export class AdapterLoads {
  readonly #add: AdapterCommands['add'];
  readonly #onEvent: (full: string, event: Omit<AdapterEvent, 'name'>) => void;

  constructor(
    add: AdapterCommands['add'],
    onEvent: (full: string, event: Omit<AdapterEvent, 'name'>) => void,
  ) {
    this.#add = add;
    this.#onEvent = onEvent;
  }

  start(full: string, entry: AdapterEntry): Load {
    let cancelCommand: () => void = nothing;
    let cancelled = false;
    const send = async (source: WireSource, hash?: string): Promise<LoadedAdapter> => {
      if (cancelled) throw cancelledError();
      const { tenant } = entry;
      const { result, cancel } = this.#add(
        {
          ...{ name: full, source },
          ...(tenant === undefined ? {} : { tenant }),
          ...(hash === undefined ? {} : { hash }),
        },
        () => {
          if (entry.loading === load) this.change(full, entry, 'on-disk');
        },
      );
      cancelCommand = cancel;
      return result;
    };
    const result = this.#load(entry, send).then(
      (loaded) => {
        if (entry.loading === load) entry.loading = undefined;
        entry.loaded = loaded;
        entry.known = loaded;
        entry.looked = false;
        this.change(full, entry, 'host');
        return loaded;
      },
      (error: unknown) => {
        if (entry.loading === load) entry.loading = undefined;
        if (entry.loading === undefined) this.#failed(full, entry, error, cancelled);
        throw error;
      },
    );
    // Whoever waits hears of it; a load may be left alone.
    result.catch(nothing);
    const load: Load = {
      ...{ result, waiting: 0, kept: false },
      cancel: () => {
        if (entry.loading !== load) return;
        cancelled = true;
        // Somebody who comes now begins another.
        entry.loading = undefined;
        cancelCommand();
      },
    };
    entry.loading = load;
    if (!entry.source.local) this.change(full, entry, 'fetching');
    return load;
  }

  change(
    full: string,
    entry: AdapterEntry,
    state: AdapterEntry['state'],
    error?: LoraxError,
  ): void {
    entry.state = state;
    entry.error = error;
    if (entry.removed) return;
    entry.told = true;
    const { hash } = entry.known ?? {};
    this.#onEvent(full, {
      ...{ ...ofTenant(entry), state },
      ...(hash === undefined ? {} : { hash }),
      ...(error === undefined ? {} : { error }),
    });
  }

  tellRemoved(full: string, entry: AdapterEntry): void {
    if (entry.told) this.#onEvent(full, { ...ofTenant(entry), state: 'removed' });
  }

  #failed(full: string, entry: AdapterEntry, error: unknown, cancelled: boolean): void {
    if (entry.looked && (cancelled || isMissing(error))) this.tellRemoved(full, entry);
    else if (cancelled) this.change(full, entry, restingState(entry));
    else this.change(full, entry, 'failed', LoraxError.isInstance(error) ? error : undefined);
  }

  /** From its source; after the worker's death, the files it was loaded from. */
  async #load(
    { source, known, hash }: AdapterEntry,
    send: (source: WireSource, hash?: string) => Promise<LoadedAdapter>,
  ): Promise<LoadedAdapter> {
    if (!source.local && known !== undefined) {
      try {
        return await send({ kind: 'directory', directory: known.directory }, known.hash);
      } catch (error) {
        // They have gone: it is fetched again.
        if (!LoraxError.isInstance(error) || !error.code.startsWith('ADAPTER_')) throw error;
      }
    }
    const wire = source.wire();
    // At once where it can be: commands arrive in the order they were asked for.
    return send(wire instanceof Promise ? await wire : wire, hash);
  }
}

/** What it is while nothing is done about it. */
export function restingState({ source, known }: AdapterEntry): AdapterEntry['state'] {
  return source.local || known !== undefined ? 'on-disk' : 'absent';
}

/** Not there, as far as anyone may know: the hub answers 401 for what does not exist. */
export function isMissing(error: unknown): boolean {
  if (!LoraxError.isInstance(error)) return false;
  if (error.code === 'ADAPTER_NOT_FOUND') return true;
  const { reason } = error.data;
  return (
    error.code === 'ADAPTER_FETCH_FAILED' && (reason === 'not-found' || reason === 'unauthorized')
  );
}

function cancelledError(): LoraxError {
  const message = 'Nobody waits for the adapter any more.';
  return new LoraxError('ADAPTER_FETCH_FAILED', message, { data: { reason: 'cancelled' } });
}

function ofTenant({ tenant }: AdapterEntry): { tenant?: string } {
  return tenant === undefined ? {} : { tenant };
}

function nothing(): void {}
