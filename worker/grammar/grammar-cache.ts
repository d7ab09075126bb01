/**
 * Constraints to native grammars, each compiled once while it is remembered.
 *
 * Requests with the same constraint share one grammar, also while it is still being made; the one that
 * was used longest ago is forgotten first, and native code frees it after its last request. A failure
 * is told to everyone who waits and not kept. Owned by engine-port.ts,
 * asked by prepare-request.ts.
 */
import type { NativeGrammar } from '../addon.js';

const MAX_GRAMMARS = 128;
/** Characters of all keys: a key may be a schema of a megabyte. */
const MAX_KEYS_LENGTH = 16 << 20;

export class GrammarCache {
  /** In the order of their last use. */
  private readonly grammars = new Map<string, Promise<NativeGrammar>>();
  private keysLength = 0;

  constructor(private readonly compile: (text: string) => Promise<NativeGrammar>) {}

  /** `key` says everything that `text` depends on. */
  of(key: string, text: () => Promise<string>): Promise<NativeGrammar> {
    const known = this.grammars.get(key);
    this.forget(key);
    const grammar = known ?? text().then(this.compile);
    this.grammars.set(key, grammar);
    this.keysLength += key.length;
    if (known === undefined) {
      grammar.catch(() => {
        if (this.grammars.get(key) === grammar) void this.forget(key);
      });
    }
    for (const oldest of this.grammars.keys()) {
      const isFull = this.grammars.size > MAX_GRAMMARS || this.keysLength > MAX_KEYS_LENGTH;
      if (!isFull || oldest === key) break;
      void this.forget(oldest);
    }
    return grammar;
  }

  private forget(key: string): void {
    if (this.grammars.delete(key)) this.keysLength -= key.length;
  }
}
