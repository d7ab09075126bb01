/**
 * The client's side of an EnginePort in tests: sends commands, gathers what comes back, checks that
 * each request ends once. Ports are closed after each test.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { afterEach } from 'vitest';
import { LoraxError } from '../../src/errors.js';
import type { Sampling } from '../../src/types.js';

import { EnginePort } from '../../worker/engine-port.js';
import { packed } from '../../worker/files/reading-threads.js';
import type { LoadEngine } from '../../worker/load-engine.js';
import type {
  ClientCommand,
  EmbedCommand,
  GenerateCommand,
  ServeOptions,
  WirePrompt,
  WireSource,
  WorkerEvent,
  WorkerMessage,
} from '../../worker/protocol.js';
import { createFakeAddon, type FakeAddon, type FakeAddonOptions } from '../fakes/fake-addon.js';
import { loadFixture } from './fixtures.js';

export const VOCAB = 600;
export const CONTEXT = 512;
export const OPTIONS: ServeOptions = {
  model: '/models/fake',
  hubModel: null,
  hub: {},
  device: 'auto',
  precision: 'auto',
  memoryBytes: 0,
  memoryFraction: 0.9,
  maxBatchTokens: 512,
  maxQueued: 100,
  hostMemoryBytes: 0,
  deterministic: false,
  addonPaths: [],
  cudaPluginPaths: [],
};

export const chatml = loadFixture('chatml');

export const inDirectory = (directory: string): WireSource => ({ kind: 'directory', directory });

/** LoadEngine over the fake addon and the chatml fixture: no directory is read. */
export function fakeLoad(addon: FakeAddon): LoadEngine {
  return async (options, { onEvents, onProgress }) => {
    const config = { contextTokens: CONTEXT, vocabSize: VOCAB, architecture: 'Fake' };
    const native = await addon.createEngine(
      { ...options, model: { config } } as never,
      onEvents,
      onProgress,
    );
    const tokenizer = await chatml;
    native.setVocabulary(tokenizer.table.visible());
    const eosTokenIds = [tokenizer.eosTokenId as number];
    return {
      native,
      tokenizer,
      defaults: { sampling: { temperature: 0 }, eosTokenIds, ignored: [] },
      readAdapter: async (directory) => {
        if (directory.includes('broken')) throw new LoraxError('ADAPTER_INVALID', directory);
        const tensor = { name: 't', file: 0, dtype: 'BF16' as const, rows: 8, cols: 4, offset: 0 };
        const module = { layer: 0, module: 0, rank: 8, scale: 2, a: tensor, b: tensor };
        return packed({ hash: `hash of ${directory}`, files: [], modules: [module] });
      },
      info: {
        ...native.info(),
        ...{ model: options.model, architecture: 'Fake', precision: 'bfloat16' },
        ...{ contextTokens: CONTEXT, vocabSize: VOCAB },
      },
    };
  };
}

/** The client's end of a port, with everything that came back. */
export class Client {
  readonly messages: WorkerMessage[] = [];
  closed = false;
  private nextId = 1;
  private readonly waiters = new Set<() => void>();

  constructor(
    readonly port: MessagePort,
    readonly addon: FakeAddon,
  ) {
    port.on('message', (message: WorkerMessage) => {
      this.messages.push(message);
      this.waiters.forEach((wake) => wake());
    });
    port.on('close', () => {
      this.closed = true;
      this.waiters.forEach((wake) => wake());
    });
  }

  get events(): WorkerEvent[] {
    return this.messages.flat();
  }

  send(...commands: ClientCommand[]): void {
    this.port.postMessage(commands);
  }

  generate(
    prompt: WirePrompt | string,
    sampling: Sampling = {},
    adapter: string | null = null,
    extra: Partial<GenerateCommand> = {},
  ) {
    const id = this.nextId++;
    const wire = typeof prompt === 'string' ? { kind: 'text' as const, text: prompt } : prompt;
    const adapters = adapter === null ? [] : [{ name: adapter, weight: 1 }];
    this.send({ type: 'generate', id, prompt: wire, adapters, sampling, ...extra });
    return id;
  }

  embed(input: string[], more: Partial<EmbedCommand> = {}) {
    const id = this.nextId++;
    const settings = { adapters: [], pooling: 'mean' as const, normalize: true };
    this.send({ type: 'embed', id, input, ...settings, ...more });
    return id;
  }

  async until<T>(find: () => T | undefined): Promise<T> {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      await new Promise<void>((wake) => {
        const once = () => {
          this.waiters.delete(once);
          wake();
        };
        this.waiters.add(once);
      });
    }
  }

  terminalsOf(id: number): WorkerEvent[] {
    return this.events.filter(
      (e) =>
        'id' in e && e.id === id && ['finish', 'embedded', 'aborted', 'failed'].includes(e.type),
    );
  }

  end(id: number): Promise<WorkerEvent> {
    return this.until(() => this.terminalsOf(id)[0]);
  }

  async call(command: Record<string, unknown> & { type: string }): Promise<unknown> {
    const call = this.nextId++;
    this.port.postMessage([{ ...command, call }]);
    const event = await this.until(() =>
      this.events.find((e) => (e.type === 'result' || e.type === 'error') && e.call === call),
    );
    if (event.type === 'result') return event.value;
    throw (event as Extract<WorkerEvent, { type: 'error' }>).error;
  }

  of<T extends WorkerEvent['type']>(type: T, id: number): Extract<WorkerEvent, { type: T }>[] {
    return this.events.filter(
      (e): e is Extract<WorkerEvent, { type: T }> => e.type === type && 'id' in e && e.id === id,
    );
  }

  textOf(id: number): string {
    return this.of('delta', id)
      .map((e) => e.text)
      .join('');
  }

  tokensOf(id: number): number[] {
    return this.of('delta', id).flatMap((e) => e.tokenIds);
  }
}

const clients: Client[] = [];
afterEach(() => clients.splice(0).forEach((client) => client.port.close()));

export function start(options: FakeAddonOptions = {}, serve: Partial<ServeOptions> = {}): Client {
  const addon = createFakeAddon(options);
  const { port1, port2 } = new MessageChannel();
  const client = new Client(port1, addon);
  new EnginePort(port2, { ...OPTIONS, ...serve }, fakeLoad(addon));
  clients.push(client);
  return client;
}

/** Waits until native code has been given `count` requests. */
export async function submissions(client: Client, count: number): Promise<void> {
  while ((client.addon.engines[0]?.submissions.length ?? 0) < count) await pause(1);
}

export const pause = (ms = 5) => new Promise((resolve) => setTimeout(resolve, ms));

/** Says `text` token by token, then the end-of-sequence token, to everyone. */
export async function saying(text: string) {
  const tokenizer = await loadFixture('chatml');
  const ids = [...(await tokenizer.encodeText(text, 1000)), tokenizer.eosTokenId as number];
  return {
    ids,
    eos: tokenizer.eosTokenId as number,
    nextToken: ({ output }: { output: number[] }) => ids[output.length % ids.length] as number,
  };
}
