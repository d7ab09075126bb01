/**
 * What a command was pointed at -> a directory: one that is there, or fetched from the hub, https or S3.
 *
 * Options and their environment are those of the engine; a name that is both a directory and a
 * repository is the directory. Used by the commands that look at files.
 */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { resolveAdapterSource } from '../adapter-source.js';
import { invalidOptions } from '../check-shape.js';
import { isHubAddress, parseHubRepository } from '../hub-repository.js';
import type { HubOptions } from '../types.js';
import { SourceFetcher } from '../../worker/offline.js';
import type { OptionSpecs, OptionValues } from './command-line.js';
import type { Terminal } from './terminal.js';

export const HUB_OPTIONS = {
  'cache-dir': { type: 'string', value: '<dir>', help: 'of the hub (default: HF_HUB_CACHE)' },
  offline: { type: 'boolean', help: 'only what is in the cache (default: HF_HUB_OFFLINE)' },
  endpoint: { type: 'string', value: '<url>', help: 'of the hub (default: HF_ENDPOINT)' },
} as const satisfies OptionSpecs;

export function hubOptions(values: OptionValues): HubOptions {
  const options: HubOptions = {};
  if (typeof values['cache-dir'] === 'string') {
    options.cacheDirectory = resolve(values['cache-dir']);
  }
  if (typeof values.offline === 'boolean') options.offline = values.offline;
  if (typeof values.endpoint === 'string') options.endpoint = values.endpoint;
  return options;
}

export class Places {
  private readonly fetcher: SourceFetcher;

  constructor(
    hub: HubOptions,
    private readonly terminal: Terminal,
    private readonly signal: AbortSignal = new AbortController().signal,
  ) {
    this.fetcher = new SourceFetcher(hub);
  }

  async model(text: string): Promise<string> {
    const directory = resolve(text);
    if (!isHubAddress(text) && (await isDirectory(directory))) return directory;
    const repository = parseHubRepository(text);
    if (repository === undefined) {
      const message = `There is no directory ${directory}, and ${text} names no repository (org/name).`;
      throw invalidOptions('model', message, text);
    }
    return this.fetching(text, (call) => this.fetcher.model({ kind: 'hub', ...repository }, call));
  }

  async adapter(text: string): Promise<string> {
    const directory = resolve(text);
    if (await isDirectory(directory)) return directory;
    const isAddress = /^[a-z\d]+:/.test(text);
    const isRepository = !isAddress && parseHubRepository(text) !== undefined;
    const source = resolveAdapterSource(isRepository ? `hf://${text}` : text, 'adapter');
    if (source.local) {
      throw invalidOptions('adapter', `There is no directory ${directory}.`, text);
    }
    const wire = await source.wire();
    return this.fetching(text, (call) => this.fetcher.adapter(wire, undefined, call));
  }

  /** Locks are released when this resolves. */
  private async fetching(
    name: string,
    fetch: (call: Parameters<SourceFetcher['model']>[1]) => Promise<string>,
  ): Promise<string> {
    const { signal, terminal } = this;
    try {
      return await fetch({
        signal,
        onProgress: (loaded, total) => terminal.progress(name, loaded, total),
      });
    } finally {
      terminal.clearProgress();
      await this.fetcher.settled();
    }
  }
}

export function isDirectory(place: string): Promise<boolean> {
  return stat(place).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/** Ctrl-C ends what is being fetched, so that the next one goes on with a sound cache. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  process.once('SIGINT', () => {
    process.exitCode = 130;
    controller.abort(new Error('interrupted'));
  });
  return controller.signal;
}
