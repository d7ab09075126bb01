/**
 * The worker's end of the protocol without a thread: scripted, and every message recorded.
 *
 * By default it answers by itself, one token a turn of the event loop; with `manual` a test emits
 * each event. Messages go through structuredClone, as they would through a port.
 */
import type {
  CallResult,
  ClientCommand,
  ClientMessage,
  ServeOptions,
  WireError,
  WireSource,
  WorkerEvent,
} from '../../worker/protocol.js';
import { adaptersIdentity } from '../../src/adapter-mix.js';
import type { WeightedAdapter } from '../../src/adapter-mix.js';
import type { AdapterIdentity, Timing, Usage } from '../../src/types.js';
import type { Connect, ConnectionHandlers, WorkerConnection } from '../../src/worker-connection.js';

export type Generate = ClientCommand & { type: 'generate' };
export type Embed = ClientCommand & { type: 'embed' };

export interface FakeWorkerScript {
  manual?: boolean;
  /** Tokens of the answer; default: the last message's words, upper case if there is an adapter. */
  answer?: (command: Generate) => string[] | WireError;
  /** Default: of each text its length, and whether there is an adapter. */
  embed?: (command: Embed) => Float32Array[] | WireError;
  addAdapter?: (name: string, directory: string) => WireError | undefined;
  /** Every call and request fails with this. */
  loadError?: WireError;
  /** Commands that get no answer at all. */
  deafTo?: ClientCommand['type'][];
}

export const TIMING: Timing = { queueMs: 1, timeToFirstTokenMs: 2, totalMs: 3 };

export class FakeWorker {
  readonly connections: FakeConnection[] = [];
  script: FakeWorkerScript;
  readonly connect: Connect;

  constructor(script: FakeWorkerScript = {}) {
    this.script = script;
    this.connect = (options, handlers) => {
      const connection = new FakeConnection(options, handlers, this);
      this.connections.push(connection);
      return connection;
    };
  }

  /** The newest. */
  get connection(): FakeConnection {
    const connection = this.connections.at(-1);
    if (connection === undefined) throw new Error('nothing has connected yet');
    return connection;
  }

  get alive(): FakeConnection[] {
    return this.connections.filter((connection) => !connection.closed);
  }
}

export class FakeConnection implements WorkerConnection {
  readonly messages: ClientMessage[] = [];
  readonly adapters = new Map<string, string>();
  readonly open = new Map<number, { tokens: number; command: Generate }>();
  readonly openEmbeddings = new Map<number, Embed>();
  referenced = true;
  closed = false;

  constructor(
    readonly options: ServeOptions,
    readonly handlers: ConnectionHandlers,
    readonly worker: FakeWorker,
  ) {}

  get commands(): ClientCommand[] {
    return this.messages.flat();
  }

  post(message: ClientMessage): void {
    if (this.closed) throw new Error('posted on a closed connection');
    const copy = structuredClone(message);
    this.messages.push(copy);
    setImmediate(() => {
      for (const command of copy) this.#receive(command);
    });
  }

  ref(): void {
    this.referenced = true;
  }

  unref(): void {
    this.referenced = false;
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  emit(...events: WorkerEvent[]): void {
    if (!this.closed) this.handlers.onMessage(structuredClone(events));
  }

  die(cause?: unknown): void {
    if (this.closed) return;
    this.closed = true;
    this.handlers.onLost(cause);
  }

  /** The ids of generate commands that arrived, in order. */
  get generateIds(): number[] {
    return this.commands.flatMap((command) => (command.type === 'generate' ? [command.id] : []));
  }

  start(id: number, promptTokens = 3): void {
    this.emit({
      type: 'start',
      id,
      adapter: identityOf(this.open.get(id)?.command.adapters ?? []),
      promptTokens,
      cachedTokens: 1,
      queueMs: 0.5,
    });
  }

  token(id: number, text: string): void {
    const open = this.open.get(id);
    if (open !== undefined) open.tokens += 1;
    this.emit({ type: 'delta', id, text, tokenIds: [text.length] });
  }

  finish(id: number, rawReason = 'eos'): void {
    const usage = this.usage(id);
    if (!this.open.delete(id)) return;
    this.emit({ type: 'finish', id, reason: 'stop', rawReason, usage, timing: TIMING });
  }

  embedded(id: number, embeddings: Float32Array[]): void {
    const command = this.openEmbeddings.get(id);
    if (command === undefined) return;
    this.openEmbeddings.delete(id);
    const { adapters, input } = command;
    const adapter = identityOf(adapters);
    this.emit({ type: 'embedded', id, embeddings, promptTokens: 2 * input.length, adapter });
  }

  fail(id: number, error: WireError): void {
    const usage = this.usage(id);
    if (!this.#close(id)) return;
    this.emit({ type: 'failed', id, error, usage, timing: TIMING });
  }

  usage(id: number): Usage {
    const outputTokens = this.open.get(id)?.tokens ?? 0;
    return { promptTokens: 3, cachedTokens: 1, outputTokens };
  }

  #receive(command: ClientCommand): void {
    const { script } = this.worker;
    if (this.closed || script.deafTo?.includes(command.type) === true) return;
    if (command.type === 'generate') this.#generate(command);
    else if (command.type === 'embed') this.#embed(command);
    else if (command.type === 'cancel') this.#cancel(command.id);
    else this.#call(command);
  }

  #generate(command: Generate): void {
    const { script } = this.worker;
    const { id } = command;
    if (this.open.has(id)) throw new Error(`request ${id} twice`);
    this.open.set(id, { tokens: 0, command });
    if (script.loadError !== undefined) return this.fail(id, script.loadError);
    if (script.manual === true) return;
    const unknown = command.adapters.find(({ name }) => !this.adapters.has(name));
    if (unknown !== undefined) {
      const message = `worker: no ${unknown.name}`;
      return this.fail(id, { code: 'ADAPTER_NOT_FOUND', message, data: {} });
    }
    const answer = (script.answer ?? defaultAnswer)(command);
    if (!Array.isArray(answer)) return this.fail(id, answer);
    this.start(id);
    const step = () => {
      if (!this.open.has(id) || this.closed) return;
      const token = answer.shift();
      if (token === undefined) return this.finish(id);
      this.token(id, token);
      setImmediate(step);
    };
    setImmediate(step);
  }

  #embed(command: Embed): void {
    const { script } = this.worker;
    const { id } = command;
    if (this.openEmbeddings.has(id)) throw new Error(`call ${id} twice`);
    this.openEmbeddings.set(id, command);
    if (script.loadError !== undefined) return this.fail(id, script.loadError);
    if (script.manual === true) return;
    const answer = (script.embed ?? defaultEmbeddings)(command);
    if (Array.isArray(answer)) this.embedded(id, answer);
    else this.fail(id, answer);
  }

  #close(id: number): boolean {
    return this.open.delete(id) || this.openEmbeddings.delete(id);
  }

  #cancel(id: number): void {
    const usage = this.usage(id);
    if (this.#close(id)) this.emit({ type: 'aborted', id, usage, timing: TIMING });
  }

  #call(command: Exclude<ClientCommand, { type: 'generate' | 'embed' | 'cancel' }>): void {
    const { call } = command;
    const { script } = this.worker;
    const result = (value: CallResult) => this.emit({ type: 'result', call, value });
    const error = (wire: WireError) => this.emit({ type: 'error', call, error: wire });
    if (script.loadError !== undefined && command.type !== 'dispose') {
      return error(script.loadError);
    }
    switch (command.type) {
      case 'ready':
        return result({
          model: this.options.model,
          architecture: 'LlamaForCausalLM',
          device: 'cpu',
          deviceDescription: 'fake',
          precision: 'bfloat16',
          contextTokens: 512,
          vocabSize: 100,
          numPages: 8,
          pageBytes: 4096,
          blockTokens: 16,
        });
      case 'addAdapter': {
        const directory = directoryOf(command.source);
        const refused = script.addAdapter?.(command.name, directory);
        if (refused !== undefined) return error(refused);
        this.adapters.set(command.name, directory);
        return result({ hash: hashOf(directory), directory });
      }
      case 'cancelCall':
        return;
      case 'removeAdapter': {
        const hash = hashOf(this.adapters.get(command.name) ?? '');
        this.adapters.delete(command.name);
        return result({ name: command.name, hash, freedBytes: 1 });
      }
      case 'prefetchAdapter':
        return result(null);
      case 'listAdapters':
        return result(
          [...this.adapters.keys()].map((name) => ({
            ...{ name, bytes: 1, rank: 8, inHost: true, resident: true, activeRequests: 0 },
          })),
        );
      case 'stats':
        return result({
          pages: { total: 8, free: 8, kv: 0, cold: 0, adapter: 0, retiring: 0 },
          host: { bytes: 0, budgetBytes: 1, images: 0 },
          requests: { running: this.open.size, waiting: 0 },
          totals: {
            ...{ steps: 0, promptTokens: 0, outputTokens: 0, preemptions: 0, adapterLoads: 0 },
            ...{ adapterEvictions: 0, finished: 0, aborted: 0, failed: 0 },
            ...{ cachedTokens: 0, prefixHits: 0, prefixMisses: 0, prefixEvictions: 0 },
            ...{ adapterHits: 0, hostDrops: 0, hostReads: 0 },
          },
          recentSteps: [],
        });
      case 'dispose':
        for (const id of [...this.open.keys(), ...this.openEmbeddings.keys()]) {
          this.fail(id, { code: 'DISPOSED', message: 'disposed', data: {} });
        }
        return result(null);
    }
  }
}

function directoryOf(source: WireSource): string {
  if (source.kind === 'directory') return source.directory;
  return source.kind === 'folder' ? `${source.folder}/${source.name}` : JSON.stringify(source);
}

function hashOf(text: string): string {
  return `hash-${text.length}`;
}

function identityOf(adapters: WeightedAdapter[]): AdapterIdentity | null {
  const shown = (name: string) => name.slice(name.lastIndexOf('\0') + 1);
  return adaptersIdentity(
    adapters.map(({ name, weight }) => ({ name: shown(name), hash: hashOf(name), weight })),
  );
}

function defaultEmbeddings({ input, adapters }: Embed): Float32Array[] {
  return input.map((text) => Float32Array.of(text.length, adapters.length));
}

function defaultAnswer({ prompt, adapters }: Generate): string[] {
  const text =
    prompt.kind === 'messages' ? (prompt.messages.at(-1)?.content ?? '') : 'answer to a prompt';
  const words = text.match(/\s*\S+/g) ?? [];
  return adapters.length === 0 ? words : words.map((word) => word.toUpperCase());
}
