/**
 * One request's events on their way to its reader: a queue that is also the async iterator.
 *
 * The engine pushes, the reader pulls; either may be ahead. A reader that lags gets neighbouring
 * deltas as one. It ends once: by end(), fail() or the reader's return(); what follows is ignored.
 */
import { EventTail } from './merge-deltas.js';
import type { TokenEvent } from './types.js';

interface Waiter {
  resolve(result: IteratorResult<TokenEvent, undefined>): void;
  reject(error: unknown): void;
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

export class TokenStream implements AsyncIterableIterator<TokenEvent, undefined> {
  /** Keeps its object from being collected while the request is open. */
  owner: unknown = undefined;
  #queue: TokenEvent[] = [];
  #head = 0;
  readonly #tail = new EventTail();
  #waiters: Waiter[] = [];
  #ended = false;
  #failure: { error: unknown } | undefined;
  readonly #onReturn: () => void;

  /** `onReturn` is called when the reader leaves before the end. */
  constructor(onReturn: () => void) {
    this.#onReturn = onReturn;
  }

  get ended(): boolean {
    return this.#ended;
  }

  push(event: TokenEvent): void {
    if (this.#ended) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve({ done: false, value: event });
      return;
    }
    if (!this.#tail.join(event)) this.#queue.push(event);
  }

  /** What was pushed can still be read. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#finishWaiters();
  }

  /** The next read rejects; with `discard` at once, else after what was pushed. */
  fail(error: unknown, { discard = false } = {}): void {
    if (this.#ended) return;
    this.#ended = true;
    if (discard) this.#clear();
    const first = this.#waiters.shift();
    if (first !== undefined) first.reject(error);
    else this.#failure = { error };
    this.#finishWaiters();
  }

  next(): Promise<IteratorResult<TokenEvent, undefined>> {
    const event = this.#queue[this.#head];
    if (event !== undefined) {
      this.#tail.forget(event);
      this.#head += 1;
      if (this.#head === this.#queue.length) this.#clear();
      return Promise.resolve({ done: false, value: event });
    }
    if (this.#failure !== undefined) {
      const { error } = this.#failure;
      this.#failure = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<TokenEvent, undefined>> {
    const early = !this.#ended;
    this.#ended = true;
    this.#failure = undefined;
    this.#clear();
    this.#finishWaiters();
    if (early) this.#onReturn();
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #finishWaiters(): void {
    for (const waiter of this.#waiters) waiter.resolve(DONE);
    this.#waiters = [];
  }

  #clear(): void {
    this.#queue = [];
    this.#head = 0;
  }
}
