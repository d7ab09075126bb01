/**
 * Calls to the worker that get one answer: numbered on their way out, paired with it on its way back.
 * Used by engine-client.ts, which says when calls may be made and ends them all with the worker.
 */
import type { CallResult, ClientCommand, LoadedAdapter, WorkerEvent } from '../worker/protocol.js';
import type { AddCommand } from './adapter-load.js';
import { fromWire } from './client-errors.js';
import type { LoraxError } from './errors.js';

type Unnumbered<T> = T extends { call: number } ? Omit<T, 'call'> : never;
export type CallCommand = Unnumbered<ClientCommand>;

interface PendingCall {
  resolve(value: CallResult): void;
  reject(error: LoraxError): void;
  onFetched: (() => void) | undefined;
}

export class WorkerCalls {
  readonly #pending = new Map<number, PendingCall>();
  readonly #send: (command: ClientCommand) => void;
  /** When the number of pending calls has changed. */
  readonly #onChange: () => void;
  #last = 0;

  constructor(send: (command: ClientCommand) => void, onChange: () => void) {
    this.#send = send;
    this.#onChange = onChange;
  }

  get size(): number {
    return this.#pending.size;
  }

  post<T extends CallResult>(command: CallCommand): Promise<T> {
    return this.#post<T>(command, ++this.#last);
  }

  add(
    command: AddCommand,
    onFetched: () => void,
  ): { result: Promise<LoadedAdapter>; cancel(): void } {
    const call = ++this.#last;
    const result = this.#post<LoadedAdapter>({ type: 'addAdapter', ...command }, call, onFetched);
    const cancel = () => {
      if (this.#pending.has(call)) this.#send({ type: 'cancelCall', call });
    };
    return { result, cancel };
  }

  fetched({ call }: WorkerEvent & { type: 'fetched' }): void {
    this.#pending.get(call)?.onFetched?.();
  }

  /** Returns the error that the event carries, if it does. */
  answer(event: WorkerEvent & { type: 'result' | 'error' }): LoraxError | undefined {
    const call = this.#pending.get(event.call);
    this.#pending.delete(event.call);
    this.#onChange();
    if (event.type === 'result') {
      call?.resolve(event.value);
      return undefined;
    }
    const error = fromWire(event.error);
    call?.reject(error);
    return error;
  }

  failAll(error: LoraxError): void {
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of calls) call.reject(error);
  }

  #post<T extends CallResult>(
    command: CallCommand,
    call: number,
    onFetched?: () => void,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      // The protocol pairs each call with its result's type.
      this.#pending.set(call, { resolve: (value) => resolve(value as T), reject, onFetched });
      this.#send({ ...command, call });
      this.#onChange();
    });
  }
}
