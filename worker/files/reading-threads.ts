/**
 * Reading adapters' files on threads of their own: on the worker's, which hands tokens on, an adapter of
 * 84 MB would take 50 ms of every stream's time to be hashed, and some more to be understood.
 *
 * A few threads for the process, made when first needed; they keep nothing alive. They run the worker's own
 * file, which is the only one that is sure to be there. Used by load-engine.ts.
 */
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parentPort, Worker } from 'node:worker_threads';
import { LoraxError, type LoraxErrorCode, type LoraxErrorData } from '../../src/errors.js';
import type { DecoderConfig, NativeAdapterSpec } from '../addon.js';
import type { WireError } from '../protocol.js';
import { wireError } from '../wire-error.js';
import { packModules } from './pack-modules.js';
import { readPeftAdapter, type PeftAdapter } from './peft-adapter.js';

/** What is known of an adapter once its files are read. */
export interface ReadAdapter {
  spec: NativeAdapterSpec;
  /** The largest. */
  rank: number;
  /** Of its tensors. */
  bytes: number;
  /** Why it has no part in a weighted mix, if it has none. */
  alone?: string | undefined;
  /** Of an activated LoRA. */
  invocationTokens?: readonly number[] | undefined;
}

interface Request {
  id: number;
  directory: string;
  base: DecoderConfig;
}

interface Reply {
  id: number;
  adapter?: ReadAdapter;
  error?: WireError;
}

interface Waiting {
  resolve(adapter: ReadAdapter): void;
  reject(error: Error): void;
}

/** `workerData` of such a thread. */
export const READING_THREAD = 'lorax: reads adapters';

/** Others need cores as well. */
const MOST_THREADS = Math.min(4, Math.ceil(availableParallelism() / 8));

const threads: ReadingThread[] = [];

/** Rejects with what readPeftAdapter() throws. */
export function readAdapter(directory: string, base: DecoderConfig): Promise<ReadAdapter> {
  const [idlest] = [...threads].sort((a, b) => a.numWaiting - b.numWaiting);
  const isBusy = idlest === undefined || idlest.numWaiting > 0;
  if (!isBusy || threads.length >= MOST_THREADS) return idlest!.read(directory, base);
  const added = new ReadingThread();
  threads.push(added);
  return added.read(directory, base);
}

/** Run by the worker's file in a thread of this kind. */
export function serveReadings(): void {
  parentPort?.on('message', (request: Request) => void answer(request));
}

async function answer({ id, directory, base }: Request): Promise<void> {
  let reply: Reply;
  try {
    reply = { id, adapter: packed(await readPeftAdapter(directory, base)) };
  } catch (error) {
    reply = { id, error: wireError(error, 'ADAPTER_INVALID') };
  }
  parentPort?.postMessage(reply);
}

export function packed({ modules, alone, invocationTokens, ...rest }: PeftAdapter): ReadAdapter {
  let bytes = 0;
  for (const { a, b, bBias, magnitude, whole } of modules) {
    for (const tensor of [a, b, bBias, magnitude, whole]) {
      if (tensor) bytes += tensor.rows * tensor.cols * (tensor.dtype === 'F32' ? 4 : 2);
    }
  }
  const rank = Math.max(0, ...modules.map((module) => module.rank));
  return { spec: { ...rest, modules: packModules(modules) }, rank, bytes, alone, invocationTokens };
}

function fromWire({ code, message, data }: WireError): LoraxError {
  return new LoraxError(code as LoraxErrorCode, message, { data: data as LoraxErrorData });
}

class ReadingThread {
  private readonly waiting = new Map<number, Waiting>();
  private readonly worker: Worker;
  private lastId = 0;

  constructor() {
    this.worker = new Worker(fileURLToPath(import.meta.url), {
      ...{ workerData: READING_THREAD, execArgv: [], name: 'lorax-reads-adapters' },
    });
    this.worker.on('message', (reply: Reply) => this.settle(reply));
    this.worker.on('error', (error) => this.end(error));
    this.worker.on('exit', () => this.end(new Error('a thread that reads adapters has ended')));
    this.worker.unref();
  }

  get numWaiting(): number {
    return this.waiting.size;
  }

  read(directory: string, base: DecoderConfig): Promise<ReadAdapter> {
    const request: Request = { id: ++this.lastId, directory, base };
    return new Promise((resolve, reject) => {
      this.waiting.set(request.id, { resolve, reject });
      // It keeps the process alive while somebody waits.
      this.worker.ref();
      this.worker.postMessage(request);
    });
  }

  private settle({ id, adapter, error }: Reply): void {
    const { resolve, reject } = this.waiting.get(id) as Waiting;
    this.waiting.delete(id);
    if (this.waiting.size === 0) this.worker.unref();
    if (adapter !== undefined) resolve(adapter);
    else reject(fromWire(error as WireError));
  }

  private end(error: Error): void {
    const at = threads.indexOf(this);
    if (at >= 0) threads.splice(at, 1);
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
