/**
 * Embed calls: each becomes one native request per input, which join the batch like any other.
 *
 * Always holds: every `embed` ends in exactly one embedded, aborted or failed; all inputs of a call
 * are computed with the weights that its adapters' names stood for at receipt; a call that fails or
 * is aborted takes its native requests with it. At most MAX_INPUTS of all calls are in native hands,
 * which fills any batch: so a long list of texts is not refused, and leaves the queue to others; who
 * shares the batch alike takes turns for them. Owned by engine-port.ts.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { WeightedAdapter } from '../src/adapter-mix.js';
import { LoraxError, type LoraxErrorCode } from '../src/errors.js';
import type { AdapterIdentity } from '../src/types.js';
import { activeUses, type LeasedUse } from './activation.js';
import type { AdapterLease } from './adapter-registry.js';
import type { NativeEngine, NativeFailure } from './addon.js';
import { encodeInput } from './encode-prompt.js';
import type { LoadedEngine } from './load-engine.js';
import { serviceOf } from './native-service.js';
import { Places } from './places.js';
import type { QueueFull } from './queue-full.js';
import type { EmbedCommand, WireError, WorkerEvent } from './protocol.js';
import { wireError } from './wire-error.js';

/** What the engine's port does for its calls. */
export interface EmbeddingHost {
  engine(): Promise<LoadedEngine>;
  lease(adapters: readonly WeightedAdapter[]): Promise<AdapterLease>;
  nextNativeId(): number;
  emit(event: WorkerEvent): void;
  /** A call failed with it. */
  onFailure(error: WireError): void;
}

const MAX_INPUTS = 256;
const PLACES_AHEAD = 16;

/** Short texts are tokenized in turns of about this, between which open streams go on. */
const TURN_MS = 4;

/** Failures of one input; all others are of the call. */
const INPUT_FAULTS: readonly string[] = [
  ...['INVALID_OPTIONS', 'CONTEXT_TOO_LONG', 'POOL_EXHAUSTED', 'MODEL_INVALID', 'ADAPTER_INVALID'],
];

class OpenCall {
  ended = false;
  adapter: AdapterIdentity | null = null;
  promptTokens = 0;
  queueMs: number | null = null;
  readonly embeddings: Float32Array[];
  /** Inputs without an embedding. */
  numLeft: number;
  /** Those in native hands. */
  readonly nativeIds = new Set<number>();
  native: NativeEngine | null = null;
  lease: AdapterLease | null = null;
  /** It has inputs that native code has not been given yet. */
  preparing = true;
  private readonly receivedAt = performance.now();

  constructor(readonly command: EmbedCommand) {
    this.numLeft = command.input.length;
    this.embeddings = new Array<Float32Array>(this.numLeft);
  }

  elapsedMs(): number {
    return performance.now() - this.receivedAt;
  }

  /** Of its adapters, when native code has said its last word on every input. */
  releaseIfOver(): void {
    if (!this.preparing && this.nativeIds.size === 0) this.lease?.release();
  }

  /** What is told of a call that came to nothing. */
  account() {
    const totalMs = this.elapsedMs();
    return {
      id: this.command.id,
      usage: { promptTokens: this.promptTokens, cachedTokens: 0, outputTokens: 0 },
      timing: { queueMs: this.queueMs ?? totalMs, timeToFirstTokenMs: null, totalMs },
    };
  }
}

export class EmbeddingCalls {
  /** By the client's id, from receipt to the terminal event. */
  private readonly calls = new Map<number, OpenCall>();
  /** By native id, until native code's last word. */
  private readonly inputs = new Map<number, { call: OpenCall; index: number }>();
  /** Calls with inputs that native code has not been given yet. */
  numPreparing = 0;
  private readonly places: Places;

  constructor(
    private readonly host: EmbeddingHost,
    private readonly queueFull: QueueFull,
  ) {
    this.places = new Places(Math.min(MAX_INPUTS, Math.max(1, queueFull.maxQueued)));
  }

  async run(command: EmbedCommand): Promise<void> {
    // An id that is still open is the client's defect; the open call is not to pay for it.
    if (this.calls.has(command.id)) return;
    const call = new OpenCall(command);
    this.calls.set(command.id, call);
    this.numPreparing++;
    try {
      this.queueFull.check(this.numPreparing);
      const lease = await this.host.lease(command.adapters);
      call.lease = lease;
      const engine = await this.host.engine();
      call.adapter = lease.identity;
      call.native = engine.native;
      await this.submitAll(call, engine, lease.uses);
    } catch (error) {
      this.fail(call, error);
    } finally {
      this.numPreparing--;
      call.preparing = false;
      call.releaseIfOver();
    }
  }

  /** False if it is no embed call's id. */
  cancel(id: number): boolean {
    const call = this.calls.get(id);
    if (call === undefined) return false;
    this.end(call);
    this.host.emit({ type: 'aborted', ...call.account() });
    return true;
  }

  failAll(reason: LoraxError): void {
    for (const call of [...this.calls.values()]) this.fail(call, reason);
  }

  // What native code reports; `owns` says whether a native id is one of these.

  owns(nativeId: number): boolean {
    return this.inputs.has(nativeId);
  }

  onStarted(nativeId: number): void {
    const call = this.inputs.get(nativeId)?.call;
    if (call !== undefined) call.queueMs ??= call.elapsedMs();
  }

  onEmbedded(nativeId: number, embedding: Float32Array): void {
    const input = this.take(nativeId);
    if (input === undefined || input.call.ended) return;
    const { call, index } = input;
    call.embeddings[index] = embedding.slice();
    call.numLeft--;
    if (call.numLeft > 0) return;
    this.end(call);
    const { embeddings, promptTokens, adapter } = call;
    this.host.emit({ type: 'embedded', id: call.command.id, embeddings, promptTokens, adapter });
  }

  /** The answer to cancel(): the call has ended by then. */
  onAborted(nativeId: number): void {
    this.take(nativeId);
  }

  onFailed(nativeId: number, failure: NativeFailure): void {
    const input = this.take(nativeId);
    if (input !== undefined) this.fail(input.call, ofInput(failure, input.index));
  }

  private async submitAll(
    call: OpenCall,
    engine: LoadedEngine,
    adapters: readonly LeasedUse[],
  ): Promise<void> {
    const { input, pooling, normalize } = call.command;
    const line = lineOf(call.command);
    let turnEnds = performance.now() + TURN_MS;
    // A few at once, or a line of one call would get one place where others get many.
    const places: (Promise<void> | void)[] = [];
    try {
      for (const [index, text] of input.entries()) {
        if (performance.now() > turnEnds) {
          await nextTurn();
          turnEnds = performance.now() + TURN_MS;
        }
        while (places.length < Math.min(PLACES_AHEAD, input.length - index)) {
          places.push(this.places.take(line));
        }
        if (call.ended) return;
        const tokens = await this.encode(engine, text, index);
        await places[0];
        if (call.ended) return;
        const nativeId = this.host.nextNativeId();
        // From here on it is the input's.
        void places.shift();
        this.inputs.set(nativeId, { call, index });
        call.nativeIds.add(nativeId);
        call.promptTokens += tokens.length;
        try {
          const service = serviceOf(call.command);
          const uses = activeUses(adapters, tokens);
          engine.native.embed(nativeId, tokens, uses, { pooling, normalize }, service);
        } catch (error) {
          this.take(nativeId);
          throw error;
        }
      }
    } finally {
      for (const place of places) void Promise.resolve(place).then(() => this.places.leave());
    }
  }

  private async encode(
    { tokenizer, info }: LoadedEngine,
    text: string,
    index: number,
  ): Promise<Int32Array> {
    try {
      return await encodeInput(text, fieldOf(index), tokenizer, info);
    } catch (error) {
      throw ofInput(error, index);
    }
  }

  /** Native code's last word on an input. */
  private take(nativeId: number): { call: OpenCall; index: number } | undefined {
    const input = this.inputs.get(nativeId);
    if (input === undefined) return undefined;
    this.inputs.delete(nativeId);
    input.call.nativeIds.delete(nativeId);
    input.call.releaseIfOver();
    this.places.leave();
    return input;
  }

  private fail(call: OpenCall, thrown: unknown): void {
    if (call.ended) return;
    this.end(call);
    const error = wireError(thrown, 'INVALID_OPTIONS');
    this.host.emit({ type: 'failed', ...call.account(), error });
    this.host.onFailure(error);
  }

  private end(call: OpenCall): void {
    call.ended = true;
    this.calls.delete(call.command.id);
    for (const nativeId of call.nativeIds) call.native?.cancel(nativeId);
  }
}

/** Names the input at fault, if one is. */
function ofInput(thrown: unknown, index: number): unknown {
  const { code, message, data } = wireError(thrown, 'INVALID_OPTIONS');
  if (!INPUT_FAULTS.includes(code)) return thrown;
  const field = fieldOf(index);
  const named = message.startsWith(field) ? message : `${field}: ${message}`;
  return new LoraxError(code as LoraxErrorCode, named, { data: { ...data, field, index } });
}

/** As native code tells apart who shares the batch. */
const lineOf = ({ tenant, adapters }: EmbedCommand): string =>
  JSON.stringify(tenant ?? adapters.map(({ name }) => name));

const fieldOf = (index: number): string => `input[${index}]`;
