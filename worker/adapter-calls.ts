/**
 * The adapter commands of one port: what is fetched, loaded and cancelled, and what is told of it.
 *
 * The registry behind it decides what names stand for; this knows calls, progress and the way to the
 * files. Called by engine-port.ts.
 */
import { LoraxError } from '../src/errors.js';
import type { LoadProgress } from '../src/types.js';
import { AdapterRegistry, type AdapterBackend } from './adapter-registry.js';
import type { LoadedEngine } from './load-engine.js';
import type { ClientCommand, LoadedAdapter, WorkerEvent } from './protocol.js';
import type { SourceFetcher } from './sources/source-fetcher.js';

const PROGRESS_EVERY_MS = 50;

type AddCommand = Extract<ClientCommand, { type: 'addAdapter' }>;

/** What the engine's port does for it. */
export interface AdapterHost {
  engine(): Promise<LoadedEngine>;
  emit(event: WorkerEvent): void;
  fetcher: SourceFetcher;
  /** Ends what is being fetched. */
  stopped: AbortSignal;
}

export class AdapterCalls {
  readonly registry: AdapterRegistry;
  /** By call. */
  private readonly underWay = new Map<number, AbortController>();

  constructor(private readonly host: AdapterHost) {
    this.registry = new AdapterRegistry(async () => this.backend(await host.engine()));
  }

  async add({ call, name, source, tenant, hash }: AddCommand): Promise<LoadedAdapter> {
    const abort = new AbortController();
    this.underWay.set(call, abort);
    try {
      return await this.registry.add(name, {
        ...{ source, tenant, hash },
        signal: AbortSignal.any([abort.signal, this.host.stopped]),
        onFetched: () => this.host.emit({ type: 'fetched', call }),
      });
    } finally {
      this.underWay.delete(call);
    }
  }

  cancel(call: number): void {
    this.underWay.get(call)?.abort(cancelledError());
  }

  private backend({ native, readAdapter }: LoadedEngine): AdapterBackend {
    const { fetcher, emit } = this.host;
    return {
      fetch: ({ source, tenant, signal }, name) => {
        const stage = 'fetch-adapter';
        const onProgress = throttledProgress(emit, (loadedBytes, totalBytes) => ({
          ...{ stage, name, loadedBytes, totalBytes },
        }));
        return fetcher.adapter(source, tenant, { signal, onProgress });
      },
      read: readAdapter,
      add: async ({ spec, bytes: totalBytes }, key, name) => {
        const report = (loadedBytes: number) =>
          emit({
            type: 'progress',
            progress: { stage: 'adapter', name, loadedBytes, totalBytes },
          });
        report(0);
        const handle = await native.addAdapter({ ...spec, hash: key });
        report(totalBytes);
        return handle;
      },
      remove: (handle) => native.removeAdapter(handle),
      relocate: (handle, spec) => native.relocateAdapter(handle, spec),
      prefetch: (handle) => native.prefetchAdapter(handle),
      list: () => native.adapters(),
    };
  }
}

/** Reports at most so often, and the end always. */
export function throttledProgress(
  emit: (event: WorkerEvent) => void,
  progressOf: (loadedBytes: number, totalBytes: number) => LoadProgress,
): (loadedBytes: number, totalBytes: number) => void {
  let lastAt = 0;
  return (loadedBytes, totalBytes) => {
    const now = performance.now();
    if (loadedBytes < totalBytes && now - lastAt < PROGRESS_EVERY_MS) return;
    lastAt = now;
    emit({ type: 'progress', progress: progressOf(loadedBytes, totalBytes) });
  };
}

function cancelledError(): LoraxError {
  const message = 'Nobody waits for the adapter any more.';
  return new LoraxError('ADAPTER_FETCH_FAILED', message, { data: { reason: 'cancelled' } });
}
